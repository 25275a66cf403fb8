"""The machine that is measured on: two cores to pin to, and what a reader must know about it."""

import os
import platform
import resource

from .trouble import Mistake

# 9,000 clients, and a connection to a server for each of them, with some room.
FILES = 20_000


def cores():
    """(core of the load and the origins, core of the proxy)."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        raise Mistake("this needs two cores: one for the proxy, one for the load and the servers behind it")
    return mine[0], mine[-1]


def raise_file_limit():
    """Everything that is started inherits it, so it is the same for all sides."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def describe():
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(_field("/proc/meminfo", "MemTotal").split()[0]) * 1024 / 1e9, 1),
        "kernel": platform.release(),
        "system": _system(),
        "load_before": os.getloadavg()[0],
    }


def _field(path, key):
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def _system():
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
