//! The faults, one line each. The bounds on time are what the study of faults expects of a machine of its own, with the
//! wait of the steps in them where nothing can be written meanwhile; `bench/run failover` judges the goals.

use super::scenario::Expect::{Goes, Halts, Moves, Stays};
use super::scenario::Step::{
    Bulk, Burn, BusyBackend, Continue, Cut, CutOff, CutPort, CutReplication, Deafen, Delay, Fill, Heal, Hold,
    Kill, LargeDisk, Lose, MakeRoom, Mix, Mute, PromoteByHand, SmallDisk, Start, Stop, Switchover,
    SwitchoverBegun, SwitchoverTo, UntilWhole, UntilWritten, Upgrade,
};
use super::scenario::What::{
    Agent, Backend, Control, Gate, Guard, Machine, Manager, ManagerAndGuard, Postgres, Postmaster,
};
use super::scenario::Who::{Leader, Other, Primary, Replica};
use super::scenario::{Line, line};

const CONTROL: u16 = 7401;

/// The most telling ones.
pub const SHORT: &[Line] = &[
    line("F2", "postgres killed", &[Kill(Primary, Postgres)], Moves(1.0)),
    line("F30", "switchover", &[Switchover], Moves(1.0)),
    line("F1", "primary's machine killed", &[Kill(Primary, Machine), Hold(5.0), Start(Primary)], Moves(4.0)),
    line("F9", "primary cut off", &[CutOff(Primary), Hold(6.0), Heal], Moves(4.0)),
    line(
        "F6",
        "primary's machine frozen",
        &[Stop(Primary, Machine), Hold(6.0), Continue(Primary)],
        Moves(4.0),
    ),
    line("F12", "replica's machine killed", &[Kill(Replica, Machine), Hold(3.0), Start(Replica)], Stays(1.0)),
];

pub const SHORT_OF_TWO: &[Line] = &[
    line("F5", "manager stopped", &[Stop(Primary, Manager), Hold(6.0), Continue(Primary)], Moves(4.0)),
    line("F1", "primary's machine killed", &[Kill(Primary, Machine), Hold(5.0), Start(Primary)], Moves(4.0)),
    line("F12", "the voter cut off", &[CutOff(Other), Hold(5.0), Heal], Stays(1.0)),
];

