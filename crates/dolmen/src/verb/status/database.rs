//! The database group in `dolmen status`: who takes writes until when, who may be next, and what happened last.

use link::report::{AgreedReport, DatabaseReport, ServerReport, SiteReport};
use plan::Role;
use serde_json::{Value, json};

use crate::out;

pub fn as_json(report: &SiteReport) -> Value {
    if !report.servers().any(|server| server.role == Role::Database) {
        return Value::Null;
    }
    let mut database = match primary(report) {
        Some((server, database)) => json!({
            "primary": server.name,
            "timeline": database.timeline,
            "replicas": database.replicas,
            "fence": database.fence,
        }),
        None => json!({ "primary": null, "timeline": null, "replicas": [], "fence": null }),
    };
    database["agreed"] = json!(agreed(report));
    database
}

pub fn is_paused(report: &SiteReport) -> bool {
    agreed(report).is_some_and(|agreed| agreed.paused)
}

fn primary(report: &SiteReport) -> Option<(&ServerReport, &DatabaseReport)> {
    reports(report).find(|(_, database)| database.primary)
}

fn reports(report: &SiteReport) -> impl Iterator<Item = (&ServerReport, &DatabaseReport)> {
    report.servers().filter_map(|server| Some((server, server.database.as_ref()?)))
}

/// What the machines agreed on, as the holder says it, or else whoever knows of the newest epoch.
fn agreed(report: &SiteReport) -> Option<&AgreedReport> {
    let known = reports(report).filter_map(|(server, database)| Some((server, database.agreed.as_deref()?)));
    let newest = known.max_by_key(|(server, agreed)| (agreed.epoch, agreed.holder == server.name));
    newest.map(|(_, agreed)| agreed)
}

/// Empty for a site without a database of its own.
pub fn lines(report: &SiteReport) -> Vec<String> {
    let (primary, agreed) = (primary(report), agreed(report));
    let mut lines = vec![String::new()];
    if let Some(agreed) = agreed {
        lines.push(format!("  database {}", group(agreed, primary.map(|(_, database)| database))));
        if agreed.paused {
            lines.push("  paused: no automatic action until `dolmen database resume`".into());
        }
    }
    lines.extend(primary.iter().flat_map(|(_, database)| &database.replicas).map(|replica| {
        let kind = if replica.synchronous { "synchronous" } else { "asynchronous" };
        let behind = replica.lag_bytes;
        format!("  replica  {:<12} {}, {kind}, {behind} bytes behind", replica.name, replica.state)
    }));
    if let Some(last) = agreed.and_then(|agreed| agreed.last_failover.as_ref()) {
        let when = out::moment(last.when_ms);
        lines.push(format!(
            "  last     {when} UTC: {} became the primary of epoch {}: {}",
            last.server, last.epoch, last.because
        ));
    }
    if lines.len() == 1 { Vec::new() } else { lines }
}

/// `database-1 of epoch 3, timeline 3, lease of 3.0 s (2.1 s left), synchronous with database-2, fenced by …`
fn group(agreed: &AgreedReport, primary: Option<&DatabaseReport>) -> String {
    let AgreedReport { epoch, holder, .. } = agreed;
    let mut text = format!("{holder} of epoch {epoch}");
    if !agreed.open {
        text += ", not open for clients";
    }
    if let Some(primary) = primary {
        text += &format!(", timeline {}", primary.timeline);
    }
    let seconds = |ms: u64| ms as f64 / 1000.0;
    text += &format!(", lease of {:.1} s", seconds(agreed.lease_ms));
    if let Some(left) = agreed.lease_left_ms {
        text += &format!(" ({:.1} s left)", seconds(left));
    }
    text += &match agreed.synchronous.as_slice() {
        [] => ", nobody else may be promoted".to_owned(),
        members => format!(", {} may be promoted", members.join(" or ")),
    };
    if let Some(primary) = primary.filter(|primary| !primary.fence.is_empty()) {
        text += &format!(", fenced by {}", primary.fence);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::report::{FailoverReport, MachineReport, MachineState, ReplicaReport, State};

    fn agreed() -> AgreedReport {
        AgreedReport {
            epoch: 3,
            holder: "database-1".into(),
            open: true,
            lease_ms: 3000,
            lease_left_ms: Some(2100),
            synchronous: vec!["database-2".into()],
            paused: true,
            last_failover: Some(FailoverReport {
                epoch: 3,
                server: "database-1".into(),
                when_ms: 0,
                because: "database-2 ended in order".into(),
            }),
        }
    }

    fn server(name: &str, database: DatabaseReport) -> ServerReport {
        serde_json::from_value(json!({
            "name": name, "role": "database", "machine": "alpha", "pid": 1, "state": State::Healthy,
            "because": "", "listen": [], "database": database,
        }))
        .unwrap()
    }

    fn site(servers: Vec<ServerReport>) -> SiteReport {
        let (name, address) = ("alpha".into(), "127.0.1.1".into());
        let (state, because) = (MachineState::Up, String::new());
        let notes = Vec::new();
        SiteReport { machines: vec![MachineReport { name, address, state, because, notes, servers }] }
    }

    #[test]
    fn it_says_who_takes_writes_and_who_may_be_next() {
        let replica = ReplicaReport {
            name: "database-2".into(),
            state: "streaming".into(),
            synchronous: true,
            lag_bytes: 8,
        };
        let (fence, replicas) = ("pid-namespace".into(), vec![replica]);
        let agreed = Some(Box::new(agreed()));
        let primary =
            DatabaseReport { primary: true, timeline: 4, fence, agreed, replicas, ..Default::default() };
        let older = AgreedReport { epoch: 2, lease_left_ms: None, ..*primary.agreed.clone().unwrap() };
        let behind = DatabaseReport { agreed: Some(Box::new(older)), ..Default::default() };
        let report = site(vec![server("database-1", primary), server("database-2", behind)]);
        assert_eq!(
            lines(&report).join("\n"),
            "\n  database database-1 of epoch 3, timeline 4, lease of 3.0 s (2.1 s left), database-2 may be promoted, \
             fenced by pid-namespace\n  \
             paused: no automatic action until `dolmen database resume`\n  \
             replica  database-2   streaming, synchronous, 8 bytes behind\n  \
             last     1970-01-01 00:00:00 UTC: database-1 became the primary of epoch 3: database-2 ended in order"
        );
        let json = as_json(&report);
        assert_eq!((&json["primary"], &json["agreed"]["epoch"]), (&"database-1".into(), &3.into()));
        assert_eq!(json["agreed"]["lease_left_ms"], 2100);
        assert!(is_paused(&report));
    }

    #[test]
    fn a_site_without_a_database_says_nothing_of_one() {
        let report = site(Vec::new());
        assert!(lines(&report).is_empty() && as_json(&report).is_null());
        let unborn = site(vec![server("database-1", DatabaseReport::default())]);
        assert_eq!(as_json(&unborn)["primary"], Value::Null);
        assert_eq!(as_json(&unborn)["replicas"], json!([]));
    }
}
