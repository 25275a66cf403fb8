//! The holder: how it becomes primary, stays it, hands over, and comes back to its own lease.

use std::time::Duration;

use link::report::State;

use super::decide::{release, say};
use super::lease::PROMOTION_LIMIT;
use super::seen::{Answer, AsPrimary, AsReplica, Data, Postgres, Progress};
use super::synchrony::{CAUGHT_UP_BYTES, Step, step};
use super::view::View;
use super::words::{not_answering, primary_words};
use super::{Action, Decision, Names, Standing};
use crate::group::{Command, Phase};

/// How long the last primary lets others take over before it does so itself.
pub const REOPEN_PATIENCE: Duration = Duration::from_secs(1);

/// This process holds the lease.
pub(super) fn lead(view: &View) -> Decision {
    if view.seen.lease.is_none_or(|lease| lease.left.is_zero()) {
        let text = "the lease could not be renewed: postgres is ended before anyone else may be promoted";
        return say(Standing::Fencing, Action::Fence, State::Unhealthy, text);
    }
    match &view.seen.postgres {
        Postgres::Stopped { .. } => ended(view),
        Postgres::Running { answer: Err(why), .. } => not_answering(view.seen, Standing::Primary, why),
        Postgres::Running { answer: Ok(Answer::Replica(replica)), .. } => promote(view, replica),
        Postgres::Running { answer: Ok(Answer::Primary(primary)), .. } => match view.group.state {
            Phase::Promoting => promoting(view, primary),
            Phase::HandingOver => {
                let text = format!("handing over to {}: ending postgres in order", heir(view));
                say(Standing::HandingOver, Action::Stop, State::Draining, text)
            }
            Phase::Open | Phase::Released { .. } => open(view, primary),
        },
    }
}

fn heir(view: &View) -> String {
    let to = view.group.handover.as_ref().and_then(|handover| handover.to.clone());
    to.unwrap_or_else(|| "another server".into())
}

/// Postgres is gone while the lease is held: by our own order, or it died.
fn ended(view: &View) -> Decision {
    let why = view.seen.trouble.as_ref().map_or("postgres has ended", |trouble| trouble.what.as_str());
    if view.group.state == Phase::HandingOver {
        let heir = view.closed().map(|_| heir(view));
        let text = match &heir {
            Some(heir) => format!("postgres has ended in order: {heir} may take over"),
            None => "postgres did not end in order within 2 s: whoever has most may take over".to_owned(),
        };
        return say(Standing::HandingOver, Action::Propose(release(view, heir)), State::Draining, text);
    }
    if view.may_fail_over() {
        let text = format!("{why}: another server may take over at once");
        return say(Standing::Released, Action::Propose(release(view, None)), State::Starting, text);
    }
    start(view, why)
}

fn start(view: &View, why: &str) -> Decision {
    let seen = view.seen;
    if view.group.is_open() && seen.in_touch {
        let (epoch, server) = (view.group.epoch, seen.me.clone());
        let text = format!("{why}: clients are held until postgres is promoted again");
        let close = Action::Propose(Command::Close { epoch, server });
        return say(Standing::Starting, close, State::Starting, text);
    }
    if let Some(trouble) = seen.trouble.as_ref().filter(|trouble| !trouble.retry_in.is_zero()) {
        let text = format!("{}; trying again soon", trouble.what);
        return say(Standing::Starting, Action::Wait, State::Unhealthy, text);
    }
    match &seen.data {
        Data::Present { major, .. } => {
            let text = format!("starting postgres: {why}");
            say(Standing::Starting, Action::Start { major: *major }, State::Starting, text)
        }
        _ if view.group.system_identifier.is_none() => {
            let text = "making a new database cluster";
            say(Standing::Initialising, Action::Initialise, State::Starting, text)
        }
        _ => say(
            Standing::Failed,
            Action::Wait,
            State::Unhealthy,
            "this server was the last primary, and its data directory is gone: put it back, or make a replica the \
             primary with `dolmen switchover --force SERVER` and lose what that lacks",
        ),
    }
}

