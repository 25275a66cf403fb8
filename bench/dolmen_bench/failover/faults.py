"""What is done to a side, and how it is undone. One function each: it strikes, and returns what mends it."""

import collections
import signal
import time

from . import hang
from .load import Load
from .machines import send

# How long a rejoin is waited for, and after what time a primary that still is one has stayed it.
REJOIN_S, STAYS_S = 120, 5
# A machine stays away for longer than any lease of either side.
AWAY_S = {"dolmen": 6, "patroni": 26}
# How often the leader of control is killed in one try.
KILLS = 50


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


def lease_thread_hung(side, network, primary, replica):
    return _away(side, hang.threads([(pid, "lease") for pid in side.manager(primary)]))


def main_thread_hung(side, network, primary, replica):
    return _away(side, hang.threads([(pid, None) for pid in side.manager(primary)]))


def control_leader_killed(side, network, primary, replica):
    """Over and over, while others write as fast as they can."""
    with Load(side.clients([])):
        for _ in range(KILLS):
            leader = side.control_leader()
            send(leader, signal.SIGKILL)
            side.until_control(leader)


def control_majority_stopped(side, network, primary, replica):
    """Those of two machines; killed, their agents would start them again."""
    pids = side.control([name for name in side.machines if name != primary])
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


PRIMARY, REPLICA = 0, 1
BOTH, OURS = ("dolmen", "patroni"), ("dolmen",)

# `struck`: whose machine suffers, so that clients are elsewhere. `goals`: in seconds, of the outage, and with a lease of
# 2 s where that is another one. `halts`: nothing can be written until it is mended, and the goals are for how long after
# the fault writes stop, and how long after the mend they return. `sides`: who has such a part. `tries`: of a fault that is many in one.
Fault = collections.namedtuple("Fault", "what strike struck goals halts sides tries", defaults=(False, BOTH, None))

ALL = {
    "machine-killed": Fault("primary's machine killed", machine_killed, PRIMARY, (3.5, 2.5)),
    "machine-frozen": Fault("primary's machine frozen", machine_frozen, PRIMARY, (3.5, 2.5)),
    "machine-cut-off": Fault("primary's machine cut off", machine_cut_off, PRIMARY, (3.5, 2.5)),
    "postgres-killed": Fault("postgres killed", postgres_killed, None, (0.4,)),
    "manager-killed": Fault("manager killed", manager_killed, None, (3.5,)),
    "manager-stopped": Fault("manager stopped", manager_stopped, None, (3.5,)),
    "lease-thread-hung": Fault("the manager's renewals hang", lease_thread_hung, None, (3.5,), False, OURS),
    "main-thread-hung": Fault("all else of the manager hangs", main_thread_hung, None, (3.5,), False, OURS),
    "switchover": Fault("switchover", switchover, None, (0.35,)),
    "replica-killed": Fault("replica's machine killed", replica_killed, REPLICA, (1.0,)),
    "replica-frozen": Fault("replica's machine frozen", replica_frozen, REPLICA, (2.5,)),
    "replica-cut-off": Fault("replica cut off", replica_cut_off, REPLICA, (2.5,)),
    "control-leader-killed": Fault(
        f"control's leader killed {KILLS} times under load", control_leader_killed, None, (1.0,), False, OURS, 1),
    "control-majority-stopped": Fault(
        "control's majority stopped", control_majority_stopped, None, (3.0, 4.0), True, OURS),
}


def once(side, network, name, writer_class, rest_s):
    """One fault under a writer: the figures."""
    fault = ALL[name]
    side.until_whole()
    time.sleep(rest_s)
    primary, replica = side.roles()
    takeovers = side.takeovers()
    away = [] if fault.struck is None else [(primary, replica)[fault.struck]]
    writer = writer_class(side.clients(away))
    writer.begin()
    time.sleep(1)
    began = time.monotonic()
    mend = fault.strike(side, network, primary, replica)
    if mend:
        time.sleep(max(0.0, began + mend.after - time.monotonic()))
        mend()
    mended = time.monotonic()
    rejoin = _until_rejoined(side, writer, fault, (primary, replica), mended)
    until = time.monotonic()
    time.sleep(0.3)
    writer.end()
    figures = {"outage_s": round(writer.outage(began, until), 3), "rejoin_s": rejoin and round(rejoin, 2),
               "lost": writer.lost(), "acknowledged": len(writer.acknowledged), "errors": len(writer.errors),
               "moved": not side.primary_is(primary)}
    if takeovers is not None:
        figures["takeovers"] = side.takeovers() - takeovers
    if fault.halts:
        figures["stops_s"] = round(writer.last_before(mended) - began, 3)
        figures["returns_s"] = round(writer.first_after(mended) - mended, 3)
    return figures


def _until_rejoined(side, writer, fault, roles, mended):
    """How long it takes until the struck server streams; none, when it is the primary again without having left."""
    primary, replica = roles
    who = replica if fault.struck == REPLICA else primary
    while time.monotonic() < mended + REJOIN_S:
        # A replica may be back before anything is written; an old primary is not, before there is a new one.
        if (fault.struck == REPLICA or writer.written_after(mended)) and side.rejoined(who):
            return time.monotonic() - mended
        if fault.struck is None and writer.written_after(mended + STAYS_S) and side.primary_is(primary):
            return None
        time.sleep(0.05)
    return None
