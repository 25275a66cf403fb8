//! How a cluster begins: once, when all that will vote are there and empty. A pure function.
//!
//! Nobody begins alone. A voter that comes back with a wiped disk finds others that are members already, and is
//! taken in as one that learns; if it cannot reach them it waits. So there are never two clusters of one site.

use std::collections::{BTreeMap, BTreeSet};

use link::control::wire::MemberReport;

use crate::types::{Member, Node};

/// What another control server said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) node: Node,
    pub(crate) member: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Formation {
    /// Begin with these members, all of whom vote.
    Begin(BTreeMap<Node, Member>),
    Wait {
        because: String,
    },
}

/// What a control server without a cluster does next.
pub(crate) fn form(me: (&str, Node), voters: &[String], met: &BTreeMap<String, Met>) -> Formation {
    if let Some((server, _)) = met.iter().find(|(_, met)| met.member) {
        return Formation::Wait {
            because: format!("waits until it is taken in: {server} has a leader already or seeks one"),
        };
    }
    let missing: Vec<&str> = voters
        .iter()
        .map(String::as_str)
        .filter(|voter| *voter != me.0 && !met.contains_key(*voter))
        .collect();
    if !missing.is_empty() {
        let because =
            format!("waits for {}: a new site begins when all its voters are there", missing.join(" and "));
        return Formation::Wait { because };
    }
    if voters.first().is_none_or(|first| first != me.0) {
        return Formation::Wait { because: "waits for the first voter to begin".into() };
    }
    let member = |voter: &String| {
        let node = if voter == me.0 { me.1 } else { met.get(voter)?.node };
        Some((node, Member { server: voter.clone() }))
    };
    Formation::Begin(voters.iter().filter_map(member).collect())
}

/// Those that learn and are to vote from now on: voters of the plan that have no vote, as many as leave an odd number.
/// A site that one machine began goes from one voter to three at once: two could not lose either.
pub(crate) fn to_vote(voters: &[String], members: &[MemberReport]) -> BTreeSet<Node> {
    let of = |voter: &str, votes| members.iter().find(|m| m.server == voter && m.votes == votes);
    let learners = voters.iter().filter(|voter| of(voter, true).is_none());
    // One that never answered may be out of our reach, and would take the majority from those that run.
    let answers = |member: &&MemberReport| member.log.is_some();
    let next = learners.filter_map(|voter| of(voter, false)).filter(answers);
    let mut next: Vec<Node> = next.map(|member| member.node).collect();
    let vote = members.iter().filter(|member| member.votes).count();
    if (vote + next.len()).is_multiple_of(2) {
        next.pop();
    }
    next.into_iter().collect()
}

/// Those that go on voting when the plan lets fewer vote than do, so that the machines of the others can be taken out:
/// the voters of the plan, once every one of them has its vote.
pub(crate) fn to_vote_alone(voters: &[String], members: &[MemberReport]) -> Option<BTreeSet<Node>> {
    let vote = members.iter().filter(|member| member.votes);
    let (left, others): (Vec<_>, Vec<_>) = vote.partition(|member| voters.contains(&member.server));
    (left.len() == voters.len() && !others.is_empty())
        .then(|| left.iter().map(|member| member.node).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u64, votes: bool) -> MemberReport {
        MemberReport { server: format!("control-{number}"), node: number * 10, votes, log: Some(1) }
    }

    #[test]
    fn one_voter_becomes_three_at_once() {
        let next = |members: &[MemberReport]| to_vote(&voters(), members).into_iter().collect::<Vec<_>>();
        assert!(next(&[member(1, true)]).is_empty());
        assert!(next(&[member(1, true), member(2, false)]).is_empty());
        assert_eq!(next(&[member(1, true), member(2, false), member(3, false)]), [20, 30]);
        assert_eq!(next(&[member(1, true), member(2, true), member(3, false)]), [30]);
        let silent = MemberReport { log: None, ..member(3, false) };
        assert!(next(&[member(1, true), member(2, false), silent]).is_empty(), "it never answered");
        let replaced = [member(1, true), member(2, false), member(3, true), member(4, true)];
        assert!(next(&replaced).is_empty(), "another one votes in its place");
        let wiped = [member(1, true), member(2, true), member(2, false), member(3, true)];
        assert!(next(&wiped).is_empty(), "it lost its disk, and its vote is still counted");
    }

    #[test]
    fn a_plan_with_fewer_voters_takes_votes_away_once_its_own_all_vote() {
        let left = |members: &[MemberReport]| to_vote_alone(&voters(), members);
        let five: Vec<_> = (1..=5).map(|number| member(number, true)).collect();
        assert_eq!(left(&five), Some([10, 20, 30].into()));
        assert_eq!(left(&five[..3]), None);
        let replaced = [member(1, true), member(2, false), member(3, true), member(4, true)];
        assert_eq!(left(&replaced), None, "somebody put another one in its place");
        let wiped = [&five[..], &[member(2, false)]].concat();
        assert_eq!(left(&wiped), Some([10, 20, 30].into()));
    }

    fn voters() -> Vec<String> {
        (1..=3).map(|number| format!("control-{number}")).collect()
    }

    fn met(others: &[(&str, Node, bool)]) -> BTreeMap<String, Met> {
        others
            .iter()
            .map(|(name, node, member)| ((*name).into(), Met { node: *node, member: *member }))
            .collect()
    }

    #[test]
    fn the_first_voter_begins_when_all_are_there_and_empty() {
        let all = met(&[("control-2", 20, false), ("control-3", 30, false)]);
        let Formation::Begin(members) = form(("control-1", 10), &voters(), &all) else { panic!() };
        assert_eq!(members.keys().copied().collect::<Vec<_>>(), [10, 20, 30]);
        assert!(matches!(form(("control-2", 20), &voters(), &all), Formation::Wait { .. }));
    }

    #[test]
    fn nobody_begins_while_a_voter_is_missing() {
        let Formation::Wait { because } =
            form(("control-1", 10), &voters(), &met(&[("control-2", 20, false)]))
        else {
            panic!()
        };
        assert_eq!(because, "waits for control-3: a new site begins when all its voters are there");
    }

    #[test]
    fn a_wiped_voter_does_not_begin_a_second_cluster() {
        let others = met(&[("control-2", 20, true), ("control-3", 30, false)]);
        assert!(matches!(form(("control-1", 11), &voters(), &others), Formation::Wait { .. }));
    }

    #[test]
    fn one_machine_begins_alone() {
        let one = vec!["control-1".to_owned()];
        assert!(matches!(form(("control-1", 10), &one, &met(&[])), Formation::Begin(_)));
    }
}