/// The lease is ours and postgres is a standby: the promotion is still to be made, or it was started again.
fn promote(view: &View, replica: &AsReplica) -> Decision {
    let group = view.group;
    let Some(promotion) = group.promotion(group.epoch).filter(|promotion| promotion.timeline.is_none())
    else {
        return take_over(view, replica, "postgres was started again in place");
    };
    if view.epoch_age > PROMOTION_LIMIT {
        let text = format!("postgres was not promoted within {} s", PROMOTION_LIMIT.as_secs());
        return say(Standing::Fencing, Action::Fence, State::Unhealthy, text);
    }
    let (epoch, confirmed) = (group.epoch, promotion.parent);
    let text = format!("being promoted for epoch {epoch}: {}", promotion.because);
    let names = Names::of(&group.synchronous);
    say(Standing::Promoting, Action::Promote { names, epoch, confirmed }, State::Starting, text)
}

/// Promoted: others may follow, and clients may come once the epoch is committed as safely as their commits
/// will be; that one commit proves that all that can be read here is on enough servers.
fn promoting(view: &View, primary: &AsPrimary) -> Decision {
    let (group, epoch) = (view.group, view.group.epoch);
    let on_the_way = |action, text: String| say(Standing::Promoting, action, State::Starting, text);
    let boot = view.seen.boot.clone();
    if group.promotion(epoch).is_some_and(|promotion| promotion.timeline.is_none()) {
        let text = format!("promoted: timeline {} begins at {}", primary.timeline, primary.switch);
        let (timeline, switch) = (primary.timeline, primary.switch);
        let system_identifier = primary.system_identifier;
        let command = Command::Promoted { epoch, boot, timeline, switch, system_identifier };
        return on_the_way(Action::Propose(command), text);
    }
    if let Some(action) = synchrony(view, primary) {
        return on_the_way(action, "settling who must have a commit".into());
    }
    if primary.committed_epoch == Some(epoch) {
        if !primary.set_up && group.history.len() == 1 {
            return on_the_way(Action::SetUp, "making roles, database and slots".into());
        }
        let text = format!("epoch {epoch} is committed: open for clients");
        return on_the_way(Action::Propose(Command::Open { epoch, boot }), text);
    }
    let waits: Vec<_> = primary.names.members.iter().map(String::as_str).collect();
    let text = match waits.is_empty() {
        true => format!("promoted, committing epoch {epoch}"),
        false => format!("promoted, epoch {epoch} waits until {} has it", waits.join(" or ")),
    };
    // The only server that can have it may first have to be rewound, which needs the checkpoint.
    let action = match primary.checkpoint {
        _ if primary.committing != Some(epoch) => Action::CommitEpoch(epoch),
        Progress::NotBegun => Action::Checkpoint,
        Progress::UnderWay | Progress::Done => Action::Wait,
    };
    on_the_way(action, text)
}

fn synchrony(view: &View, primary: &AsPrimary) -> Option<Action> {
    match step(view.group, view.seen.mode, primary) {
        Step::Names(names) => Some(Action::SetNames(names)),
        Step::Record(set) => {
            let (epoch, boot) = (view.group.epoch, view.seen.boot.clone());
            Some(Action::Propose(Command::SetSynchronous { epoch, boot, set }))
        }
        Step::Confirm { .. } | Step::Done => None,
    }
}

/// The everyday.
fn open(view: &View, primary: &AsPrimary) -> Decision {
    let resting = view.seen.trouble.as_ref().is_some_and(|trouble| !trouble.retry_in.is_zero());
    let action = if view.group.handover.is_some() {
        return hand_over(view, primary);
    } else if let Some(action) = synchrony(view, primary) {
        action
    } else if !primary.set_up && !resting {
        Action::SetUp
    } else if primary.checkpoint == Progress::NotBegun {
        Action::Checkpoint
    } else {
        Action::Wait
    };
    let (state, text) = primary_words(view, primary);
    say(Standing::Primary, action, state, text)
}