/// All of them. A postgres that ends within ten seconds of a failover is started again in place, which takes longer since
/// its log is replayed: so the one whose successor must take over comes first.
pub const LONG: &[Line] = &[
    line("F2", "postgres killed", &[Kill(Primary, Postgres)], Moves(1.0)),
    line("F1", "primary's machine killed", &[Kill(Primary, Machine), Hold(5.0), Start(Primary)], Moves(4.0)),
    line(
        "F3",
        "postmaster killed, a backend busy",
        &[BusyBackend, Hold(0.5), Kill(Primary, Postmaster)],
        Goes(3.0),
    ),
    line("F4", "manager killed", &[Kill(Primary, Manager)], Goes(4.0)),
    line("F5", "manager stopped", &[Stop(Primary, Manager), Hold(8.0), Continue(Primary)], Moves(4.0)),
    line(
        "F6",
        "primary's machine frozen",
        &[Stop(Primary, Machine), Hold(10.0), Continue(Primary)],
        Moves(4.0),
    ),
    // The manager misses it after 2 s.
    line("F7", "guard stopped", &[Stop(Primary, Guard), Hold(4.0)], Goes(4.0)),
    line("F7", "guard killed", &[Kill(Primary, Guard)], Goes(3.0)),
    line("F7", "manager and guard killed", &[Kill(Primary, ManagerAndGuard)], Goes(4.0)),
    line(
        "F5",
        "manager and guard stopped",
        &[Stop(Primary, ManagerAndGuard), Hold(8.0), Continue(Primary)],
        Moves(4.0),
    ),
    line("F9", "primary cut off", &[CutOff(Primary), Hold(8.0), Heal], Moves(4.0)),
    line(
        "F10",
        "primary cut from control, not from replicas",
        &[CutPort(Primary, CONTROL), Hold(8.0), Heal],
        Moves(4.0),
    ),
    line("F11", "replication cut, control up", &[CutReplication(Primary), Hold(8.0), Heal], Goes(4.0)),
    line("F12", "replica's machine killed", &[Kill(Replica, Machine), Hold(4.0), Start(Replica)], Stays(1.0)),
    line(
        "F12",
        "replica's machine frozen",
        &[Stop(Replica, Machine), Hold(6.0), Continue(Replica)],
        Stays(2.5),
    ),
    line("F12", "replica cut off", &[CutOff(Replica), Hold(6.0), Heal], Stays(2.5)),
    line(
        "F12",
        "replica killed, then the primary's machine",
        &[
            Kill(Replica, Machine),
            Hold(4.0),
            Kill(Primary, Machine),
            Hold(6.0),
            Start(Replica),
            Start(Primary),
        ],
        Goes(8.0),
    ),
    line(
        "F13",
        "replica and primary killed at once",
        &[
            Kill(Replica, Machine),
            Kill(Primary, Machine),
            Hold(8.0),
            Start(Replica),
            UntilWritten,
            Start(Primary),
        ],
        Goes(20.0),
    ),
    line(
        "F14",
        "both replicas killed",
        &[Kill(Replica, Machine), Stop(Other, Postgres), Hold(5.0), Continue(Other), Start(Replica)],
        Stays(5.0),
    ),
    line(
        "F15",
        "all killed one after another, the last primary back last",
        &[
            Stop(Replica, Postgres),
            Stop(Other, Postgres),
            Hold(6.0),
            Kill(Primary, Machine),
            Continue(Replica),
            Continue(Other),
            Hold(8.0),
            Start(Primary),
        ],
        Halts { by: 7.0, back: 6.0 },
    ),
    line(
        "F16",
        "replica killed during an election",
        &[Kill(Primary, Machine), Hold(3.2), Kill(Replica, Postgres), Hold(6.0), Start(Primary)],
        Moves(8.0),
    ),
    line(
        "F17",
        "the next primary killed as it takes over",
        &[
            Kill(Primary, Machine),
            Hold(3.4),
            Kill(Replica, Machine),
            Hold(3.0),
            Start(Replica),
            Hold(1.0),
            Start(Primary),
        ],
        Goes(12.0),
    ),
    line("F18", "control's leader killed", &[Kill(Leader, Control)], Stays(1.0)),
    line("F18", "the leader's machine killed", &[Kill(Leader, Machine), Hold(5.0), Start(Leader)], Goes(4.0)),
    line(
        "F19",
        "control's majority stopped",
        &[Stop(Replica, Control), Stop(Other, Control), Hold(10.0), Continue(Replica), Continue(Other)],
        Halts { by: 3.0, back: 4.0 },
    ),
    line("F20", "nobody hears the primary", &[Mute(Primary), Hold(8.0), Heal], Goes(4.0)),
    line("F20", "the primary hears nobody", &[Deafen(Primary), Hold(8.0), Heal], Goes(6.0)),
    line(
        "F20",
        "primary and replica do not hear each other",
        &[Cut(Primary, Replica), Hold(8.0), Heal],
        Goes(4.0),
    ),
    line("F21", "30 % of all packets lost", &[Lose(30), Hold(10.0), Heal], Goes(10.0)),
    line("F21", "all packets 20 ms late, ±10", &[Delay(20, 10), Hold(10.0), Heal], Stays(3.0)),
    // So far apart no lease of 3 s can be renewed: nothing is lost, and all is well when they are near again.
    line("F21", "all packets 200 ms late, ±100", &[Delay(200, 100), Hold(12.0), Heal], Goes(20.0)),
    line(
        "F23",
        "the primary's disk full",
        &[
            Kill(Replica, Machine),
            SmallDisk(Replica, Manager),
            Start(Replica),
            UntilWhole,
            Hold(3.0),
            SwitchoverTo(Replica),
            UntilWhole,
            Hold(11.0),
            Fill,
            Bulk,
            Hold(10.0),
            MakeRoom,
            UntilWhole,
            Kill(Replica, Machine),
            LargeDisk,
            Start(Replica),
        ],
        Goes(10.0),
    ),
    line(
        "F23",
        "a replica's disk full",
        &[
            Kill(Replica, Machine),
            SmallDisk(Replica, Manager),
            Start(Replica),
            UntilWhole,
            Fill,
            Bulk,
            Hold(10.0),
            MakeRoom,
            UntilWhole,
            Kill(Replica, Machine),
            LargeDisk,
            Start(Replica),
        ],
        Stays(3.0),
    ),
    line(
        "F23",
        "a control server's disk full",
        &[
            Kill(Leader, Machine),
            SmallDisk(Leader, Control),
            Start(Leader),
            UntilWhole,
            Fill,
            Hold(10.0),
            MakeRoom,
            UntilWhole,
            Kill(Leader, Machine),
            LargeDisk,
            Start(Leader),
        ],
        Goes(4.0),
    ),
    line("F24", "postgres hangs", &[Stop(Primary, Postgres), Hold(14.0), Continue(Primary)], Moves(9.0)),
    // Where others use them as well a lease may run out; nothing is lost by it.
    line("F26", "all processors busy", &[Burn(8, 20.0)], Goes(5.0)),
    line("F26", "one backend killed, as for want of memory", &[Kill(Primary, Backend)], Goes(3.0)),
    line(
        "F28",
        "killed again while it comes back",
        &[
            Kill(Primary, Machine),
            Hold(5.0),
            Start(Primary),
            Hold(1.2),
            Kill(Primary, Machine),
            Start(Primary),
        ],
        Moves(4.0),
    ),
    line("F30", "switchover", &[Switchover], Moves(1.0)),
    line("F30", "switchover, a backend busy", &[BusyBackend, Hold(0.5), Switchover], Moves(2.5)),
    line(
        "F31",
        "primary's machine killed during a switchover",
        &[SwitchoverBegun, Hold(0.25), Kill(Primary, Machine), Hold(5.0), Start(Primary)],
        Goes(4.0),
    ),
    line(
        "F31",
        "replica's machine killed during a switchover",
        &[SwitchoverBegun, Hold(0.25), Kill(Replica, Machine), Hold(5.0), Start(Replica)],
        Goes(4.0),
    ),
    line(
        "F32",
        "all managers and guards become the new binary",
        &[Upgrade(Primary), Upgrade(Replica), Hold(4.0)],
        Stays(0.5),
    ),
    line("F34", "a replica promoted by hand", &[PromoteByHand(Replica), Hold(3.0)], Stays(0.5)),
    line("-", "the primary's agent killed", &[Kill(Primary, Agent), Hold(1.0), Start(Primary)], Stays(0.5)),
    line("-", "the primary's gate killed", &[Kill(Primary, Gate)], Stays(0.5)),
    line("F35", "a mix by chance", &[Mix(12)], Goes(60.0)),
];

