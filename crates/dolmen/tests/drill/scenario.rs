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
    /// The second does not hear the first.
    CutOneWay(Who, Who),
    /// The port of one service, between the machine and all others.
    CutPort(Who, u16),
    /// So many packets of a hundred, between all machines.
    Lose(u32),
    Heal,
    /// `dolmen switchover`, to its end.
    Switchover,
    /// The same, and the next step comes at once.
    SwitchoverBegun,
    /// A client that commits over and over in one statement, through the gate of the last machine.
    BusyBackend,
    /// As `pg_ctl promote` does it.
    PromoteByHand(Who),
    /// Managers and guards become the binary on disk.
    Upgrade(Who),
    /// Seconds.
    Hold(f32),
    /// Until a write is acknowledged that was sent after this moment.
    UntilWritten,
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

pub const fn line(fault: &'static str, what: &'static str, steps: &'static [Step], expect: Expect) -> Line {
    Line { fault, what, steps, expect }
}

impl Step {
    /// The machine whose own clients suffer, whatever the database does.
    pub fn strikes(self) -> Option<Who> {
        match self {
            Step::Kill(who, What::Machine | What::Gate) | Step::Stop(who, What::Machine | What::Gate) => {
                Some(who)
            }
            Step::CutOff(who) | Step::CutOneWay(who, _) | Step::CutPort(who, _) => Some(who),
            Step::Cut(who, _) => Some(who),
            _ => None,
        }
    }
}
