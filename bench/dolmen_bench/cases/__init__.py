"""The cases: what is compared, by which load, and which figure counts."""

from dataclasses import dataclass
from typing import Callable

from . import idle_memory, latency, path, throughput


@dataclass(frozen=True)
class Case:
    name: str
    # What is done, and what the figure that counts is.
    work: str
    measure: str
    figure: str
    unit: str
    # The ratio to reach, to a peer by name or to the `better` of them; less is better everywhere.
    goals: dict
    run: Callable
    # The same for Dolmen on epoll, where they differ.
    goals_on_epoll: dict | None = None
    tools: tuple = ()
    uses_wrk: bool = True


ALL = [
    Case(
        "balancer", "1 KiB answers, 64 keep-alive connections", "CPU per request", "cpu_us_per_request", "µs",
        {"better": 0.65}, throughput.small, goals_on_epoll={"haproxy": 0.75, "nginx": 0.85}, tools=("floor",),
    ),
    Case(
        "balancer-large", "100 KiB answers, 64 keep-alive connections", "CPU per request", "cpu_us_per_request",
        "µs", {"better": 0.65}, throughput.large,
    ),
    Case(
        "latency", "1 KiB answers at half of the weakest side's saturation", "p99 latency", "p99_us", "µs",
        {"better": 1.0}, latency.run, tools=("paced",),
    ),
    Case(
        "idle-memory", "9,000 idle keep-alive connections", "resident memory", "resident_mb", "MB",
        {"better": 1.0}, idle_memory.run, uses_wrk=False,
    ),
    Case(
        "path", "balancer, web server and worker; the worker's own CPU left out", "CPU per request, all tiers",
        "cpu_us_per_request", "µs", {"better": 0.75}, path.run, tools=("worker",),
    ),
]
