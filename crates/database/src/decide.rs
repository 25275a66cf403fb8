//! What to do next, and the sentence that says why: one pure function from what was seen.
//!
//! It is a table read from top to bottom. No clock, no disk, no network; [`crate::act`] carries it out.
//! An action may be cut off at any instruction: the next look at the world decides again.

use std::time::Duration;

use link::report::{ReplicaReport, State};

use crate::seen::{Answer, Data, Duty, Memory, Process, Seen, Trouble, Upstream};
use crate::synchrony;

/// Below this the sentence warns: PostgreSQL stops when it cannot write its log.
pub(crate) const LOW_DISK_BYTES: u64 = 64 * 1024 * 1024;

/// A postgres that has not answered for this long is not merely starting.
const SLOW_START: Duration = Duration::from_secs(60);

/// How long the other side of replication may take to connect after a start before that is unhealthy.
const CONNECTING: Duration = Duration::from_secs(5);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing: look again soon.
    Wait,
    /// Kill the processes that an earlier manager left on the data directory.
    EndLeftovers,
    /// Make a new, empty cluster.
    Initialise,
    /// Copy the primary, with programs of this major version.
    Clone { major: u32 },
    /// Start postgres with programs of this major version.
    Start { major: u32 },
    /// Make the roles, the database and the slots.
    SetUp,
    /// Let commits wait for a replica, or not.
    SetSynchronous(bool),
    /// Stop postgres, because it must not run.
    Stop,
}

/// How the server is and why, in one plain sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sentence {
    pub(crate) state: State,
    pub(crate) text: String,
}

type Decision = (Action, Sentence);

fn say(action: Action, state: State, text: impl Into<String>) -> Decision {
    (action, Sentence { state, text: text.into() })
}

/// See the head of this file.
pub(crate) fn decide(seen: &Seen) -> Decision {
    let (action, sentence) = match &seen.process {
        Process::Running { answer: Err(why), since, answered, last_error } => {
            not_answering(*answered || *since >= SLOW_START, why, last_error.as_deref())
        }
        Process::Running { answer: Ok(answer), since, last_error, .. } => {
            running(seen, *since, answer, last_error.as_deref())
        }
        Process::Stopped { leftovers: 0 } => stopped(seen),
        Process::Stopped { leftovers } => say(
            Action::EndLeftovers,
            State::Starting,
            format!("ending {leftovers} processes of postgres that an earlier manager left behind"),
        ),
    };
    (action, with_disk(sentence, seen.free_bytes))
}

fn stopped(seen: &Seen) -> Decision {
    if let Some(refusal) = contradiction(seen) {
        return say(Action::Wait, State::Unhealthy, refusal);
    }
    if let (true, Some(trouble)) = (resting(seen), &seen.trouble) {
        return say(Action::Wait, State::Unhealthy, format!("{}; trying again soon", trouble.what));
    }
    match (&seen.data, &seen.duty) {
        (Data::Present { major, .. }, _) => {
            let why = seen.trouble.as_ref().map(|trouble| format!(" again: {}", trouble.what));
            let text = format!("starting postgres{}", why.unwrap_or_default());
            say(Action::Start { major: *major }, State::Starting, text)
        }
        (_, Duty::Primary { .. }) => {
            say(Action::Initialise, State::Starting, "making a new database cluster")
        }
        (_, Duty::Replica { primary, address, upstream }) => may_clone(seen, primary, address, upstream),
    }
}

/// Whether something failed and is not to be tried again yet.
fn resting(seen: &Seen) -> bool {
    seen.trouble.as_ref().is_some_and(|Trouble { retry_in, .. }| !retry_in.is_zero())
}

