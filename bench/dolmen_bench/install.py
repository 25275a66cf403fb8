"""Installs what a case needs and the machine has not, by scripts/install.sh, where that may be done unasked."""

import os
import sys

from . import binary, packages, processes
from .trouble import Mistake, Trouble

WITHIN_S = 600
# Useful, but no case fails without it.
OPTIONAL = ("strace",)


def require(programs):
    """All programs must be there at the end; every missing package is named at once."""
    wanted = packages.missing([*programs, *OPTIONAL])
    if not wanted:
        return
    print(f"bench: installing {', '.join(wanted)}", file=sys.stderr, flush=True)
    try:
        processes.run([os.path.join(binary.ROOT, "scripts", "install.sh"), "bench"], WITHIN_S)
    except Trouble as trouble:
        if still := packages.missing(programs):
            raise Mistake(
                f"this needs programs that are not installed: {', '.join(still)}\n{trouble}\n"
                f"hint: apt-get install --no-install-recommends {' '.join(still)}"
            ) from None
