"""Where a measurement takes place: a folder of its own, a block of loopback addresses, two cores."""

import os
import shutil
import socket
import tempfile

from . import interrupts, processes
from .trouble import Mistake

# Blocks that nothing else of the project uses: `dolmen up` begins at 1, tests have their own.
BLOCKS = range(90, 100)
HTTP_PORT = 8080
ORIGIN_PORT = 8081
ORIGINS = (111, 112)
# Never bound by anything that serves: holding it is what keeps two runs apart.
LOCK = 250


class Place:
    """Use it as a context: at the end all that was started is ended and the folder removed."""

    # Machines of a dolmen site are .1, .2, …; the rest of the block is for what stands beside it.
    HAPROXY, NGINX, WEB, FLOOR, WORKER = 101, 102, 103, 104, 110
    WEB_PORT = 8085

    def __init__(self, load_core, proxy_core, block=None, io="io_uring"):
        """io: what Dolmen is asked to read through; without io_uring in the kernel it takes epoll."""
        self.load_core, self.proxy_core, self.io = load_core, proxy_core, io
        self.block, self.held = _claim(block)
        self.folder = tempfile.mkdtemp(prefix="dolmen-bench-")
        # Servers that give up root still have to reach their files.
        os.chmod(self.folder, 0o755)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with interrupts.held():
            self._leave()

    def _leave(self):
        processes.end_all()
        self.held.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def address(self, last, port=HTTP_PORT):
        return (f"127.0.{self.block}.{last}", port)

    def origins(self):
        return [self.address(last, ORIGIN_PORT) for last in ORIGINS]

    def subfolder(self, name):
        path = os.path.join(self.folder, name)
        os.makedirs(path, exist_ok=True)
        return path


def _claim(wanted):
    """A block that no other run of this harness uses: it is held by a socket, which cannot be left behind."""
    for block in BLOCKS if wanted is None else [wanted]:
        held = socket.socket()
        try:
            held.bind((f"127.0.{block}.{LOCK}", HTTP_PORT))
            return block, held
        except OSError:
            held.close()
    raise Mistake("the loopback block is in use by another run of this harness\nhint: wait for it to end")
