"""What a side used: processor time and memory, from the kernel's own accounting in /proc."""

import os

TICKS = os.sysconf("SC_CLK_TCK")
KIB = 1024


def cpu_s(pids):
    """(user, system) seconds of processes, all their threads, also those that have ended (proc(5), stat)."""
    user = system = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name in brackets may hold anything, so count from its end: utime and stime are fields 14 and 15.
            fields = file.read().rpartition(")")[2].split()
        user += int(fields[11])
        system += int(fields[12])
    return user / TICKS, system / TICKS


def threads(pids):
    return sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids)


def memory(pids):
    """Memory of the processes of one side, in MB (10^6 bytes).

    resident_mb counts what processes of the same side share (a master and its worker) once; what is shared
    with anything else counts in full. pss_mb divides shared pages among all who map them.
    """
    rolls = [_rollup(pid) for pid in pids]
    private = sum(roll["Private_Clean"] + roll["Private_Dirty"] for roll in rolls)
    shared = max((roll["Shared_Clean"] + roll["Shared_Dirty"] for roll in rolls), default=0)
    return {
        "resident_mb": (private + shared) * KIB / 1e6,
        "rss_mb": sum(roll["Rss"] for roll in rolls) * KIB / 1e6,
        "pss_mb": sum(roll["Pss"] for roll in rolls) * KIB / 1e6,
    }


def _rollup(pid):
    roll = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as file:
        for line in file.readlines()[1:]:
            key, _, value = line.partition(":")
            roll[key] = int(value.split()[0])
    return roll
