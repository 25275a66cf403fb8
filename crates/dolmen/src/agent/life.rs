//! The life of one server, decided.
//!
//! A pure state machine: events and the time go in, actions come out, and [`Life::state`] gives the sentence
//! that says why. It never starts or ends anything itself; `agent.rs` carries the actions out and says what
//! came of them. Times are milliseconds on the agent's own clock, which never goes back.

use link::report::{DatabaseReport, Report, State};

/// How long connections may wait in the backlog while a server starts again; then they are refused, so that
/// the tier before it tries another server.
pub const PATIENCE_MS: u64 = 250;

/// A server that ran this long and then ended is started again at once.
const STABLE_MS: u64 = 10_000;

/// The wait before the second try in a row, doubled for each further one.
const BACK_OFF_MS: u64 = 250;
const BACK_OFF_LIMIT_MS: u64 = 15_000;

/// How long a process may take to say hello; one that does not is hung and gets killed.
const HELLO_MS: u64 = 20_000;

/// How long a server that was asked to stop may take beyond the time it was given.
pub const STOP_GRACE_MS: u64 = 1_000;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Nothing happened but time.
    Time,
    Spawned {
        pid: u32,
    },
    /// A server that outlived an earlier agent is in our hands, or will be once it says hello.
    Found {
        pid: u32,
    },
    SpawnFailed {
        because: String,
    },
    Hello,
    Report(Report),
    /// Another process serves in the place of the one that did, on the same sockets; this is what it said last.
    Succeeded {
        pid: u32,
        report: Report,
    },
    /// The process is gone; the sentence says how: `exited with status 1`.
    Ended {
        how: String,
    },
    Kill,
    Start,
    Stop {
        within_ms: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Spawn,
    /// SIGKILL.
    Kill,
    AskToStop {
        within_ms: u64,
    },
    /// Makes the held sockets refuse connections.
    Refuse,
    /// Makes the held sockets take connections, and tells the process so.
    Accept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Running,
    Killed,
    Stopped,
}

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// No process, and none is due.
    Absent,
    /// No process, and the next is due at this time.
    Waiting {
        until_ms: u64,
        because: String,
    },
    Running {
        pid: u32,
        since_ms: u64,
        hello: bool,
        /// Whether this process was told to take connections.
        admitted: bool,
        report: Option<Report>,
    },
    Ending {
        pid: u32,
        kill_at_ms: Option<u64>,
    },
}

/// What the agent knows and wants of one server.
#[derive(Clone, Debug)]
pub struct Life {
    wanted: Wanted,
    phase: Phase,
    /// Ends in a row, each soon after its start.
    failures: u32,
    accepting: bool,
    patience_ms: u64,
    refuse_at_ms: Option<u64>,
}

impl Life {
    /// A server that is to run, or that a `kill` keeps down.
    pub fn new(now_ms: u64, killed: bool) -> Self {
        let waiting = Phase::Waiting { until_ms: now_ms, because: "not started yet".into() };
        Self {
            wanted: if killed { Wanted::Killed } else { Wanted::Running },
            phase: if killed { Phase::Absent } else { waiting },
            failures: 0,
            accepting: false,
            patience_ms: PATIENCE_MS,
            refuse_at_ms: None,
        }
    }

    /// One that is never ready again so soon: connections do not wait for it in vain. What waited and is refused in the
    /// end cannot be tried elsewhere if it changes something.
    pub fn slow_to_start(self) -> Self {
        Self { patience_ms: 0, ..self }
    }

    pub fn pid(&self) -> Option<u32> {
        match self.phase {
            Phase::Running { pid, .. } | Phase::Ending { pid, .. } => Some(pid),
            Phase::Absent | Phase::Waiting { .. } => None,
        }
    }

    /// What the process that takes connections last said; nothing while none does.
    pub fn serving(&self) -> Option<&Report> {
        match &self.phase {
            Phase::Running { admitted: true, report, .. } => report.as_ref(),
            Phase::Running { .. } | Phase::Absent | Phase::Waiting { .. } | Phase::Ending { .. } => None,
        }
    }

