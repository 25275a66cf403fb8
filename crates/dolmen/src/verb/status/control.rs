//! Control in `dolmen status`: who leads, and how many of those who vote can be reached.

use link::control::wire::{ControlAnswer, ControlAsk, MembersReport};
use plan::Role;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::ANSWER;
use crate::verb::{Site, control};

/// What each control server of the plan says, in the plan's order; None where nothing came.
pub struct Agreement {
    members: Vec<(String, Option<MembersReport>)>,
    voters: Vec<String>,
}

/// Asks all of them at once. None for a site that needs no control.
pub async fn ask(site: &Site) -> Option<Agreement> {
    let voters = site.plan.control.as_ref()?.voters.clone();
    let servers: Vec<_> = site.plan.role(Role::Control).cloned().collect();
    let mut asked = JoinSet::new();
    for (index, server) in servers.iter().cloned().enumerate() {
        let (identity, name) = (site.identity.clone(), site.plan.site.clone());
        asked.spawn(async move {
            let answer = control::ask(&identity, &name, &server, ControlAsk::Members, ANSWER).await;
            (index, answer)
        });
    }
    let mut members: Vec<_> = servers.into_iter().map(|server| (server.name, None)).collect();
    for (index, answer) in asked.join_all().await {
        match answer {
            Ok(ControlAnswer::Members(report)) => members[index].1 = Some(report),
            Ok(other) => tracing::debug!("{} answered {other:?}", members[index].0),
            Err(error) => tracing::debug!("{} cannot be asked: {error}", members[index].0),
        }
    }
    Some(Agreement { members, voters })
}

impl Agreement {
    fn reached(&self) -> impl Iterator<Item = &MembersReport> {
        self.members.iter().filter_map(|(_, report)| report.as_ref())
    }

    /// Who leads by the newest term that anybody knows.
    fn leader(&self) -> Option<(&str, u64)> {
        let known = self.reached().filter_map(|report| Some((report.leader.as_deref()?, report.term)));
        known.max_by_key(|(_, term)| *term)
    }

    /// The voters by the leader's word, which may have been replaced; by the plan when nobody leads.
    fn votes(&self, server: &str) -> bool {
        let leads = self.reached().find(|report| report.leads());
        match leads {
            Some(report) => report.members.iter().any(|member| member.server == server && member.votes),
            None => self.voters.iter().any(|voter| voter == server),
        }
    }
}

pub fn as_json(agreement: Option<&Agreement>) -> Value {
    let Some(agreement) = agreement else { return Value::Null };
    let member = |(name, report): &(String, Option<MembersReport>)| {
        json!({
            "name": name,
            "votes": agreement.votes(name),
            "reachable": report.is_some(),
            "log": report.as_ref().map(|report| report.log),
        })
    };
    let leader = agreement.leader();
    json!({
        "leader": leader.map(|(leader, _)| leader),
        "term": leader.map(|(_, term)| term),
        "members": agreement.members.iter().map(member).collect::<Vec<_>>(),
    })
}

pub fn line(agreement: Option<&Agreement>) -> Option<String> {
    let agreement = agreement?;
    let (reached, all) = (agreement.reached().count(), agreement.members.len());
    let who = match agreement.leader() {
        Some((leader, term)) => format!("{leader} leads in term {term}"),
        None => "nobody leads: nothing can be agreed on".into(),
    };
    let voters = agreement.members.iter().filter(|(name, _)| agreement.votes(name)).count();
    Some(format!("  control  {who}, {reached} of {all} reached, {voters} vote"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::control::wire::MemberReport;

    fn report(server: &str, leader: Option<&str>) -> MembersReport {
        let member = |name: &str, votes| MemberReport { server: name.into(), node: 1, votes, log: None };
        MembersReport {
            server: server.into(),
            node: 1,
            term: 4,
            leader: leader.map(str::to_owned),
            log: 9,
            log_term: 4,
            applied: 9,
            voters: Vec::new(),
            members: vec![member("control-1", true), member("control-2", false)],
        }
    }

    fn agreement(leader: Option<&str>) -> Agreement {
        let members =
            vec![("control-1".to_owned(), Some(report("control-1", leader))), ("control-2".to_owned(), None)];
        Agreement { members, voters: vec!["control-1".into(), "control-2".into()] }
    }

    #[test]
    fn it_says_who_leads_and_who_is_reached() {
        let led = agreement(Some("control-1"));
        assert_eq!(line(Some(&led)).unwrap(), "  control  control-1 leads in term 4, 1 of 2 reached, 1 vote");
        let json = as_json(Some(&led));
        assert_eq!((&json["leader"], &json["term"]), (&"control-1".into(), &4.into()));
        assert_eq!(
            json["members"][1],
            json!({ "name": "control-2", "votes": false, "reachable": false, "log": null })
        );
    }

    #[test]
    fn without_a_leader_the_plan_says_who_votes() {
        let text = line(Some(&agreement(None))).unwrap();
        assert_eq!(text, "  control  nobody leads: nothing can be agreed on, 1 of 2 reached, 2 vote");
        assert!(line(None).is_none() && as_json(None).is_null());
    }
}
