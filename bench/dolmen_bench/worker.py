"""The worker of the case `path` for the peers: the same program that Dolmen's app server starts."""

import os
import shutil

from . import binary
from .processes import Program


def start(place, stack):
    """Starts one and returns its address; the stack ends it."""
    host, port = place.address(place.WORKER)
    environment = {"HOST": host, "PORT": str(port)}
    program = Program([binary.tool("worker")], place.load_core, place.subfolder("worker"), "worker", environment)
    stack.callback(program.end)
    program.await_listening((host, port))
    return (host, port)


def put_into(folder):
    """A copy among the application files of a site."""
    path = os.path.join(folder, "worker")
    shutil.copy(binary.tool("worker"), path)
    os.chmod(path, 0o755)
