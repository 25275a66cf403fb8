"""The programs that a case needs, and the Debian packages that have them."""

import os
import shutil

DEBIAN = {"haproxy": "haproxy", "nginx": "nginx", "wrk": "wrk", "taskset": "util-linux", "strace": "strace"}
# Not on every user's PATH, but that is where Debian puts haproxy and nginx.
ALSO = "/usr/sbin:/usr/local/sbin"


def find(program):
    """The path of a program, or None."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":" + ALSO)


def missing(programs):
    """The packages of those that are not there."""
    return sorted({DEBIAN.get(name, name) for name in programs if find(name) is None})
