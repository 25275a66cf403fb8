"""`latency`: how long requests take at a rate that every side can bear.

The rate is half of what the weakest side reached when it got as many requests as it could answer.
"""

import contextlib

from .. import accounting, origin, rounds
from ..bench import some
from ..load import paced, wrk

SHARE_OF_SATURATION = 0.5
SATURATE_S = 3


def run(bench):
    with contextlib.ExitStack() as stack:
        sides = some(bench.balancers(origin.start(bench.place, stack)))
        rate = SHARE_OF_SATURATION * min(_saturation(bench, stack, side) for side in sides)
        bench.say(f"{rate:.0f} requests a second to each side")
        for side in sides:
            side.settings["requests_per_s"] = round(rate)
        return sides, rounds.in_turns(
            sides, bench.rounds, lambda side, _: _figures(bench, side, rate), bench.say
        )


def _saturation(bench, stack, side):
    stack.callback(side.end)
    side.start()
    seconds = min(SATURATE_S, bench.seconds)
    counted = wrk.load(bench.place, side.address, origin.SMALL, seconds)
    return counted["requests"] * 1e6 / counted["duration_us"]


def _figures(bench, side, rate):
    pids = side.pids()
    before = sum(accounting.cpu_s(pids))
    counted = paced.load(bench.place, side.address, origin.SMALL, rate, bench.seconds)
    used = sum(accounting.cpu_s(pids)) - before
    asked = rate * bench.seconds * (1 + paced.WARM_UP_SHARE)
    return {
        "p99_us": counted["p99_us"],
        "p50_us": counted["p50_us"],
        "p99_9_us": counted["p99_9_us"],
        "max_us": counted["max_us"],
        "requests_per_s": counted["rate"],
        "cpu_us_per_request": used * 1e6 / asked,
    }