/// A replica without data: is there something to copy from?
fn may_clone(seen: &Seen, primary: &str, address: &str, upstream: &Upstream) -> Decision {
    let wait = |why: &str| {
        say(Action::Wait, State::Starting, format!("waiting for {primary} at {address} to copy it: {why}"))
    };
    match upstream {
        Upstream::Unasked => wait("not asked yet"),
        Upstream::Unreachable(why) => wait(why),
        Upstream::Reached { slot: false, .. } => wait("it has not made our replication slot yet"),
        Upstream::Reached { major, .. } if !seen.installed.contains(major) => say(
            Action::Wait,
            State::Unhealthy,
            format!("{primary} runs PostgreSQL {major}, which is not installed here: install that version"),
        ),
        Upstream::Reached { major, .. } => {
            say(Action::Clone { major: *major }, State::Starting, format!("copying {primary}"))
        }
    }
}

/// What on disk contradicts the plan, so that a person must decide. Nothing is touched.
fn contradiction(seen: &Seen) -> Option<String> {
    let Memory { system_identifier: remembered, .. } = seen.memory;
    match &seen.data {
        Data::Absent => remembered.map(|identifier| {
            format!(
                "the data directory of cluster {identifier} is gone: put it back, or remove memory.json beside \
                 it to begin without that data"
            )
        }),
        Data::Unreadable(why) => Some(format!("{why}; it is left untouched: mend it or move it away")),
        Data::OtherVersion(major) => Some(format!(
            "the data directory was made by PostgreSQL {major}, which is not installed here (found: {}): install \
             it, or move the data with pg_upgrade; it is left untouched",
            list(&seen.installed)
        )),
        Data::Present { system_identifier, .. } if remembered.is_some_and(|known| known != *system_identifier) => {
            Some(format!(
                "the data directory belongs to cluster {system_identifier}, not to {} that was here before: put \
                 the right one back; it is left untouched",
                remembered.unwrap_or_default()
            ))
        }
        Data::Present { system_identifier, standby, .. } => duty_contradiction(seen, *system_identifier, *standby),
    }
}

fn duty_contradiction(seen: &Seen, system_identifier: u64, standby: bool) -> Option<String> {
    match &seen.duty {
        Duty::Primary { .. } => standby.then(|| {
            "the plan makes this server the primary, but its data directory is a replica's: name the machine \
             of the old primary first in [database] on; it is left untouched"
                .to_owned()
        }),
        Duty::Replica { primary, .. } if !standby => Some(format!(
            "the plan makes this server a replica, but its data directory was a primary's and may hold writes \
             that {primary} does not have: move the folder of this server away to have {primary} copied"
        )),
        Duty::Replica { primary, upstream: Upstream::Reached { system_identifier: theirs, .. }, .. }
            if *theirs != system_identifier =>
        {
            Some(format!(
                "the data directory belongs to cluster {system_identifier}, but {primary} has cluster {theirs}: \
                 move the folder of this server away to have {primary} copied; it is left untouched"
            ))
        }
        Duty::Replica { .. } => None,
    }
}

fn running(seen: &Seen, since: Duration, answer: &Answer, error: Option<&str>) -> Decision {
    match (answer, &seen.duty) {
        (
            Answer::Primary { timeline, replicas, synchronous_names, set_up },
            Duty::Primary { replicas: planned, synchronous },
        ) => {
            let streaming = replicas.iter().any(|replica| replica.state == "streaming");
            let waits = synchrony::wanted(*synchronous, planned, seen.memory.synchronous, streaming);
            let action = if resting(seen) {
                Action::Wait
            } else if !set_up {
                Action::SetUp
            } else if *synchronous_names != synchrony::names(waits, planned) {
                Action::SetSynchronous(waits)
            } else {
                Action::Wait
            };
            (action, primary_sentence(seen, *timeline, replicas, waits, *set_up, since))
        }
        (Answer::Replica { streaming, lag_bytes, .. }, Duty::Replica { primary, upstream, .. }) => {
            if let Some(refusal) = contradiction(seen) {
                return say(Action::Stop, State::Unhealthy, refusal);
            }
            (Action::Wait, replica_sentence(primary, upstream, *streaming, *lag_bytes, since, error))
        }
        (Answer::Primary { .. }, Duty::Replica { primary, .. }) => say(
            Action::Stop,
            State::Unhealthy,
            format!("postgres takes writes although {primary} is the primary: it is stopped, its data kept"),
        ),
        (Answer::Replica { .. }, Duty::Primary { .. }) => say(
            Action::Wait,
            State::Unhealthy,
            "postgres follows another server although the plan makes it the primary",
        ),
    }
}

