"""The programs that a case needs, and the Debian packages that have them. Nothing is installed from here."""

import os
import shutil

from .trouble import Mistake

DEBIAN = {"haproxy": "haproxy", "nginx": "nginx", "wrk": "wrk", "taskset": "util-linux"}
# Not on every user's PATH, but that is where Debian puts haproxy and nginx.
ALSO = "/usr/sbin:/usr/local/sbin"


def find(program):
    """The path of a program, or None."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":" + ALSO)


def require(programs):
    """All programs must be there; every missing package is named at once."""
    missing = sorted(DEBIAN.get(name, name) for name in set(programs) if find(name) is None)
    if missing:
        raise Mistake(
            f"this needs programs that are not installed: {', '.join(missing)}\n"
            f"hint: apt-get install --no-install-recommends {' '.join(missing)}"
        )
