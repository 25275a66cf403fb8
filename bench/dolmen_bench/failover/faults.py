"""What is done to a side, and how it is undone. One function each: it strikes, and returns what mends it."""

import signal
import time

from .machines import send

# A machine stays away for longer than any lease of either side.
# How long a rejoin is waited for, and after what time a primary that still is one has stayed it.
REJOIN_S, STAYS_S = 120, 5
AWAY_S = {"dolmen": 6, "patroni": 26}


def _away(side, undo):
    """What mends it, after the machine has been away for long enough."""
    def mend():
        undo()
    mend.after = AWAY_S[side.name]
    return mend


def machine_killed(side, network, primary, replica):
    side.machines[primary].kill()
    return _away(side, lambda: side.start(primary))


def machine_frozen(side, network, primary, replica):
    side.machines[primary].freeze()
    return _away(side, side.machines[primary].thaw)


def machine_cut_off(side, network, primary, replica):
    network.cut_off(side.machines[primary])
    return _away(side, network.heal)


def postgres_killed(side, network, primary, replica):
    send(side.postgres(primary), signal.SIGKILL)


def manager_killed(side, network, primary, replica):
    send(side.manager(primary), signal.SIGKILL)
    return _away(side, lambda: side.manager_back(primary))


def manager_stopped(side, network, primary, replica):
    pids = side.manager(primary)
    send(pids, signal.SIGSTOP)
    return _away(side, lambda: send(pids, signal.SIGCONT))


def switchover(side, network, primary, replica):
    side.switchover(primary, replica)


def replica_killed(side, network, primary, replica):
    side.machines[replica].kill()
    return _away(side, lambda: side.start(replica))


def replica_frozen(side, network, primary, replica):
    side.machines[replica].freeze()
    return _away(side, side.machines[replica].thaw)


def replica_cut_off(side, network, primary, replica):
    network.cut_off(side.machines[replica])
    return _away(side, network.heal)


# name: what it is, the function, whether the primary's machine (0) or the replica's (1) is struck, our goal in seconds.
ALL = {
    "machine-killed": ("primary's machine killed", machine_killed, 0, 3.5),
    "machine-frozen": ("primary's machine frozen", machine_frozen, 0, 3.5),
    "machine-cut-off": ("primary's machine cut off", machine_cut_off, 0, 3.5),
    "postgres-killed": ("postgres killed", postgres_killed, None, 0.4),
    "manager-killed": ("manager killed", manager_killed, None, 3.5),
    "manager-stopped": ("manager stopped", manager_stopped, None, 3.5),
    "switchover": ("switchover", switchover, None, 0.35),
    "replica-killed": ("replica's machine killed", replica_killed, 1, 1.0),
    "replica-frozen": ("replica's machine frozen", replica_frozen, 1, 2.5),
    "replica-cut-off": ("replica cut off", replica_cut_off, 1, 2.5),
}
# With a lease of 2 s.
SHORT_GOALS = {"machine-killed": 2.5, "machine-frozen": 2.5, "machine-cut-off": 2.5}


def once(side, network, fault, writer_class, rest_s):
    """One fault under a writer: the figures."""
    _, strike, struck, _ = ALL[fault]
    side.until_whole()
    time.sleep(rest_s)
    primary, replica = side.roles()
    away = [] if struck is None else [(primary, replica)[struck]]
    writer = writer_class(side.clients(away))
    writer.begin()
    time.sleep(1)
    began = time.monotonic()
    mend = strike(side, network, primary, replica)
    if mend:
        time.sleep(max(0.0, began + mend.after - time.monotonic()))
        mend()
    mended = time.monotonic()
    who = (primary, replica)[struck or 0]
    rejoin = None
    while time.monotonic() < mended + REJOIN_S:
        # A replica may be back before anything is written; an old primary is not, before there is a new one.
        if (struck == 1 or writer.written_after(mended)) and side.rejoined(who):
            rejoin = time.monotonic() - mended
            break
        # Restarted in place: nobody has to rejoin.
        if struck is None and writer.written_after(mended + STAYS_S) and side.primary_is(primary):
            break
        time.sleep(0.05)
    until = time.monotonic()
    time.sleep(0.3)
    writer.end()
    return {"outage_s": round(writer.outage(began, until), 3), "rejoin_s": rejoin and round(rejoin, 2),
            "lost": writer.lost(), "acknowledged": len(writer.acknowledged), "errors": len(writer.errors),
            "moved": not side.primary_is(primary)}
