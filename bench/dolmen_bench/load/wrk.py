"""As many requests as are answered, over connections that stay open."""

import json
import os

from .. import binary, packages, processes
from ..trouble import Trouble

CONNECTIONS = 64
ANSWER_WITHIN_S = 5
SCRIPT = os.path.join(binary.ROOT, "bench", "wrk.lua")


def load(place, address, path, seconds, connections=CONNECTIONS):
    """What wrk counted: requests, duration_us, bytes, p50_us, p99_us, p99_9_us, max_us."""
    url = f"http://{address[0]}:{address[1]}{path}"
    words = [
        packages.find("taskset"), "-c", str(place.load_core), packages.find("wrk"), "-t1", f"-c{connections}",
        f"-d{seconds}s", f"--timeout={ANSWER_WITHIN_S}s", "-s", SCRIPT, url,
    ]
    counted = json.loads(processes.run(words, seconds + 30).strip().splitlines()[-1])
    if counted["failed"] or not counted["requests"]:
        raise Trouble(f"{counted['failed']} of {counted['requests']} requests to {url} failed")
    return counted
