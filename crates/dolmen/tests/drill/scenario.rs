//! The words in which a fault is told: who, which part of it, what happens, what must come of it.

/// A machine, by what it is when the line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Primary,
    /// The first that is not.
    Replica,
    /// The last one: another replica, or the machine that only votes.
    Other,
    /// Where control's leader is.
    Leader,
}

/// What of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Machine,
    Agent,
    Control,
    Gate,
    Manager,
    Guard,
    ManagerAndGuard,
    /// Every process of postgres, not its guard.
    Postgres,
    Postmaster,
    /// The process of one client alone.
    Backend,
}

#[derive(Clone, Copy, Debug)]
pub enum Step {
    Kill(Who, What),
    Stop(Who, What),
    Continue(Who),
    /// The machine is switched on again.
    Start(Who),
    /// Nobody hears it, and it hears nobody.
    CutOff(Who),
    /// The two do not hear each other.
    Cut(Who, Who),
    /// Nobody hears it.
    Mute(Who),
    /// It hears nobody.
    Deafen(Who),
    /// The port of one service, between the machine and all others.
    CutPort(Who, u16),
    /// No replica asks the machine for its log; clients reach it.
    CutReplication(Who),
    /// So many packets of a hundred, between all machines.
    Lose(u32),
    /// So many milliseconds, give or take some, on the way between all machines.
    Delay(u32, u32),
    Heal,
    /// What the server keeps is on a disk of its own that has little room. The machine is off meanwhile, as for the next.
    SmallDisk(Who, What),
    /// It is back on the large one.
    LargeDisk,
    /// Nothing more fits on the small one.
    Fill,
    MakeRoom,
    /// `dolmen switchover`, to its end.
    Switchover,
    SwitchoverTo(Who),
    /// The same, and the next step comes at once.
    SwitchoverBegun,
    /// A client that commits over and over in one statement, through the gate of the last machine.
    BusyBackend,
    /// A client that writes some dozens of megabytes, if it can, through the gate of the last machine.
    Bulk,
    /// So many threads that do nothing but use the processors, for so many seconds.
    Burn(usize, f32),
    /// As `pg_ctl promote` does it.
    PromoteByHand(Who),
    /// Managers and guards become the binary on disk.
    Upgrade(Who),
    /// Seconds.
    Hold(f32),
    /// Until a write is acknowledged that was sent after this moment.
    UntilWritten,
    /// Until all is as it should be.
    UntilWhole,
    /// So many faults by chance, up to two at once, each undone again.
    Mix(u32),
}

/// What must come of it, within seconds, for writers on machines that were not struck.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// Another server is the primary.
    Moves(f32),
    /// The same one still is.
    Stays(f32),
    /// It may be either.
    Goes(f32),
    /// Nothing is acknowledged from `by` seconds after the first step until the last step, and again within `back` of that.
    Halts { by: f32, back: f32 },
}

/// One line of the drill.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Its number in the study of faults.
    pub fault: &'static str,
    pub what: &'static str,
    pub steps: &'static [Step],
    pub expect: Expect,
}

impl Line {
    /// Whether it is among those named: each by its number or by some of its words, parted by commas.
    pub fn is_named(&self, names: &str) -> bool {
        names.split(',').any(|name| self.fault == name || self.what.contains(name))
    }
}

pub const fn line(fault: &'static str, what: &'static str, steps: &'static [Step], expect: Expect) -> Line {
    Line { fault, what, steps, expect }
}

impl Step {
    /// The machines whose own clients suffer, whatever the database does.
    pub fn strikes(self) -> Vec<Who> {
        match self {
            Step::Kill(who, What::Machine | What::Gate) | Step::Stop(who, What::Machine | What::Gate) => {
                vec![who]
            }
            Step::CutOff(who) | Step::Mute(who) | Step::Deafen(who) | Step::CutPort(who, _) => vec![who],
            Step::Cut(one, two) => vec![one, two],
            _ => Vec::new(),
        }
    }
}
