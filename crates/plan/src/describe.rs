//! A plan for people: which server runs where, at which address, in the order of a request.

mod balancer;

use std::fmt::Write as _;

use crate::meant::{LEASE_DEFAULT_MS, Listen, Place, Plan, Server, SocketKind, Value};
use crate::typed::duration_text;

/// A table of the plan, with aligned columns. It shows where secrets come from, never the secrets.
pub fn describe(plan: &Plan) -> String {
    let mut text = format!("{}, generation {}, {}\n", plan.site, plan.generation, place(plan.place));
    let _ = write!(text, "\nmachines\n{}", table(&machine_rows(plan)));
    let _ = write!(text, "\nservers\n{}", table(&plan.servers.iter().map(server_row).collect::<Vec<_>>()));
    let _ = write!(text, "\nthe way of a request\n{}", table(&way(plan)));
    if !plan.not_served.is_empty() {
        let _ = write!(text, "\nnot served yet\n");
    }
    for sentence in &plan.not_served {
        let _ = writeln!(text, "  {sentence}");
    }
    if let Some(note) = plan.control.as_ref().and_then(|control| control.note.as_ref()) {
        let _ = write!(text, "\nnote\n  {note}\n");
    }
    text
}

fn place(place: Place) -> String {
    match place {
        Place::Up { block } => format!("on this computer (127.0.{block}.*)"),
        Place::Machines => "on its machines".to_owned(),
    }
}

fn machine_rows(plan: &Plan) -> Vec<Vec<String>> {
    let row = |machine: &crate::meant::Machine| {
        let public: Vec<String> = machine.public.iter().map(ToString::to_string).collect();
        let public = if public.is_empty() { String::new() } else { format!("public {}", public.join(", ")) };
        vec![machine.name.clone(), machine.address.to_string(), format!("agent {}", machine.agent), public]
    };
    plan.machines.iter().map(row).collect()
}

fn server_row(server: &Server) -> Vec<String> {
    let listens: Vec<String> = server.listen.iter().map(listen).collect();
    vec![server.name.clone(), format!("on {}", server.machine), listens.join("  ")]
}

/// An address the way one would type it into the program that asks there.
pub(crate) fn listen(listen: &Listen) -> String {
    match (listen.name.as_str(), listen.kind) {
        ("http", _) => format!("http://{}", listen.address),
        ("dns", SocketKind::Udp) => format!("{}/udp", listen.address),
        ("dns-tcp", _) => format!("{}/tcp", listen.address),
        (name, _) => format!("{name} {}", listen.address),
    }
}

fn way(plan: &Plan) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut row = |part: &str, does: String| rows.push(vec![part.to_owned(), does]);
    if let Some(dns) = &plan.dns {
        let records = counted(dns.records.len(), "extra record");
        row("dns", format!("answers for the zone {}, {records}, ttl {} s", dns.zone, dns.ttl_s));
    }
    if let Some(balancer) = &plan.balancer {
        for (part, does) in balancer::rows(balancer) {
            row(part, does);
        }
    }
    if let Some(web) = &plan.web {
        row("web", web_row(web));
    }
    if let Some(app) = &plan.app {
        let workers = counted(usize::from(app.workers), "worker");
        row("app", format!("{workers} of `{}` on each machine, healthy at {}", app.command, app.health));
    }
    if let Some(database) = &plan.database {
        row("database", database_row(plan, database));
    }
    if let Some(control) = &plan.control {
        let vote = if control.voters.len() == 1 { "decides" } else { "decide by majority" };
        row("control", format!("{} {vote}", control.voters.join(", ")));
    }
    rows
}

fn web_row(web: &crate::meant::Web) -> String {
    let files = web.root.as_ref().map(|root| format!("files in {}", root.display()));
    let app = (!web.app.is_empty()).then(|| format!("to {}", balancer::targets(&web.app)));
    let parts: Vec<String> = files.into_iter().chain(app).collect();
    parts.join(", all else ")
}

fn database_row(plan: &Plan, database: &crate::meant::Database) -> String {
    let servers: Vec<&str> =
        plan.role(crate::meant::Role::Database).map(|server| server.name.as_str()).collect();
    match (&database.url, servers.split_first()) {
        (Some(url), _) => format!("run by somebody else, at {}", value(url)),
        (None, Some((first, []))) => format!("`{}`, {first} alone", database.name),
        (None, Some((first, replicas))) => {
            let commits = match (database.synchronous, database.strict) {
                (false, _) => "commits do not wait",
                (true, false) => "commits wait for a replica",
                (true, true) => "commits always wait for a replica",
            };
            let lease = match database.lease_ms {
                LEASE_DEFAULT_MS => String::new(),
                other => format!(", lease {}", duration_text(other)),
            };
            format!(
                "`{}`, first primary {first}, replica {}, {commits}{lease}",
                database.name,
                replicas.join(" and ")
            )
        }
        (None, None) => "no server".to_owned(),
    }
}

/// Where a value comes from. A plain one is shown: it stands in the file for everybody to read.
fn value(value: &Value) -> String {
    match value {
        Value::Plain(text) => text.clone(),
        Value::Env(name) => format!("env:{name}"),
        Value::File(path) => format!("file:{}", path.display()),
    }
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// Rows with each column as wide as its widest cell.
fn table(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        let cells =
            row.iter().enumerate().map(|(column, cell)| format!("{cell:<width$}", width = width(column)));
        let line = format!("  {}", cells.collect::<Vec<_>>().join("  "));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