/// The operator wants another primary: begins it, or says why not.
fn hand_over(view: &View, primary: &AsPrimary) -> Decision {
    let (epoch, boot) = (view.group.epoch, view.seen.boot.clone());
    let wanted = view.group.handover.as_ref().and_then(|handover| handover.to.as_deref());
    let fits = |replica: &&super::Replica| {
        let member = view.group.synchronous.members.contains(&replica.name);
        member && replica.streaming && replica.lag_bytes <= CAUGHT_UP_BYTES
    };
    let candidates = primary.replicas.iter().filter(|replica| wanted.is_none_or(|name| replica.name == name));
    match candidates.filter(fits).min_by_key(|replica| replica.lag_bytes) {
        Some(replica) => {
            let to = replica.name.clone();
            let text = format!("handing over to {to}, as the operator asked");
            let begin = Command::BeginHandover { epoch, boot, to };
            say(Standing::HandingOver, Action::Propose(begin), State::Draining, text)
        }
        None => {
            let who = wanted.unwrap_or("any replica");
            let because =
                format!("cannot hand over to {who}: it must stream, be caught up and have every commit");
            let refuse = Command::RefuseHandover { epoch, boot, because: because.clone() };
            say(Standing::Primary, Action::Propose(refuse), State::Healthy, because)
        }
    }
}

/// This server is the holder, but not in this life, or it gave the lease up: it has everything, so it may take over
/// itself; others are faster, and get their chance.
pub(super) fn reopen(view: &View) -> Decision {
    let seen = view.seen;
    let replica = match &seen.postgres {
        Postgres::Running { answer: Ok(Answer::Primary(_)), .. } => {
            let text = "postgres takes writes without a lease of this manager: it is ended, its data kept";
            return say(Standing::Fencing, Action::Fence, State::Unhealthy, text);
        }
        Postgres::Running { answer: Err(why), .. } => return not_answering(seen, Standing::Starting, why),
        Postgres::Running { answer: Ok(Answer::Replica(replica)), .. } => Some(replica),
        Postgres::Stopped { .. } => None,
    };
    if view.group.state == Phase::HandingOver && view.closed().is_some() && seen.in_touch {
        // The lease went before it could be released for the heir, for example by a renewal at the same moment.
        return ended(view);
    }
    if !view.group.is_released() && view.may_fail_over() && seen.in_touch {
        // An end in order was most likely a restart.
        let prefer = view.closed().map(|_| seen.me.clone());
        let text = "nothing of the last primary runs here any more: its lease is released";
        return say(Standing::Released, Action::Propose(release(view, prefer)), State::Starting, text);
    }
    match replica {
        None => start(view, "this server was the last primary"),
        Some(replica) if replica.follows.is_some() => {
            say(Standing::Released, Action::Seal, State::Starting, "the last primary follows nobody")
        }
        Some(replica) => await_turn(view, replica),
    }
}

fn await_turn(view: &View, replica: &AsReplica) -> Decision {
    let group = view.group;
    let prefers = match &group.state {
        Phase::Released { prefer, .. } => prefer.as_deref(),
        _ => Some(view.seen.me.as_str()),
    };
    let mine = prefers == Some(view.seen.me.as_str());
    // Nobody else does anything any more, or may.
    let quiet = view.version_age >= REOPEN_PATIENCE && view.silence >= REOPEN_PATIENCE;
    let alone = prefers.is_none() && group.synchronous.members.is_empty();
    if mine || alone || quiet {
        return take_over(view, replica, "nobody else took over from the last primary");
    }
    let text = "the last primary, waiting for another server to take over";
    say(Standing::Released, Action::Wait, State::Starting, text)
}

fn take_over(view: &View, replica: &AsReplica, why: &str) -> Decision {
    if !replica.is_sealed() {
        let text = "replaying the log before taking over again";
        return say(Standing::Starting, Action::Wait, State::Starting, text);
    }
    let position = view.position(replica);
    let command = Command::TakeOver {
        server: view.seen.me.clone(),
        boot: view.seen.boot.clone(),
        position,
        lease_ms: view.seen.timings.lease.as_millis() as u64,
        when_ms: view.seen.wall_ms,
        because: why.to_owned(),
    };
    let text = format!("{why}: taking over in epoch {}", view.group.epoch + 1);
    say(Standing::Promoting, Action::Propose(command), State::Starting, text)
}
