//! Everyone but the holder: gets a copy, follows, comes back, or elects.

use std::time::Duration;

use link::report::State;

use super::decide::say;
use super::seen::{Answer, AsReplica, Data, Postgres, Upstream};
use super::view::View;
use super::words::{not_answering, replica_words};
use super::{Action, Decision, Rejoin, Standing, electing, rejoin};

/// A replica that was told to follow and cannot is judged anew after this time.
pub const FOLLOW_LIMIT: Duration = Duration::from_secs(30);

/// How long a promoted primary has to become open without the help of a server that must be rewound or copied.
pub const OPEN_PATIENCE: Duration = Duration::from_secs(3);

/// What PostgreSQL says when a replica can never follow as it is (its log, `lc_messages` being C).
const HOPELESS: [&str; 3] = [
    "has already been removed",
    "forked off current database system timeline",
    "is ahead of the WAL flush position",
];

pub(super) fn follow_or_elect(view: &View) -> Decision {
    let seen = view.seen;
    match &seen.postgres {
        Postgres::Running { answer: Ok(Answer::Primary(_)), .. } => {
            let text = format!(
                "postgres takes writes although {} is the primary: it is ended, its data kept",
                view.group.holder
            );
            say(Standing::Fencing, Action::Fence, State::Unhealthy, text)
        }
        Postgres::Running { answer: Err(why), .. } => not_answering(seen, Standing::Starting, why),
        Postgres::Stopped { .. } => stopped(view),
        Postgres::Running { answer: Ok(Answer::Replica(replica)), .. } => {
            if electing::is_on(view) {
                electing::elect(view, replica)
            } else if electing::may_open(view) {
                electing::open_ballot(view)
            } else if view.group.reinit.contains(&seen.me) && !view.is_member() {
                copy(view, "the operator wants it copied anew")
            } else {
                follow(view, replica)
            }
        }
    }
}

fn stopped(view: &View) -> Decision {
    let seen = view.seen;
    if let Some(trouble) = seen.trouble.as_ref().filter(|trouble| !trouble.retry_in.is_zero()) {
        let text = format!("{}; trying again soon", trouble.what);
        return say(Standing::Starting, Action::Wait, State::Unhealthy, text);
    }
    match &seen.data {
        _ if view.stamp().spoiled => copy(view, "a rewind of its data was not finished"),
        // One that cannot even start is what a copy is most often asked for.
        Data::Present { .. } if view.group.reinit.contains(&seen.me) && !view.is_member() => {
            copy(view, "the operator wants it copied anew")
        }
        Data::Present { major, .. } => {
            let why = seen.trouble.as_ref().map(|trouble| format!(" again: {}", trouble.what));
            let text = format!("starting postgres{}", why.unwrap_or_default());
            say(Standing::Starting, Action::Start { major: *major }, State::Starting, text)
        }
        _ => copy(view, "it has no data yet"),
    }
}

/// The holder lives, as far as anybody knows.
fn follow(view: &View, replica: &AsReplica) -> Decision {
    let (group, seen) = (view.group, view.seen);
    let follows_now =
        replica.follows.as_ref() == Some(&group.holder) && view.stamp().following == group.epoch;
    if follows_now {
        let hopeless = replica.not_streaming >= FOLLOW_LIMIT && last_error(view).is_some_and(is_hopeless);
        if hopeless && group.can_be_followed() {
            return copy(view, "it cannot follow the primary's log from where its own ends");
        }
        let (state, text) = replica_words(view, replica, last_error(view));
        return say(Standing::Following, Action::Wait, state, text);
    }
    if !replica.is_sealed() {
        let action = if replica.follows.is_some() { Action::Seal } else { Action::Wait };
        let text = match replica.replayed_all {
            true => format!("leaving the old primary for {}", group.holder),
            false => "replaying its log".to_owned(),
        };
        return say(Standing::Rejoining, action, State::Starting, text);
    }
    if !group.can_be_followed() {
        let text = format!("waiting for {} to be promoted", group.holder);
        return say(Standing::Sealed, Action::Wait, State::Starting, text);
    }
    let position = view.position(replica);
    match rejoin(group, seen.stamp, position) {
        Rejoin::Follow => {
            let (server, epoch) = (group.holder.clone(), group.epoch);
            let text = format!("following {server} in epoch {epoch}");
            let confirmed = position.epoch;
            say(Standing::Rejoining, Action::Follow { server, epoch, confirmed }, State::Starting, text)
        }
        Rejoin::Rewind { common, because } => rewind(view, common, &because),
        Rejoin::Copy { because } => copy(view, &because),
    }
}

fn last_error<'a>(view: &View<'a>) -> Option<&'a str> {
    match &view.seen.postgres {
        Postgres::Running { last_error, .. } => last_error.as_deref(),
        Postgres::Stopped { .. } => None,
    }
}

fn is_hopeless(error: &str) -> bool {
    HOPELESS.iter().any(|text| error.contains(text))
}

/// An open primary has its epoch on enough servers: what is rewound or copied away then was never acknowledged,
/// and is needed for nothing. One that does not become open may be waiting for just this server.
fn is_settled(view: &View) -> bool {
    view.group.is_open() || (view.group.can_be_followed() && view.epoch_age >= OPEN_PATIENCE)
}

fn rewind(view: &View, common: u64, because: &str) -> Decision {
    let (from, epoch) = (view.group.holder.clone(), view.group.epoch);
    let ready = matches!(view.seen.upstream, Upstream::Reached { checkpointed: true, .. });
    if !is_settled(view) || !ready {
        let text = format!("waiting for {from} to be ready for a rewind: {because}");
        return say(Standing::Rejoining, Action::Wait, State::Starting, text);
    }
    let text = format!("being rewound to {from}: {because}");
    say(Standing::Rejoining, Action::Rewind { from, epoch, common }, State::Starting, text)
}

/// Is there something to copy from?
fn copy(view: &View, why: &str) -> Decision {
    let (seen, holder) = (view.seen, view.group.holder.as_str());
    let wait = |text: &str| {
        let text = format!("waiting to copy {holder} ({why}): {text}");
        say(Standing::Cloning, Action::Wait, State::Starting, text)
    };
    if !is_settled(view) || view.group.ballot.is_some() {
        return wait("it is not open yet");
    }
    if let Some(trouble) = seen.trouble.as_ref().filter(|trouble| !trouble.retry_in.is_zero()) {
        let text = format!("{}; trying again soon", trouble.what);
        return say(Standing::Cloning, Action::Wait, State::Unhealthy, text);
    }
    match &seen.upstream {
        Upstream::Unasked => wait("not asked yet"),
        Upstream::Unreachable(why) => wait(why),
        Upstream::Reached { slot: false, .. } => wait("it has not made our replication slot yet"),
        Upstream::Reached { major, .. } if !seen.installed.contains(major) => {
            let text = format!(
                "{holder} runs PostgreSQL {major}, which is not installed here: install that version"
            );
            say(Standing::Cloning, Action::Wait, State::Unhealthy, text)
        }
        Upstream::Reached { major, .. } => {
            let reinit = view.group.reinit.contains(&seen.me);
            let (from, epoch, major) = (holder.to_owned(), view.group.epoch, *major);
            let text = format!("copying {holder}: {why}");
            say(Standing::Cloning, Action::Clone { from, epoch, major, reinit }, State::Starting, text)
        }
    }
}
