"""The servers behind the proxies: two nginx that serve small and large files, the same for all sides."""

import os

from . import nginx_conf, packages
from .processes import Program

SMALL_BYTES, LARGE_BYTES = 1024, 100 * 1024
SMALL, LARGE, HEALTH = "/small", "/large", "/healthz"

BODY = """\
    open_file_cache max=100 inactive=1h;
    open_file_cache_valid 1h;
    server {{
        listen {host}:{port} backlog=4096;
        root {root};
        location = /healthz {{ return 200 "well\\n"; }}
    }}
"""


def start(place, stack):
    """Starts both and returns their addresses; the stack ends them."""
    root = place.subfolder("files")
    for name, size in ((SMALL, SMALL_BYTES), (LARGE, LARGE_BYTES)):
        with open(root + name, "wb") as file:
            file.write(b"x" * size)
        os.chmod(root + name, 0o644)
    addresses = place.origins()
    for number, (host, port) in enumerate(addresses, start=1):
        folder = place.subfolder(f"origin-{number}")
        words = nginx_conf.write(folder, BODY.format(host=host, port=port, root=root))
        program = Program([packages.find("nginx"), *words], place.load_core, folder, f"origin-{number}")
        stack.callback(program.end)
        program.await_listening((host, port))
    return addresses
