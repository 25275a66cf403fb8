//! `dolmen status [--json] [--watch]`: is everything fine, and if not, why. Exit 1 when not.

mod control;
mod database;

use std::process::ExitCode;
use std::time::Duration;

use link::api::{Answer, Ask};
use link::report::{MachineReport, MachineState, ServerReport, SiteReport, State};
use plan::Plan;
use serde_json::{Value, json};

use super::{Site, wait};
use crate::failure::Failure;
use crate::out;
use crate::site::Home;
use crate::up::progress::{is_as_wanted, is_fine, is_synchronous, waits_for_nobody};
use control::Agreement;

const REFRESH: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct Status {
    /// For scripts: keys may be added, not changed
    #[arg(long)]
    json: bool,
    /// Again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

impl Status {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        wait(async {
            loop {
                let site = Site::open(home)?;
                let (answer, agreement) = tokio::join!(ask(&site), control::ask(&site));
                let ((generation, report), agreement) = (answer?, agreement.as_ref());
                let healthy = is_fine(&site.plan, &report.machines);
                let text = if self.json {
                    as_json(&site.plan, generation, healthy, &report, agreement).to_string()
                } else {
                    as_text(&site.plan, generation, healthy, &report, agreement)
                };
                if self.watch && !self.json {
                    // Clears the screen and goes to its top.
                    out::line(&format!("\x1b[2J\x1b[H{text}"));
                } else {
                    out::line(&text);
                }
                if !self.watch {
                    return Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(1) });
                }
                tokio::time::sleep(REFRESH).await;
            }
        })
    }
}

/// How long one agent may take to answer: one that hangs must not keep the others from answering.
const ANSWER: Duration = Duration::from_secs(3);

/// Asks one agent after another: any of them can answer for the whole site.
pub(super) async fn ask(site: &Site) -> Result<(u64, SiteReport), Failure> {
    for machine in site.nearest_first() {
        let answer = async {
            let mut conversation = site.agent(machine).await?;
            conversation.ask(&Ask::Status).await?;
            conversation.answer().await
        };
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(Ok(Answer::Site { generation, report })) => return Ok((generation, report)),
            Ok(Ok(other)) => tracing::warn!("the agent of {} answered {other:?}", machine.name),
            Ok(Err(error)) => tracing::debug!("the agent of {} cannot be asked: {error}", machine.name),
            Err(_) => tracing::debug!("the agent of {} does not answer in time", machine.name),
        }
    }
    Err(site.is_not_up())
}

fn as_json(
    plan: &Plan,
    generation: u64,
    healthy: bool,
    report: &SiteReport,
    agreement: Option<&Agreement>,
) -> Value {
    let machine = |machine: &MachineReport| {
        json!({ "name": machine.name, "address": machine.address, "state": machine.state,
                "because": machine.because, "notes": machine.notes })
    };
    json!({
        "site": plan.site,
        "generation": generation,
        "healthy": healthy,
        "machines": report.machines.iter().map(machine).collect::<Vec<_>>(),
        "servers": in_order(plan, report),
        "database": database::as_json(report),
        "control": control::as_json(agreement),
        "notes": plan.notes().collect::<Vec<_>>(),
    })
}

/// The servers in the order of a request.
fn in_order<'a>(plan: &Plan, report: &'a SiteReport) -> Vec<&'a ServerReport> {
    plan.servers.iter().filter_map(|server| report.server(&server.name)).collect()
}

fn as_text(
    plan: &Plan,
    generation: u64,
    healthy: bool,
    report: &SiteReport,
    agreement: Option<&Agreement>,
) -> String {
    let wrong = report.servers().filter(|server| !is_as_wanted(plan, server)).count();
    let all = plan.servers.len();
    let verdict = match (wrong, waits_for_nobody(is_synchronous(plan), &report.machines)) {
        _ if healthy && database::is_paused(report) => out::state(State::Draining, "fine, but paused"),
        _ if healthy => out::state(State::Healthy, "everything is fine"),
        (0, Some(sentence)) => out::state(State::Starting, &sentence),
        (0, None) if report.machines.iter().any(|machine| machine.state != MachineState::Up) => {
            out::state(State::Down, "a machine is not up")
        }
        (0, None) => out::state(State::Down, "a machine does not go by what was agreed"),
        (1, _) => out::state(State::Down, &format!("1 of {all} servers is not healthy")),
        _ => out::state(State::Down, &format!("{wrong} of {all} servers are not healthy")),
    };
    let mut lines =
        vec![format!("{}  {verdict}  (generation {generation})", out::strong(&plan.site)), String::new()];
    for machine in &report.machines {
        let state = if machine.state == MachineState::Up {
            match machine.because.as_str() {
                crate::agent::ANSWERS => out::state(State::Healthy, "up"),
                because => out::state(State::Unhealthy, &format!("up, but {because}")),
            }
        } else {
            out::state(State::Down, &format!("down: {}", machine.because))
        };
        lines.push(format!("  machine {:<8} {:<12} {state}", machine.name, machine.address));
    }
    lines.push(String::new());
    for server in in_order(plan, report) {
        let state = out::state(server.state, &format!("{:<9}", server.state));
        let pid = server.pid.map_or_else(|| "-".into(), |pid| pid.to_string());
        lines.push(format!(
            "  {:<12} {:<8} {pid:>8}  {state}  {}",
            server.name, server.machine, server.because
        ));
        if !server.finishing.is_empty() {
            let pids: Vec<String> = server.finishing.iter().map(u32::to_string).collect();
            let text = format!("{:<43}earlier processes finish what they began: {}", "", pids.join(", "));
            lines.push(out::faint(&text));
        }
    }
    lines.extend(database::lines(report));
    lines.extend(control::line(agreement));
    for note in plan.notes() {
        lines.push(format!("  note: {note}"));
    }
    for machine in &report.machines {
        lines.extend(machine.notes.iter().map(|note| format!("  note: {}: {note}", machine.name)));
    }
    lines.join("\n")
}
