//! The life of one worker, as a table: what happened, what to do about it, and the sentence that says why.
//!
//! Pure: it starts no process, sends no signal and reads no clock. [`crate::worker`] tells it what it saw and
//! carries out what it answers.
//!
//! ```text
//!            spawn                well                 stop, or ill for long
//!   New ───────────▶ Starting ───────────▶ Ready ◀───▶ Ailing ──────────▶ Draining
//!                     │  ▲ │ too slow        │ exit      │ exit             │ no request left
//!               exit  │  │ └──────────────┐  │           │                  ▼
//!                     ▼  │ next try       │  │           │               Ending (SIGTERM)
//!                   Waiting ◀──────────── │ ─┴───────────┘                  │ too slow
//!                     ▲                   ▼                                 ▼
//!                     └────── exit ──── Ending ──────────▶ Gone ◀──────── Killed (SIGKILL)
//! ```

use std::time::{Duration, Instant};

/// The wait before the next try after the first failure; it doubles with each one that follows.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A worker that was ready this long has left its failures behind.
const STABLE: Duration = Duration::from_secs(30);
/// An end within this time of the start is "at once".
const AT_ONCE: Duration = Duration::from_secs(2);
/// Bad health checks in a row until a ready worker is taken out, and until it is replaced.
const FALL: u32 = 3;
const REPLACE: u32 = 10;
/// Other ports tried in a row when a worker finds its own taken.
const PORT_TRIES: u32 = 5;
/// What is left of the time to end for SIGTERM, when requests take all of it: a fourth, but not more than this.
const TERM_TIME: Duration = Duration::from_secs(2);

/// Between health checks, by phase.
const CHECK_STARTING: Duration = Duration::from_millis(50);
const CHECK_READY: Duration = Duration::from_secs(2);
const CHECK_AILING: Duration = Duration::from_secs(1);

/// What the plan says of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) start: Duration,
    pub(crate) stop: Duration,
}

/// What was seen.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Begin,
    /// The process could not be made; the sentence says why.
    CannotStart(String),
    /// A health check was answered well.
    Well,
    /// It was not; the text says how.
    Ill(String),
    Exited(Exit),
    /// No request is under way.
    Idle,
    /// The time of [`Life::wake`] has come.
    Tick,
    /// The server is to end within this time, or the worker is to.
    Stop(Duration),
    /// Another worker has its place: it may finish all that it has, within this time.
    Retire(Duration),
}

/// How a process ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// The last line that it wrote.
    pub(crate) last_line: Option<String>,
    /// It said that its port is in use.
    pub(crate) port_taken: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Start a process, on a new port.
    Spawn,
    /// Put it on the board.
    Publish,
    /// Take it off the board.
    Withdraw,
    /// SIGTERM.
    Terminate,
    /// SIGKILL, to its whole group.
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Again,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Starting {
        since: Instant,
    },
    Ready {
        since: Instant,
        misses: u32,
    },
    /// Alive, off the board.
    Ailing {
        misses: u32,
    },
    Waiting {
        until: Instant,
    },
    Draining {
        until: Instant,
        kill_at: Instant,
        then: Then,
    },
    Ending {
        kill_at: Instant,
        then: Then,
    },
    Killed {
        then: Then,
    },
    Gone,
}

/// How a worker stands, for the server's own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Starting,
    Ready,
    /// What is wrong, as the end of a sentence that begins with the worker.
    Trouble(String),
    Gone,
}

/// One answer: what to do, and the sentence for the log when there is something to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) acts: Vec<Act>,
    pub(crate) because: Option<String>,
}

