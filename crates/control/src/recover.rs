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

use link::control::LIFT;
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

/// Why this server must not begin anew; None: it may. `others`: what the voters that answer say of themselves.
pub(crate) fn refuse(me: &MembersReport, has_leader: bool, others: &[MembersReport]) -> Option<String> {
    let own = &me.server;
    if has_leader {
        return Some(format!(
            "{own} has a leader, so a majority is there and nothing needs to be recovered; for a voter that died for \
             good there is `dolmen control replace`"
        ));
    }
    if me.members.is_empty() {
        return Some(format!("{own} has no state to recover from: name a voter that still has its own"));
    }
    let alive: Vec<&MembersReport> =
        others.iter().filter(|report| report.server != *own && !report.members.is_empty()).collect();
    let there: BTreeSet<u64> = alive.iter().map(|report| report.node).chain([me.node]).collect();
    // One of them may know of later voters than this one.
    if let Some(report) = alive.iter().copied().chain([me]).find(|report| agree(report, &there)) {
        let of_those = report.members.iter().filter(|member| member.votes && there.contains(&member.node));
        let names: Vec<&str> = of_those.map(|member| member.server.as_str()).collect();
        return Some(format!(
            "{} have their state, a majority of the voters: they agree by themselves as soon as they reach each other",
            names.join(" and ")
        ));
    }
    if !me.votes() {
        return Some(format!("{own} has no vote, and so may lack what was agreed on: name a voter"));
    }
    let longer = alive.iter().find(|report| report.votes() && knows(report) > knows(me));
    longer.map(|report| {
        let name = &report.server;
        format!("{name} knows more than {own}: recover from it, with `dolmen control recover {name}`")
    })
}

/// Whether these servers are a majority of each set of voters.
fn agree(report: &MembersReport, there: &BTreeSet<u64>) -> bool {
    let agrees = |voters: &BTreeSet<u64>| voters.intersection(there).count() > voters.len() / 2;
    !report.voters.is_empty() && report.voters.iter().all(agrees)
}

/// In Raft's order: the term in which the last entry was made, not the one that a candidate has counted up to.
fn knows(report: &MembersReport) -> (u64, u64) {
    (report.log_term, report.log)
}

/// Why this server must keep its state; None: another one began anew without it.
pub(crate) fn keeps(me: &MembersReport, has_leader: bool, others: &[MembersReport]) -> Option<String> {
    let own = &me.server;
    if has_leader || me.members.is_empty() {
        let because = if has_leader { "has a leader" } else { "has no state" };
        return Some(format!("{own} {because}, so there is nothing to forget; nothing was changed"));
    }
    let anew = |report: &&MembersReport| {
        report.leads() && report.members.iter().all(|member| member.node != me.node)
    };
    others.iter().find(anew).is_none().then(|| {
        format!(
            "no other control server that answers began anew without {own}, whose state may be the one that counts; \
             nothing was changed\nhint: `dolmen control` shows who leads"
        )
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
        keep(folder, file)?;
        std::fs::rename(whole.join(file), folder.join(file))?;
        sync_folder(&folder.join(file))?;
    }
    std::fs::remove_dir(&whole)?;
    sync_folder(&whole)
}

/// Leaves the folder as that of a new server, the old state beside it. The log goes last: cut off
/// before it, the server finds a log without a node and refuses to start.
pub(crate) fn set_aside(folder: &Path) -> io::Result<()> {
    remove(&folder.join(OLD))?;
    std::fs::create_dir_all(folder.join(OLD))?;
    for file in ["node.json", "snapshot.json", "log"].map(Path::new) {
        keep(folder, file)?;
        sync_folder(&folder.join(file))?;
    }
    Ok(())
}

/// Moves a file of the old state to the others.
fn keep(folder: &Path, file: &Path) -> io::Result<()> {
    let old = folder.join(OLD).join(file);
    if folder.join(file).exists() {
        std::fs::rename(folder.join(file), &old)?;
    }
    sync_folder(&old)
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
            node: number,
            term: 3,
            leader: None,
            log,
            log_term: 3,
            applied: log,
            members: (1..=members).map(member).collect(),
            voters: if members == 0 { Vec::new() } else { vec![(1..=members).collect()] },
        }
    }

    #[track_caller]
    fn check(me: &MembersReport, has_leader: bool, others: &[MembersReport], expect: &str) {
        let refused = refuse(me, has_leader, others).unwrap_or_default();
        assert!(refused.contains(expect) && refused.is_empty() == expect.is_empty(), "{refused}");
    }

    #[test]
    fn only_the_last_one_with_the_most_may_begin_anew() {
        check(&report(1, 9, 3), true, &[], "has a leader");
        check(&report(1, 0, 0), false, &[], "no state to recover from");
        check(
            &report(1, 9, 3),
            false,
            &[report(2, 9, 3)],
            "control-1 and control-2 have their state, a majority",
        );
        check(&report(1, 9, 3), false, &[report(2, 0, 0)], "");
        check(&report(1, 9, 5), false, &[report(2, 10, 5)], "`dolmen control recover control-2`");
        check(&report(1, 9, 5), false, &[report(2, 8, 5), report(3, 0, 0)], "");
        check(&report(4, 9, 3), false, &[], "control-4 has no vote");
    }

    #[test]
    fn one_that_lost_its_disk_counts_for_nothing_though_it_was_taken_in_again() {
        let again = MembersReport { node: 22, ..report(2, 9, 3) };
        check(&report(1, 9, 3), false, std::slice::from_ref(&again), "");
        check(&again, false, &[], "control-2 has no vote");
    }

    #[test]
    fn who_has_counted_up_terms_alone_knows_no_more() {
        let candidate = MembersReport { term: 90, log_term: 2, ..report(2, 30, 5) };
        check(&report(1, 9, 5), false, &[candidate], "");
    }

    #[test]
    fn in_the_middle_of_a_change_a_majority_of_both_sets_must_be_there() {
        let changing = |number| MembersReport {
            voters: vec![(1..=3).collect(), (3..=5).collect()],
            ..report(number, 9, 5)
        };
        check(&changing(1), false, &[changing(2)], "");
        check(&changing(1), false, &[changing(2), changing(3), changing(4)], "a majority");
        // Another one that is left knows of a change that this one has not heard of.
        let later = MembersReport { voters: vec![(2..=4).collect()], log: 8, ..report(4, 8, 5) };
        check(&report(1, 9, 3), false, &[report(3, 7, 3), later], "a majority");
    }

    #[test]
    fn nobody_forgets_a_state_that_may_count() {
        let leads = |number: u64, members: u64| MembersReport {
            leader: Some(format!("control-{number}")),
            ..report(number, 9, members)
        };
        let check = |has_leader, others: &[MembersReport], expect: &str| {
            let kept = keeps(&report(4, 9, 5), has_leader, others).unwrap_or_default();
            assert!(kept.contains(expect) && kept.is_empty() == expect.is_empty(), "{kept}");
        };
        check(true, &[leads(1, 3)], "has a leader");
        check(false, &[leads(1, 5)], "may be the one that counts");
        check(false, &[report(1, 9, 3)], "may be the one that counts");
        check(false, &[leads(1, 3)], "");
    }
}
