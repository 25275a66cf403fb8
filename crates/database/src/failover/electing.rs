//! Election: seal, vote, and take over as the best of enough votes. Nobody follows anybody meanwhile.

use std::time::Duration;

use link::report::State;

use super::decide::say;
use super::seen::AsReplica;
use super::view::View;
use super::{Action, Decision, Standing, refuse};
use crate::group::{Ballot, Command, Phase, Position};

/// How long the best so far waits for the votes that are still out.
pub const VOTE_PATIENCE: Duration = Duration::from_millis(50);

/// How long everyone else leaves a released lease, or an election that it could win as well, to whom it belongs first.
pub const TURN_PATIENCE: Duration = Duration::from_secs(1);

/// Whether an election is under way, so that this server must be sealed.
pub(super) fn is_on(view: &View) -> bool {
    view.group.ballot.is_some() || view.group.is_released() || is_forced(view)
}

fn is_forced(view: &View) -> bool {
    view.group.force.as_deref() == Some(view.seen.me.as_str())
}

/// The holder has been silent for so long that it ends itself. The ballot is opened before anything is sealed: only
/// when control accepts that, it is certain that the silence is not just ours.
pub(super) fn may_open(view: &View) -> bool {
    view.silence >= view.election() && view.is_member()
}

pub(super) fn open_ballot(view: &View) -> Decision {
    let group = view.group;
    let (server, epoch, seq) = (view.seen.me.clone(), group.epoch, group.seq);
    let text = match group.is_released() {
        true if group.began_anew() => "control began anew: opening an election of all servers".to_owned(),
        true => format!("{} released its lease: opening an election", group.holder),
        false => format!("{} is silent, its lease at its end: opening an election", group.holder),
    };
    sealed(Action::Propose(Command::OpenBallot { server, epoch, seq }), text)
}

fn sealed(action: Action, text: impl Into<String>) -> Decision {
    say(Standing::Sealed, action, State::Starting, text)
}

/// An election is on.
pub(super) fn elect(view: &View, replica: &AsReplica) -> Decision {
    if !replica.is_sealed() {
        let action = if replica.follows.is_some() { Action::Seal } else { Action::Wait };
        return sealed(action, "sealing itself for an election");
    }
    let group = view.group;
    let position = view.position(replica);
    if is_forced(view) {
        // Data of a promotion that the record has not: whoever lacks that is no beginning of it.
        let epoch = refuse::forgotten(view).unwrap_or(position.epoch);
        let position = Position { epoch, ..position };
        let over = group.is_released() || view.silence >= view.patience();
        let why = "the operator makes this server the primary, whatever is lost by it";
        return if over { take_over(view, position, why) } else { sealed(Action::Wait, why) };
    }
    if let Some(epoch) = refuse::forgotten(view) {
        let text =
            format!("sealed: its data of epoch {epoch}, which control has forgotten, is to be copied anew");
        return sealed(Action::Wait, text);
    }
    if let Phase::Released { prefer, clean } = &group.state {
        let turn = prefer.as_ref().is_none_or(|name| *name == view.seen.me) || view.silence >= TURN_PATIENCE;
        if !turn {
            let first = prefer.as_deref().unwrap_or_default();
            return sealed(Action::Wait, format!("sealed: {first} is to take over first"));
        }
        if clean.is_some_and(|end| position.contains(&end)) {
            let why = format!("{} ended in order, and this server has everything", group.holder);
            return take_over(view, position, &why);
        }
    }
    if !view.is_member() {
        return sealed(Action::Wait, "sealed: not in the synchronous set, so others decide");
    }
    match &group.ballot {
        None => open_ballot(view),
        Some(ballot) => vote(view, ballot, position),
    }
}

fn vote(view: &View, ballot: &Ballot, position: Position) -> Decision {
    let (group, seen) = (view.group, view.seen);
    if ballot.votes.get(&seen.me).is_none_or(|vote| vote.position != position) {
        let (server, boot) = (seen.me.clone(), seen.boot.clone());
        let text = format!("sealed: voting with {} of epoch {}", position.lsn, position.epoch);
        return sealed(Action::Propose(Command::Vote { server, boot, position }), text);
    }
    let quorum = group.synchronous.quorum();
    if !group.is_decided() {
        let out: Vec<_> = missing(view, ballot).collect();
        let votes = ballot.votes.len();
        let text = format!("sealed: {votes} of {quorum} votes, waiting for {}", out.join(" or "));
        return if group.began_anew() { everyone(text) } else { sealed(Action::Wait, text) };
    }
    if !group.is_released() && view.silence < view.patience() {
        let text = format!("sealed: elected, until {} is fenced for certain", group.holder);
        return sealed(Action::Wait, text);
    }
    match first_of_the_best(view, ballot) {
        Some(first) if first == seen.me => {
            if missing(view, ballot).next().is_some() && view.version_age < VOTE_PATIENCE {
                return sealed(Action::Wait, "sealed: enough votes, waiting a moment for the others");
            }
            let why = match group.is_released() {
                true if group.began_anew() => "control began anew, and this server has most".to_owned(),
                true => format!("{} released its lease, and this server has most", group.holder),
                false => format!("the lease of {} ran out, and this server has most", group.holder),
            };
            take_over(view, position, &why)
        }
        Some(_) if is_best(ballot, position) && view.version_age >= TURN_PATIENCE => {
            take_over(view, position, "the server that was to take over does not, and this one has as much")
        }
        Some(first) => sealed(Action::Wait, format!("sealed: {first} has most and takes over")),
        None => sealed(Action::Wait, "sealed: nobody has voted"),
    }
}

/// Only a person can know that one of them will not come back.
fn everyone(text: String) -> Decision {
    let text = format!(
        "{text}; control began anew and may have forgotten a failover, so all must say what they have: if one is \
         lost for good, `dolmen switchover --force SERVER` makes the one that you name the primary"
    );
    say(Standing::Sealed, Action::Wait, State::Unhealthy, text)
}

/// The members that have not voted.
fn missing<'a>(view: &'a View, ballot: &'a Ballot) -> impl Iterator<Item = &'a str> {
    let members = view.group.synchronous.members.iter();
    members.filter(|name| !ballot.votes.contains_key(*name)).map(String::as_str)
}

fn is_best(ballot: &Ballot, position: Position) -> bool {
    ballot.votes.values().all(|vote| position.contains(&vote.position))
}

/// Of several that have as much, the first in the plan's order.
fn first_of_the_best<'a>(view: &View<'a>, ballot: &Ballot) -> Option<&'a str> {
    let best = |name: &&String| ballot.votes.get(*name).is_some_and(|vote| is_best(ballot, vote.position));
    view.seen.servers.iter().find(best).map(String::as_str)
}

fn take_over(view: &View, position: Position, why: &str) -> Decision {
    let command = Command::TakeOver {
        server: view.seen.me.clone(),
        boot: view.seen.boot.clone(),
        position,
        lease_ms: view.seen.timings.lease.as_millis() as u64,
        when_ms: view.seen.wall_ms,
        because: why.to_owned(),
    };
    let text = format!("taking over in epoch {}: {why}", view.group.epoch + 1);
    say(Standing::Promoting, Action::Propose(command), State::Starting, text)
}
