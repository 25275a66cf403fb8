//! What to do next, and the sentence that says why. Read from top to bottom: what forbids everything else
//! comes first, then the agent's orders, then the record.

use link::report::State;

use super::seen::{Answer, Data, Postgres, Record, Seen};
use super::view::View;
use super::words::{with_disk, with_pause};
use super::{Action, Decision, Standing, primary, refuse, replica};
use crate::group::{Command, Group, floor};

/// See the head of this file.
pub fn decide(seen: &Seen) -> Decision {
    with_disk(with_pause(seen, next(seen)), seen.free_bytes)
}

fn next(seen: &Seen) -> Decision {
    if let Postgres::Stopped { leftovers: count @ 1.. } = seen.postgres {
        let text = format!("ending {count} processes of postgres that were left behind");
        return say(Standing::Boot, Action::EndLeftovers, State::Starting, text);
    }
    if let Some(view) = View::of(seen).filter(|view| view.group.is_in_doubt(view.version)) {
        return begin_anew(&view);
    }
    if let Some(refusal) = refuse::refuse(seen) {
        return failed(seen, refusal);
    }
    if seen.orders.stop {
        return ending(seen);
    }
    match (&seen.record, View::of(seen)) {
        (Record::Unread(why), _) => unread(seen, why),
        (_, Some(view)) if view.leased() => primary::lead(&view),
        (_, Some(view)) if view.i_hold() => primary::reopen(&view),
        (_, Some(view)) => replica::follow_or_elect(&view),
        (_, None) => absent(seen),
    }
}

pub(super) fn say(standing: Standing, action: Action, state: State, because: impl Into<String>) -> Decision {
    Decision { action, standing, state, because: because.into() }
}

/// What cannot be right stays as it is; a lease that goes with it is given to others.
fn failed(seen: &Seen, refusal: String) -> Decision {
    let held = View::of(seen).filter(|view| view.i_hold() && !view.group.is_released());
    let action = match (&seen.postgres, held) {
        (Postgres::Running { .. }, _) => Action::Stop,
        // What its data says of where the log ends is worth nothing now.
        (Postgres::Stopped { .. }, Some(view)) if seen.in_touch || view.leased() => {
            let (epoch, server) = (view.group.epoch, seen.me.clone());
            Action::Propose(Command::Release { epoch, server, prefer: None, clean: None })
        }
        (Postgres::Stopped { .. }, _) if seen.orders.stop => Action::End,
        (Postgres::Stopped { .. }, _) => Action::Wait,
    };
    say(Standing::Failed, action, State::Unhealthy, refusal)
}

pub(super) fn release(view: &View, prefer: Option<String>) -> Command {
    let (epoch, server) = (view.group.epoch, view.seen.me.clone());
    Command::Release { epoch, server, prefer, clean: view.closed() }
}

/// A lease that an exec in place kept is worth more than a record that is not read yet.
fn unread(seen: &Seen, why: &str) -> Decision {
    match &seen.postgres {
        Postgres::Running { answer: Ok(Answer::Primary(_)), .. } if seen.lease.is_none() => {
            let text = format!("postgres takes writes without a lease, and control cannot be asked: {why}");
            say(Standing::Fencing, Action::Fence, State::Unhealthy, text)
        }
        _ if seen.lease.is_some_and(|lease| lease.left.is_zero()) => {
            let text = format!("the lease is over: {why}");
            say(Standing::Fencing, Action::Fence, State::Unhealthy, text)
        }
        _ => {
            let text = format!("waiting for control to say who is the primary: {why}");
            say(Standing::Boot, Action::Wait, State::Starting, text)
        }
    }
}

/// Control began anew, and the record may be older than the data.
fn begin_anew(view: &View) -> Decision {
    let servers = view.seen.servers.iter().cloned().collect();
    let command = Command::BeginAnew { floor: floor(view.version), servers };
    let text =
        "control began anew and may have forgotten a failover: all database servers say what they have";
    say(Standing::Boot, Action::Propose(command), State::Starting, text)
}

/// Nobody has written the record yet: the plan's first server does.
fn absent(seen: &Seen) -> Decision {
    let first = seen.servers.first().is_some_and(|first| *first == seen.me);
    let cluster = match &seen.data {
        Data::Present { system_identifier, .. } => Some(*system_identifier),
        _ => None,
    };
    if !matches!(seen.postgres, Postgres::Stopped { .. }) {
        let text = "postgres runs although control has no record of the database";
        return say(Standing::Fencing, Action::Fence, State::Unhealthy, text);
    }
    if !first {
        let first = seen.servers.first().map_or("the first database server", String::as_str);
        let text = format!("waiting for {first} to make the database cluster");
        return say(Standing::Boot, Action::Wait, State::Starting, text);
    }
    let text = match cluster {
        None => "making a new database cluster".to_owned(),
        Some(cluster) => format!("taking cluster {cluster} over from an earlier version"),
    };
    let group = Group::create(&seen.me, &seen.boot, cluster, seen.mode);
    say(Standing::Initialising, Action::Create(Box::new(group)), State::Starting, text)
}

/// The agent's order: end in order, and let others know that nobody needs to wait.
fn ending(seen: &Seen) -> Decision {
    let ending = |action, text: &str| say(Standing::Ending, action, State::Draining, text);
    let view = View::of(seen);
    match &seen.postgres {
        Postgres::Running { answer: Ok(Answer::Primary(_)), .. }
            if !view.is_some_and(|view| view.leased()) =>
        {
            ending(Action::Fence, "stopping a postgres that takes writes without a lease")
        }
        Postgres::Running { .. } => ending(Action::Stop, "stopping postgres"),
        Postgres::Stopped { .. } => match view {
            Some(view) if view.i_hold() && !view.group.is_released() && seen.in_touch => {
                // Itself first: a restart of the whole site should find the primary where it was.
                let prefer = Some(seen.me.clone());
                ending(Action::Propose(release(&view, prefer)), "postgres has ended, releasing the lease")
            }
            _ => ending(Action::End, "postgres has ended"),
        },
    }
}

#[cfg(test)]
mod tests;
