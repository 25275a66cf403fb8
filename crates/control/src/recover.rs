//! Beginning anew from the state of one voter, when most of the others are lost for good: by the operator's order
//! alone, since only a person can know that they will not come back.
//!
//! The server keeps the records as its own log has them and becomes the one voter of a new cluster, under another
//! number, so that no message of the old cluster is taken for one of the new. What the lost majority had agreed on
//! without it is lost. All that can be lost is written down before anything is replaced: the new state is made
//! whole in a folder of its own, whose final name is the decision, and put in its place at the next start; the
//! old state stays beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use link::control::wire::MembersReport;
use link::disk::{self, Access, sync_folder};

use crate::core::{Named, draw};
use crate::journal::{Content, Journal};
use crate::machine::State;
use crate::types::{Member, Membership, Vote};

/// Where the new state is made, how it is called when it is whole, and where the old one is kept.
const UNFINISHED: &str = "recovery.new";
const WHOLE: &str = "recovery";
const OLD: &str = "before-recovery";

/// What a control server has on disk.
const FILES: [&str; 3] = ["node.json", "log", "snapshot.json"];

/// Versions jump by this, so that nobody who has seen a later one than the recovered one takes it for old news.
/// Renewals of a lease alone make some 200,000 versions a day.
const LIFT: u64 = 1 << 40;

/// Why this server must not begin anew; None: it may. `others`: what the voters that answer say of themselves.
pub(crate) fn refuse(me: &MembersReport, has_leader: bool, others: &[MembersReport]) -> Option<String> {
    let own = &me.server;
    if has_leader {
        return Some(format!(
            "{own} has a leader, so a majority is there and nothing needs to be recovered; for a voter that died for \
             good there is `dolmen control replace`"
        ));
    }
    let voters: BTreeSet<&str> =
        me.members.iter().filter(|member| member.votes).map(|member| member.server.as_str()).collect();
    if voters.is_empty() {
        return Some(format!("{own} has no state to recover from: name a voter that still has its own"));
    }
    let is_voter = |report: &&MembersReport| {
        report.server != *own && voters.contains(report.server.as_str()) && !report.members.is_empty()
    };
    let alive: Vec<&MembersReport> = others.iter().filter(is_voter).collect();
    let (there, majority) = (alive.len() + usize::from(voters.contains(own.as_str())), voters.len() / 2 + 1);
    if there >= majority {
        let names: Vec<&str> = alive.iter().map(|report| report.server.as_str()).collect();
        return Some(format!(
            "{there} of {} voters have their state ({own}, {}), a majority: they agree by themselves as soon as they \
             reach each other",
            voters.len(),
            names.join(", ")
        ));
    }
    let longer = alive.iter().find(|report| (report.term, report.log) > (me.term, me.log));
    longer.map(|report| {
        let name = &report.server;
        format!("{name} knows more than {own}: recover from it, with `dolmen control recover {name}`")
    })
}

/// Writes the new state; from the last rename on it is what the next start begins with.
pub(crate) fn prepare(folder: &Path, server: &str, content: Content, mut state: State) -> io::Result<()> {
    let (unfinished, whole) = (folder.join(UNFINISHED), folder.join(WHOLE));
    for left in [&unfinished, &folder.join(OLD)] {
        remove(left)?;
    }
    std::fs::create_dir_all(&unfinished)?;
    let (node, last) = (draw()?, content.last());
    let term = content.vote.map_or(0, |vote| vote.leader_id.term);
    content.entries.into_iter().for_each(|entry| state.take(entry));
    let members = BTreeMap::from([(node, Member { server: server.to_owned() })]);
    let members = openraft::Membership::new(vec![[node].into()], members).map_err(io::Error::other)?;
    state.begin_anew(Membership::new(last, members), LIFT);
    disk::replace_json(&unfinished.join("node.json"), &Named { node }, Access::Owner)?;
    disk::replace_json(&unfinished.join("snapshot.json"), &state, Access::Owner)?;
    let new = Content { vote: Some(Vote::new(term + 1, node)), purged: last, ..Content::default() };
    let (mut journal, _) = Journal::open(&unfinished.join("log")).map_err(io::Error::other)?;
    journal.write(&new.steps())?;
    std::fs::rename(&unfinished, &whole)?;
    sync_folder(&whole)
}

/// Puts a new state in its place, if one was made; may be cut off anywhere and called again.
pub(crate) fn carry_out(folder: &Path) -> io::Result<()> {
    let (whole, old) = (folder.join(WHOLE), folder.join(OLD));
    if !whole.exists() {
        return Ok(());
    }
    tracing::warn!(
        "begins anew as the only voter, as the operator ordered; the old state is in {}",
        old.display()
    );
    std::fs::create_dir_all(&old)?;
    for file in FILES.map(Path::new) {
        if !whole.join(file).exists() {
            continue;
        }
        if folder.join(file).exists() {
            std::fs::rename(folder.join(file), old.join(file))?;
        }
        sync_folder(&old.join(file))?;
        std::fs::rename(whole.join(file), folder.join(file))?;
        sync_folder(&folder.join(file))?;
    }
    std::fs::remove_dir(&whole)?;
    sync_folder(&whole)
}

fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use link::control::wire::MemberReport;

    use super::*;

    fn report(number: u64, log: u64, members: u64) -> MembersReport {
        let member = |number| MemberReport {
            server: format!("control-{number}"),
            node: number,
            votes: true,
            log: None,
        };
        MembersReport {
            server: format!("control-{number}"),
            term: 3,
            leader: None,
            log,
            applied: log,
            members: (1..=members).map(member).collect(),
        }
    }

    #[test]
    fn only_the_last_one_with_the_most_may_begin_anew() {
        let check = |me: MembersReport, has_leader, others: &[MembersReport], expect: &str| {
            let refused = refuse(&me, has_leader, others).unwrap_or_default();
            assert!(refused.contains(expect) && refused.is_empty() == expect.is_empty(), "{refused}");
        };
        check(report(1, 9, 3), true, &[], "has a leader");
        check(report(1, 0, 0), false, &[], "no state to recover from");
        check(report(1, 9, 3), false, &[report(2, 9, 3)], "2 of 3 voters have their state");
        check(report(1, 9, 3), false, &[report(2, 0, 0)], "");
        check(report(1, 9, 5), false, &[report(2, 10, 5)], "`dolmen control recover control-2`");
        check(report(1, 9, 5), false, &[report(2, 8, 5), report(3, 0, 0)], "");
    }
}
