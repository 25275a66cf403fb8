"""`balancer` and `balancer-large`: processor time for each request while as many are sent as are answered."""

import contextlib
import time

from .. import accounting, origin, rounds, system_calls
from ..bench import some
from ..load import wrk

WARM_UP_S = 1


def small(bench):
    return _run(bench, origin.SMALL, bench.beside)


def large(bench):
    return _run(bench, origin.LARGE, lambda _: [])


def _run(bench, path, others):
    with contextlib.ExitStack() as stack:
        origins = origin.start(bench.place, stack)
        sides = some(bench.balancers(origins) + others(origins))
        return sides, compare(bench, stack, sides, path)


def compare(bench, stack, sides, path, started=lambda side: None):
    """Starts the sides, warms them up, and loads them in turns. started(side) may add to a start."""
    for side in sides:
        stack.callback(side.end)
        side.start()
        started(side)
        wrk.load(bench.place, side.address, path, WARM_UP_S)
    measured = rounds.in_turns(
        sides, bench.rounds, lambda side, _: figures(bench, side, path), bench.say
    )
    for side in sides:
        side.system_calls = system_calls.per_request(bench, side, path)
    return measured


def figures(bench, side, path):
    """One load on one side."""
    pids, beside = side.pids(), side.beside()
    before, before_beside, began = accounting.cpu_s(pids), accounting.cpu_s(beside), time.monotonic()
    counted = wrk.load(bench.place, side.address, path, bench.seconds)
    after, after_beside, took = accounting.cpu_s(pids), accounting.cpu_s(beside), time.monotonic() - began
    user, system = (late - early for late, early in zip(after, before))
    to_us = 1e6 / counted["requests"]
    return {
        "cpu_us_per_request": (user + system) * to_us,
        "requests_per_s": counted["requests"] * 1e6 / counted["duration_us"],
        "p99_us": counted["p99_us"],
        "p50_us": counted["p50_us"],
        "p99_9_us": counted["p99_9_us"],
        "user_us_per_request": user * to_us,
        "system_us_per_request": system * to_us,
        # 1 means that the proxy was what limited the throughput.
        "core_share": (user + system) / took,
        "beside_us_per_request": (sum(after_beside) - sum(before_beside)) * to_us,
        "threads": accounting.threads(pids),
        **accounting.memory(pids),
    }
