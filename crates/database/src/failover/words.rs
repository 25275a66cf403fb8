//! The sentences that need more than one line to make.

use std::time::Duration;

use link::report::State;

use super::decide::say;
use super::seen::{AsPrimary, AsReplica, Postgres, Record, Seen, Upstream};
use super::view::View;
use super::{Action, Decision, Standing};
use crate::group::{Command, Mode};
use crate::settings::SLOT_LIMIT;

/// Below this the sentence warns: PostgreSQL stops when it cannot write its log.
pub const LOW_DISK_BYTES: u64 = 64 * 1024 * 1024;

/// From here on the sentence tells what is kept for a replica that is away.
const MUCH_KEPT_BYTES: u64 = 1 << 30;

/// A postgres that has not answered for this long is not merely starting.
const SLOW_START: Duration = Duration::from_secs(60);

/// How long the other side of replication may take to connect before that is unhealthy.
const CONNECTING: Duration = Duration::from_secs(5);

pub(super) fn not_answering(seen: &Seen, standing: Standing, why: &str) -> Decision {
    let Postgres::Running { since, answered, last_error, .. } = &seen.postgres else {
        return say(standing, Action::Wait, State::Unhealthy, why);
    };
    if !answered && *since < SLOW_START {
        return say(standing, Action::Wait, State::Starting, format!("postgres is starting: {why}"));
    }
    let said = last_error.as_deref().map(|error| format!("; it last said: {error}")).unwrap_or_default();
    say(standing, Action::Wait, State::Unhealthy, format!("postgres runs but does not answer: {why}{said}"))
}

pub(super) fn primary_words(view: &View, primary: &AsPrimary) -> (State, String) {
    if let Some(trouble) = view.seen.trouble.as_ref().filter(|_| !primary.set_up) {
        return (State::Unhealthy, format!("primary of epoch {}: {}", view.group.epoch, trouble.what));
    }
    let streaming = primary.replicas.iter().filter(|replica| replica.streaming).count();
    let mut text = format!("primary of epoch {}, timeline {}", view.group.epoch, primary.timeline);
    if !primary.replicas.is_empty() {
        text += &format!(", {streaming} of {} replicas streaming", primary.replicas.len());
    }
    text += &kept(primary);
    if !view.seen.in_touch {
        text += "; control does not answer, the lease is running out";
        return (State::Unhealthy, text);
    }
    let waits: Vec<_> = primary.names.members.iter().map(String::as_str).collect();
    let met =
        |name: &&&str| primary.replicas.iter().any(|replica| replica.name == **name && replica.streaming);
    if waits.iter().filter(met).count() < primary.names.wait_for as usize {
        text += &format!(": commits wait until {} is back", waits.join(" or "));
        return (State::Unhealthy, text);
    }
    let alone = view.group.synchronous.members.is_empty() && !primary.replicas.is_empty();
    match view.group.synchronous.mode {
        Mode::Asynchronous { .. } => text += ": commits do not wait, a failover may lose the last of them",
        _ if alone => text += ": it goes on alone, nobody else may be promoted",
        _ => {}
    }
    (State::Healthy, text)
}

/// What is kept for replicas that are away, once it is much: a disk may fill with it.
fn kept(primary: &AsPrimary) -> String {
    let much = |replica: &&super::Replica| !replica.streaming && replica.kept_bytes >= MUCH_KEPT_BYTES;
    let words = primary.replicas.iter().filter(much).map(|replica| {
        let (kept, name) = (bytes(replica.kept_bytes), &replica.name);
        format!(", {kept} of log kept for {name} (at most {SLOT_LIMIT})")
    });
    words.collect()
}

pub(super) fn replica_words(view: &View, replica: &AsReplica, error: Option<&str>) -> (State, String) {
    let holder = &view.group.holder;
    if replica.streaming {
        let text = format!("replica of {holder}, streaming, {} behind", lag(replica.lag_bytes));
        return (State::Healthy, text);
    }
    if replica.not_streaming < CONNECTING {
        return (State::Starting, format!("replica of {holder}, connecting to it"));
    }
    let why = match (&view.seen.upstream, error) {
        (Upstream::Unreachable(why), _) => format!(": {why}"),
        (_, Some(error)) => format!(": {error}"),
        (_, None) => String::new(),
    };
    (State::Unhealthy, format!("replica of {holder}, not streaming{why}"))
}

/// Coarse, because a new sentence is a new line in the log; the report has the exact number.
fn lag(count: u64) -> String {
    if count < 1 << 20 { "less than 1 MB".into() } else { bytes(count) }
}

pub(super) fn with_disk(mut decision: Decision, free_bytes: u64) -> Decision {
    if free_bytes < LOW_DISK_BYTES {
        let left = bytes(free_bytes);
        decision.because =
            format!("only {left} left on the disk of the data, make room: {}", decision.because);
        decision.state = State::Unhealthy;
    }
    decision
}

/// While paused nothing is done that the operator did not ask for; what protects data goes on.
pub(super) fn with_pause(seen: &Seen, decision: Decision) -> Decision {
    let paused = matches!(&seen.record, Record::Known { group, .. } if group.paused);
    if !paused || seen.orders.stop {
        return decision;
    }
    let Decision { action, standing, state, because } = decision;
    let because = format!("paused, no automatic action until `dolmen database resume`: {because}");
    if protects(&action) {
        return Decision { action, standing, state, because };
    }
    Decision { action: Action::Wait, standing: Standing::Paused, state, because }
}

fn protects(action: &Action) -> bool {
    match action {
        Action::Wait | Action::End | Action::EndLeftovers | Action::Fence | Action::Seal => true,
        Action::SetNames(_) | Action::SetUp | Action::CommitEpoch(_) | Action::Checkpoint => true,
        Action::Propose(command) => matches!(command, Command::SetSynchronous { .. }),
        Action::Create(_) | Action::Initialise | Action::Clone { .. } | Action::Start { .. } => false,
        Action::Follow { .. } | Action::Rewind { .. } | Action::Promote { .. } | Action::Stop => false,
    }
}

/// `1 byte`, `34 MB`: whole units, the largest that leaves at least one.
pub fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")];
    match UNITS.iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => format!("{} {unit}", count / size),
        None if count == 1 => "1 byte".into(),
        None => format!("{count} bytes"),
    }
}