pub const LONG_OF_TWO: &[Line] = &[
    line("F1", "primary's machine killed", &[Kill(Primary, Machine), Hold(5.0), Start(Primary)], Moves(4.0)),
    line(
        "F6",
        "primary's machine frozen",
        &[Stop(Primary, Machine), Hold(10.0), Continue(Primary)],
        Moves(4.0),
    ),
    line("F9", "primary cut off", &[CutOff(Primary), Hold(8.0), Heal], Moves(4.0)),
    line("F12", "replica's machine killed", &[Kill(Replica, Machine), Hold(4.0), Start(Replica)], Stays(1.0)),
    line("F12", "the voter cut off", &[CutOff(Other), Hold(5.0), Heal], Stays(1.0)),
    line(
        "F13",
        "replica and primary killed at once",
        &[
            Kill(Replica, Machine),
            Kill(Primary, Machine),
            Hold(6.0),
            Start(Replica),
            UntilWritten,
            Start(Primary),
        ],
        Goes(20.0),
    ),
    line(
        "F15",
        "replica killed, later the primary; the replica back first",
        &[
            Kill(Replica, Machine),
            Hold(5.0),
            Kill(Primary, Machine),
            Start(Replica),
            Hold(8.0),
            Start(Primary),
        ],
        Halts { by: 6.0, back: 6.0 },
    ),
    line("F2", "postgres killed", &[Kill(Primary, Postgres)], Moves(1.0)),
    line("F30", "switchover", &[Switchover], Moves(1.0)),
    line(
        "F20",
        "primary and replica do not hear each other",
        &[Cut(Primary, Replica), Hold(8.0), Heal],
        Goes(4.0),
    ),
];
