"""Requests at a steady rate, whether or not answers are slow; see bench/paced.rs for why."""

import json

from .. import binary, packages, processes
from ..trouble import Trouble

CONNECTIONS = 64
# Below this share of the rate the load was not what was asked for, and its figures mean nothing.
RATE_KEPT = 0.97
# What bench/paced.rs sends before it counts, as a share of the time.
WARM_UP_SHARE = 0.1


def load(place, address, path, rate, seconds):
    """What was counted: requests, rate, p50_us, p99_us, p99_9_us, max_us."""
    words = [
        packages.find("taskset"), "-c", str(place.load_core), binary.tool("paced"), f"{address[0]}:{address[1]}",
        path, f"{rate:.0f}", str(seconds), str(CONNECTIONS),
    ]
    counted = json.loads(processes.run(words, seconds * 2 + 30))
    if counted["rate"] < rate * RATE_KEPT:
        raise Trouble(
            f"{counted['rate']:.0f} requests a second were made instead of {rate:.0f}: the machine is too busy"
        )
    return counted
