"""How many system calls a side makes for each request, counted by strace in a load of its own.

strace stops the traced process at every call, so nothing of this load is timed.
"""

import os
import re
import signal
import subprocess

from . import interrupts, packages
from .load import wrk

SECONDS = 2
END_S = 10
# A line of `strace -c`: share, seconds, µs per call, calls, errors if any, name.
LINE = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?([a-z]\w*)$", re.MULTILINE)


def per_request(bench, side, path):
    """By name, the rare ones left out; None where strace is not installed or may not trace."""
    strace = packages.find("strace")
    if strace is None:
        return None
    summary = os.path.join(bench.place.folder, f"{side.name}.strace")
    # No -f: it names the processes alone, and the threads of each are traced with it by their own -p.
    traced = [word for pid in side.pids() for task in os.listdir(f"/proc/{pid}/task") for word in ("-p", task)]
    with interrupts.held():
        process = subprocess.Popen(
            [strace, "-c", "-o", summary, *traced], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )
        try:
            requests = wrk.load(bench.place, side.address, path, SECONDS)["requests"]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(END_S)
    with open(summary, encoding="utf-8", errors="replace") as file:
        calls = {name: int(count) / requests for count, name in LINE.findall(file.read()) if name != "total"}
    return {name: round(count, 2) for name, count in calls.items() if count >= 0.01} or None
