"""`path`: the whole path, balancer to web server to worker, all proxies of a side on one core.

The worker answers at once and runs on the core of the load; its processor time is not counted.
"""

import contextlib

from .. import origin, processes, worker
from ..bench import some
from . import throughput


def run(bench):
    with contextlib.ExitStack() as stack:
        own = worker.start(bench.place, stack)
        sides = some(bench.chains(own, origin.start(bench.place, stack)))
        for side in sides:
            if side.name == "dolmen":
                worker.put_into(side.folder)
        measured = throughput.compare(bench, stack, sides, "/", lambda side: _move_workers(bench, side))
        return sides, measured


def _move_workers(bench, side):
    """Dolmen starts its own workers, on its own core; here they go to where the peers' worker is."""
    for pid in side.workers() if side.name == "dolmen" else []:
        processes.pin(pid, bench.place.load_core)