fn not_answering(should: bool, why: &str, error: Option<&str>) -> Decision {
    if !should {
        return say(Action::Wait, State::Starting, format!("postgres is starting: {why}"));
    }
    let said = error.map(|error| format!("; it last said: {error}")).unwrap_or_default();
    say(Action::Wait, State::Unhealthy, format!("postgres runs but does not answer: {why}{said}"))
}

fn primary_sentence(
    seen: &Seen,
    timeline: u32,
    replicas: &[ReplicaReport],
    waits: bool,
    set_up: bool,
    since: Duration,
) -> Sentence {
    if !set_up {
        return match &seen.trouble {
            Some(trouble) if resting(seen) => {
                Sentence { state: State::Unhealthy, text: trouble.what.clone() }
            }
            _ => {
                Sentence { state: State::Starting, text: "primary, making roles, database and slots".into() }
            }
        };
    }
    let streaming = replicas.iter().filter(|replica| replica.state == "streaming").count();
    let mut text = format!("primary, timeline {timeline}");
    let mut state = State::Healthy;
    if !replicas.is_empty() {
        text += &format!(", {streaming} of {} replicas streaming", replicas.len());
    }
    let planned = matches!(seen.duty, Duty::Primary { synchronous: true, .. });
    if streaming == 0 && waits {
        let names: Vec<_> = replicas.iter().map(|replica| replica.name.as_str()).collect();
        text += &format!(": commits wait until {} is back", names.join(" or "));
        state = if since < CONNECTING { State::Starting } else { State::Unhealthy };
    } else if streaming == 0 && planned && !replicas.is_empty() {
        text += ": commits do not wait for a replica until the first has its copy";
    }
    Sentence { state, text }
}

fn replica_sentence(
    primary: &str,
    upstream: &Upstream,
    streaming: bool,
    lag_bytes: u64,
    since: Duration,
    error: Option<&str>,
) -> Sentence {
    if streaming {
        let text = format!("replica of {primary}, streaming, {} behind", lag(lag_bytes));
        return Sentence { state: State::Healthy, text };
    }
    if since < CONNECTING {
        return Sentence { state: State::Starting, text: format!("replica of {primary}, connecting to it") };
    }
    let why = match (upstream, error) {
        (Upstream::Unreachable(why), _) => format!(": {why}"),
        // It was away for longer than the primary keeps its log (max_slot_wal_keep_size).
        (_, Some(error)) if error.contains("has already been removed") => {
            format!(": {error}; move the folder of this server away to have {primary} copied anew")
        }
        (_, Some(error)) => format!(": {error}"),
        (_, None) => String::new(),
    };
    Sentence { state: State::Unhealthy, text: format!("replica of {primary}, not streaming{why}") }
}

/// Coarse, because a new sentence is a new line in the log; the report has the exact number.
fn lag(count: u64) -> String {
    if count < 1 << 20 { "less than 1 MB".into() } else { bytes(count) }
}

fn with_disk(mut sentence: Sentence, free_bytes: u64) -> Sentence {
    if free_bytes < LOW_DISK_BYTES {
        let left = bytes(free_bytes);
        sentence.text = format!("only {left} left on the disk of the data, make room: {}", sentence.text);
        sentence.state = State::Unhealthy;
    }
    sentence
}

/// `1 byte`, `34 MB`: whole units, the largest that leaves at least one.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")];
    match UNITS.iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => format!("{} {unit}", count / size),
        None if count == 1 => "1 byte".into(),
        None => format!("{count} bytes"),
    }
}

fn list(majors: &[u32]) -> String {
    majors.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "decide/tests.rs"]
mod tests;