    /// Whether its process is on its way out.
    pub fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. })
    }

    /// Whether it has ended for good, until somebody starts it.
    pub fn over(&self) -> bool {
        self.wanted != Wanted::Running && self.phase == Phase::Absent
    }

    /// When [`Event::Time`] would change something.
    pub fn due_ms(&self) -> Option<u64> {
        let phase = match &self.phase {
            Phase::Waiting { until_ms, .. } => Some(*until_ms),
            Phase::Ending { kill_at_ms, .. } => *kill_at_ms,
            Phase::Running { since_ms, hello: false, .. } => Some(since_ms + HELLO_MS),
            Phase::Absent | Phase::Running { .. } => None,
        };
        phase.into_iter().chain(self.refuse_at_ms).min()
    }

    /// Takes one event, and says what to do about it.
    pub fn step(&mut self, now_ms: u64, event: Event) -> Vec<Action> {
        match event {
            Event::Time => self.time(now_ms),
            Event::Spawned { pid } => self.spawned(now_ms, pid),
            Event::Found { pid } => self.found(now_ms, pid),
            Event::SpawnFailed { because } => self.back_off(now_ms, because),
            Event::Hello => self.hello(),
            Event::Report(report) => self.reported(report),
            Event::Succeeded { pid, report } => self.succeeded(now_ms, pid, report),
            Event::Ended { how } => self.ended(now_ms, &how),
            Event::Kill => self.kill(),
            Event::Start => self.start(now_ms),
            Event::Stop { within_ms } => self.stop(now_ms, within_ms),
        }
    }

    fn time(&mut self, now_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.refuse_at_ms.is_some_and(|at| at <= now_ms) {
            actions.push(self.refuse());
        }
        match &mut self.phase {
            Phase::Waiting { until_ms, .. } if *until_ms <= now_ms => actions.push(Action::Spawn),
            Phase::Ending { kill_at_ms, .. } if kill_at_ms.is_some_and(|at| at <= now_ms) => {
                *kill_at_ms = None;
                actions.push(Action::Kill);
            }
            Phase::Running { since_ms, hello: false, .. } if *since_ms + HELLO_MS <= now_ms => {
                *since_ms = now_ms;
                actions.push(Action::Kill);
            }
            Phase::Absent | Phase::Waiting { .. } | Phase::Running { .. } | Phase::Ending { .. } => {}
        }
        actions
    }

    fn spawned(&mut self, now_ms: u64, pid: u32) -> Vec<Action> {
        self.phase = Phase::Running { pid, since_ms: now_ms, hello: false, admitted: false, report: None };
        // An order may have come while the process was being made.
        if self.wanted == Wanted::Running { Vec::new() } else { self.kill_process() }
    }

    /// It was serving before this agent, and says how it is as soon as it has found us.
    fn found(&mut self, now_ms: u64, pid: u32) -> Vec<Action> {
        let actions = self.spawned(now_ms, pid);
        if let Phase::Running { report, .. } = &mut self.phase {
            let because = format!("process {pid} was started by an earlier agent");
            *report =
                Some(Report { state: State::Starting, because, database: None, takes_connections: false });
        }
        actions
    }

    fn hello(&mut self) -> Vec<Action> {
        if let Phase::Running { hello, .. } = &mut self.phase {
            *hello = true;
        }
        Vec::new()
    }

    /// A process that says anything but `starting` for the first time takes connections from then on; a gate does
    /// so earlier, and says so.
    fn reported(&mut self, new: Report) -> Vec<Action> {
        let Phase::Running { report, admitted, .. } = &mut self.phase else {
            // It has taken what waited in the backlog, and takes no more.
            return if new.state == State::Draining && self.accepting {
                vec![self.refuse()]
            } else {
                Vec::new()
            };
        };
        let serving = new.takes_connections || matches!(new.state, State::Healthy | State::Unhealthy);
        *report = Some(new);
        if !serving || *admitted {
            return Vec::new();
        }
        *admitted = true;
        self.accepting = true;
        self.refuse_at_ms = None;
        vec![Action::Accept]
    }

    /// The new process begins with a clean slate; the sockets take connections all the time.
    fn succeeded(&mut self, now_ms: u64, pid: u32, report: Report) -> Vec<Action> {
        self.failures = 0;
        self.accepting = true;
        self.refuse_at_ms = None;
        self.phase =
            Phase::Running { pid, since_ms: now_ms, hello: true, admitted: true, report: Some(report) };
        vec![Action::Accept]
    }

    fn ended(&mut self, now_ms: u64, how: &str) -> Vec<Action> {
        if self.wanted != Wanted::Running {
            self.phase = Phase::Absent;
            return vec![self.refuse()];
        }
        if let Phase::Ending { .. } = self.phase {
            self.phase = Phase::Waiting { until_ms: now_ms, because: "asked to start".into() };
            return vec![Action::Spawn];
        }
        let Phase::Running { since_ms, .. } = self.phase else { return Vec::new() };
        if now_ms.saturating_sub(since_ms) >= STABLE_MS {
            self.failures = 0;
        }
        if self.failures > 0 {
            return self.back_off(now_ms, how.to_owned());
        }
        self.failures = 1;
        self.phase = Phase::Waiting { until_ms: now_ms, because: format!("it {how}") };
        if self.patience_ms == 0 {
            return vec![self.refuse(), Action::Spawn];
        }
        self.refuse_at_ms = Some(now_ms + self.patience_ms);
        vec![Action::Spawn]
    }

    fn back_off(&mut self, now_ms: u64, how: String) -> Vec<Action> {
        let doubled = BACK_OFF_MS.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let until_ms = now_ms + doubled.min(BACK_OFF_LIMIT_MS);
        self.phase = Phase::Waiting { until_ms, because: how };
        vec![self.refuse()]
    }

    fn kill(&mut self) -> Vec<Action> {
        self.wanted = Wanted::Killed;
        self.kill_process()
    }

    fn kill_process(&mut self) -> Vec<Action> {
        match self.phase {
            Phase::Running { pid, .. } | Phase::Ending { pid, .. } => {
                self.phase = Phase::Ending { pid, kill_at_ms: None };
                vec![self.refuse(), Action::Kill]
            }
            Phase::Absent | Phase::Waiting { .. } => {
                self.phase = Phase::Absent;
                vec![self.refuse()]
            }
        }
    }

    fn start(&mut self, now_ms: u64) -> Vec<Action> {
        self.wanted = Wanted::Running;
        self.failures = 0;
        match self.phase {
            Phase::Absent | Phase::Waiting { .. } => {
                self.phase = Phase::Waiting { until_ms: now_ms, because: "asked to start".into() };
                vec![Action::Spawn]
            }
            Phase::Running { .. } => Vec::new(),
            // It is on its way out, and keeps its deadline: `ended` finds it wanted and starts the next.
            Phase::Ending { .. } => Vec::new(),
        }
    }

    fn stop(&mut self, now_ms: u64, within_ms: u64) -> Vec<Action> {
        self.wanted = Wanted::Stopped;
        match self.phase {
            Phase::Running { pid, hello, .. } => {
                let kill_at_ms = now_ms + if hello { within_ms + STOP_GRACE_MS } else { 0 };
                self.phase = Phase::Ending { pid, kill_at_ms: Some(kill_at_ms) };
                if hello { vec![Action::AskToStop { within_ms }] } else { self.kill_process() }
            }
            Phase::Ending { .. } => Vec::new(),
            Phase::Absent | Phase::Waiting { .. } => {
                self.phase = Phase::Absent;
                vec![self.refuse()]
            }
        }
    }

    fn refuse(&mut self) -> Action {
        self.accepting = false;
        self.refuse_at_ms = None;
        Action::Refuse
    }

    /// How the server is, and the sentence that says why.
    pub fn state(&self, now_ms: u64) -> Report {
        let plain =
            |state, because: String| Report { state, because, database: None, takes_connections: false };
        match &self.phase {
            Phase::Absent => plain(State::Down, self.why_absent().into()),
            Phase::Waiting { because, .. } if self.failures == 0 => plain(State::Starting, because.clone()),
            Phase::Waiting { until_ms, because } => {
                let seconds = until_ms.saturating_sub(now_ms).div_ceil(1000);
                plain(State::Down, format!("{because}; next try in {seconds} s"))
            }
            Phase::Running { report: Some(report), .. } => report.clone(),
            Phase::Running { pid, .. } => plain(State::Starting, format!("process {pid} was started")),
            Phase::Ending { .. } if self.wanted == Wanted::Killed => {
                plain(State::Down, "being killed".into())
            }
            Phase::Ending { .. } => plain(State::Draining, "finishing its work before it ends".into()),
        }
    }

    fn why_absent(&self) -> &'static str {
        match self.wanted {
            Wanted::Killed => "killed by `dolmen kill`; `dolmen start` brings it back",
            Wanted::Stopped => "stopped",
            Wanted::Running => "not started yet",
        }
    }

    /// What a database server last said of the cluster, while its process lives.
    pub fn database(&self) -> Option<DatabaseReport> {
        match &self.phase {
            Phase::Running { report: Some(report), .. } => report.database.clone(),
            Phase::Running { .. } | Phase::Absent | Phase::Waiting { .. } | Phase::Ending { .. } => None,
        }
    }
}

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