impl Step {
    fn of(acts: &[Act], because: impl Into<String>) -> Self {
        Self { acts: acts.to_vec(), because: Some(because.into()) }
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Life {
    times: Times,
    phase: Phase,
    /// When the process began.
    born: Instant,
    /// Failures since it was last stable.
    failures: u32,
    ports_tried: u32,
    /// What the last health check said.
    ill: String,
    /// What went wrong last, until it is ready again.
    trouble: Option<String>,
}

impl Life {
    pub(crate) fn new(times: Times, now: Instant) -> Self {
        let (phase, ill) = (Phase::New, "no answer yet".into());
        Self { times, phase, born: now, failures: 0, ports_tried: 0, ill, trouble: None }
    }

    /// One step of the table.
    pub(crate) fn step(&mut self, event: Event, now: Instant) -> Step {
        match (event, self.phase) {
            (_, Phase::Gone) => Step::default(),
            (Event::Stop(within), _) => self.stop(within.min(self.times.stop), now),
            (Event::Retire(within), _) => self.stop(within, now),
            (Event::Exited(exit), phase) => self.exited(&exit, phase, now),
            (Event::CannotStart(why), _) => self.failed(format!("cannot be started: {why}"), now),
            (Event::Begin, Phase::New) => self.spawn(now),
            (Event::Tick, _) => self.tick(now),
            (Event::Well, phase) => self.well(phase, now),
            (Event::Ill(why), phase) => self.is_ill(why, phase, now),
            (Event::Idle, Phase::Draining { kill_at, then, .. }) => {
                self.terminate(kill_at, then, "has no request left and was asked to end")
            }
            (Event::Begin | Event::Idle, _) => Step::default(),
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Whether it waits for requests to be finished.
    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. })
    }

    /// When it wants a [`Event::Tick`].
    pub(crate) fn wake(&self) -> Option<Instant> {
        match self.phase {
            Phase::Starting { since } => Some(since + self.times.start),
            Phase::Waiting { until } | Phase::Draining { until, .. } => Some(until),
            Phase::Ending { kill_at, .. } => Some(kill_at),
            Phase::New | Phase::Ready { .. } | Phase::Ailing { .. } | Phase::Killed { .. } | Phase::Gone => {
                None
            }
        }
    }

    /// The time between two health checks, while there is something to check.
    pub(crate) fn check_interval(&self) -> Option<Duration> {
        match self.phase {
            Phase::Starting { .. } => Some(CHECK_STARTING),
            Phase::Ready { .. } => Some(CHECK_READY),
            Phase::Ailing { .. } => Some(CHECK_AILING),
            _ => None,
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        match (self.phase, &self.trouble) {
            (Phase::Gone, _) => Standing::Gone,
            (Phase::Ready { .. }, _) => Standing::Ready,
            (_, Some(trouble)) => Standing::Trouble(trouble.clone()),
            (_, None) => Standing::Starting,
        }
    }

    fn spawn(&mut self, now: Instant) -> Step {
        self.born = now;
        self.ill = "no answer yet".into();
        self.phase = Phase::Starting { since: now };
        Step { acts: vec![Act::Spawn], because: None }
    }

    fn well(&mut self, phase: Phase, now: Instant) -> Step {
        match phase {
            Phase::Starting { since } => {
                self.phase = Phase::Ready { since: now, misses: 0 };
                (self.trouble, self.ports_tried) = (None, 0);
                Step::of(&[Act::Publish], format!("is ready after {}", text(now - since)))
            }
            Phase::Ailing { .. } => {
                self.phase = Phase::Ready { since: now, misses: 0 };
                self.trouble = None;
                Step::of(&[Act::Publish], "is well again")
            }
            Phase::Ready { since, .. } => {
                self.phase = Phase::Ready { since, misses: 0 };
                if now - since >= STABLE {
                    self.failures = 0;
                }
                Step::default()
            }
            _ => Step::default(),
        }
    }

    fn is_ill(&mut self, why: String, phase: Phase, now: Instant) -> Step {
        self.ill = why;
        match phase {
            Phase::Ready { misses, .. } if misses + 1 >= FALL => {
                self.phase = Phase::Ailing { misses: misses + 1 };
                let why = format!("failed {} health checks in a row ({})", misses + 1, self.ill);
                self.trouble = Some(why.clone());
                Step::of(&[Act::Withdraw], why)
            }
            Phase::Ready { since, misses } => {
                self.phase = Phase::Ready { since, misses: misses + 1 };
                Step::default()
            }
            Phase::Ailing { misses } if misses + 1 >= REPLACE => {
                let why = format!("failed {} health checks in a row ({})", misses + 1, self.ill);
                self.trouble = Some(why.clone());
                self.drain(self.times.stop, Then::Again, now);
                Step::of(&[], format!("{why} and is replaced"))
            }
            Phase::Ailing { misses } => {
                self.phase = Phase::Ailing { misses: misses + 1 };
                Step::default()
            }
            _ => Step::default(),
        }
    }

    fn tick(&mut self, now: Instant) -> Step {
        if self.wake().is_none_or(|wake| now < wake) {
            return Step::default();
        }
        match self.phase {
            Phase::Starting { since } => {
                let why = format!("was not healthy within {} ({})", text(now - since), self.ill);
                self.trouble = Some(why.clone());
                self.terminate(now + self.term_time(self.times.stop), Then::Again, why)
            }
            Phase::Waiting { .. } => self.spawn(now),
            Phase::Draining { kill_at, then, .. } => {
                self.terminate(kill_at, then, "still has requests, but no more time, and was asked to end")
            }
            Phase::Ending { then, .. } => {
                self.phase = Phase::Killed { then };
                Step::of(&[Act::Kill], "did not end when asked and was killed")
            }
            Phase::New | Phase::Ready { .. } | Phase::Ailing { .. } | Phase::Killed { .. } | Phase::Gone => {
                Step::default()
            }
        }
    }

    fn stop(&mut self, within: Duration, now: Instant) -> Step {
        match self.phase {
            Phase::New | Phase::Waiting { .. } | Phase::Gone => {
                self.phase = Phase::Gone;
                Step::default()
            }
            Phase::Starting { .. } => {
                let kill_at = now + self.term_time(within);
                self.terminate(kill_at, Then::Gone, "was asked to end before it was ready")
            }
            Phase::Ready { .. } | Phase::Ailing { .. } => {
                self.drain(within, Then::Gone, now);
                Step { acts: vec![Act::Withdraw], because: None }
            }
            Phase::Draining { until, kill_at, .. } => {
                let (until, kill_at) = (until.min(now + within), kill_at.min(now + within));
                self.phase = Phase::Draining { until, kill_at, then: Then::Gone };
                Step::default()
            }
            Phase::Ending { kill_at, .. } => {
                self.phase = Phase::Ending { kill_at: kill_at.min(now + within), then: Then::Gone };
                Step::default()
            }
            Phase::Killed { .. } => {
                self.phase = Phase::Killed { then: Then::Gone };
                Step::default()
            }
        }
    }

    fn drain(&mut self, within: Duration, then: Then, now: Instant) {
        let until = now + within - self.term_time(within);
        self.phase = Phase::Draining { until, kill_at: now + within, then };
    }

    fn term_time(&self, within: Duration) -> Duration {
        (within / 4).min(TERM_TIME)
    }

    fn terminate(&mut self, kill_at: Instant, then: Then, because: impl Into<String>) -> Step {
        self.phase = Phase::Ending { kill_at, then };
        Step::of(&[Act::Terminate], because)
    }

    fn exited(&mut self, exit: &Exit, phase: Phase, now: Instant) -> Step {
        let alive = now - self.born;
        match phase {
            Phase::Draining { then: Then::Gone, .. }
            | Phase::Ending { then: Then::Gone, .. }
            | Phase::Killed { then: Then::Gone } => {
                self.phase = Phase::Gone;
                Step::of(&[Act::Withdraw], format!("ended: {}", exit.text(alive)))
            }
            // Why it was replaced says more than how it ended.
            Phase::Draining { .. } | Phase::Ending { .. } | Phase::Killed { .. } => {
                let why = self.trouble.clone().unwrap_or_else(|| exit.text(alive));
                self.failed(why, now)
            }
            Phase::Starting { .. } if exit.port_taken && self.ports_tried < PORT_TRIES => {
                self.ports_tried += 1;
                let mut step = self.spawn(now);
                step.because = Some("found its port taken and gets another".into());
                step
            }
            Phase::Ready { since, .. } if now - since >= STABLE => {
                self.failures = 0;
                self.failed(exit.text(alive), now)
            }
            _ => self.failed(exit.text(alive), now),
        }
    }

    /// Something went wrong and will be tried again, later each time.
    fn failed(&mut self, why: String, now: Instant) -> Step {
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        self.ports_tried = 0;
        self.phase = Phase::Waiting { until: now + wait };
        let because = format!("{why}, next try in {}", text(wait));
        self.trouble = Some(because.clone());
        Step::of(&[Act::Withdraw], because)
    }
}

impl Exit {
    /// `exited at once with status 1 (the last line)`.
    fn text(&self, alive: Duration) -> String {
        let at_once = if alive < AT_ONCE { " at once" } else { "" };
        let after = if alive < AT_ONCE { String::new() } else { format!(" after {}", text(alive)) };
        let how = match (self.code, self.signal) {
            (Some(code), _) => format!("exited{at_once} with status {code}{after}"),
            (None, Some(signal)) => format!("was ended{at_once} by signal {signal}{after}"),
            (None, None) => format!("ended{at_once}{after}"),
        };
        match &self.last_line {
            Some(line) => format!("{how} ({line})"),
            None => how,
        }
    }
}

/// A duration for people.
fn text(duration: Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        ms @ 1000..10_000 if ms % 1000 >= 100 => format!("{:.1} s", duration.as_secs_f64()),
        ms => format!("{} s", ms / 1000),
    }
}

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
