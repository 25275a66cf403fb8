"""`idle-memory`: what a proxy holds for clients that are connected and ask nothing.

Each round begins with a fresh process, because what an allocator once got it seldom gives back.
"""

import contextlib
import time

from .. import accounting, origin, rounds
from ..bench import some
from ..load.idle import Idle
from ..trouble import Trouble

CONNECTIONS = 9_000
# Idle connections to the servers are closed by then (the longest default is HAProxy's, 5 s and a purge), and
# the clients' are not yet (60 s on all sides).
SETTLE_S = 12


def run(bench):
    with contextlib.ExitStack() as stack:
        sides = some(bench.balancers(origin.start(bench.place, stack)))
        return sides, rounds.in_turns(sides, bench.rounds, lambda side, _: _figures(bench, side), bench.say)


def _figures(bench, side):
    with contextlib.ExitStack() as stack:
        stack.callback(side.end)
        side.start()
        # One request, so that all that a first one brings into memory is there before.
        with Idle(side.address, origin.SMALL, 1):
            before = accounting.memory(side.pids())
        with Idle(side.address, origin.SMALL, CONNECTIONS) as idle:
            time.sleep(SETTLE_S)
            after = accounting.memory(side.pids())
            if (left := idle.still_open()) != CONNECTIONS:
                raise Trouble(f"{side.name} closed {CONNECTIONS - left} of {CONNECTIONS} idle connections")
    grown = after["resident_mb"] - before["resident_mb"]
    return {
        "resident_mb": after["resident_mb"],
        "before_mb": before["resident_mb"],
        "kb_per_connection": grown * 1e3 / CONNECTIONS,
        "rss_mb": after["rss_mb"],
        "pss_mb": after["pss_mb"],
    }
