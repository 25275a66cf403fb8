//! `dolmen logs [-f] [SERVER]`: the logs of all servers, merged by time.

use std::process::ExitCode;
use std::time::Duration;

use link::api::{Answer, ApiError, Ask, Identity, call};
use plan::Machine;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Site, wait};
use crate::failure::Failure;
use crate::out;
use crate::site::Home;

/// Lines that wait to be printed.
const QUEUE: usize = 1024;

/// Lines from different machines that arrive within this time are put in order.
const GATHER: Duration = Duration::from_millis(250);

/// A line waits no longer than this to be put in order, and with no more others than this.
const LONGEST: Duration = Duration::from_secs(1);
const BATCH: usize = 100_000;

#[derive(Debug, clap::Args)]
pub struct Logs {
    /// One server, for example web-1, or one agent, for example agent-beta
    server: Option<String>,
    /// Go on with what comes
    #[arg(long, short = 'f')]
    follow: bool,
    /// How many lines of each log to begin with
    #[arg(long, short = 'n', default_value_t = 100)]
    lines: usize,
}

struct Line {
    server: String,
    text: String,
}

impl Logs {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let site = Site::open(home)?;
        let machines: Vec<&Machine> = match &self.server {
            None => site.plan.machines.iter().collect(),
            Some(name) => match name.strip_prefix("agent-").and_then(|machine| site.plan.machine(machine)) {
                Some(machine) => vec![machine],
                None => vec![site.machine_of(name)?],
            },
        };
        wait(self.print(&site, &machines))
    }

    async fn print(&self, site: &Site, machines: &[&Machine]) -> Result<ExitCode, Failure> {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let ask = Ask::Logs { server: self.server.clone(), lines: self.lines, follow: self.follow };
        let mut reads = JoinSet::new();
        for machine in machines {
            let (identity, name) = (site.identity.clone(), site.plan.site.clone());
            reads.spawn(read(identity, name, Machine::clone(machine), ask.clone(), sender.clone()));
        }
        drop(sender);
        let mut batch = Vec::new();
        while gather(&mut receiver, &mut batch).await {
            batch.sort_by(|a: &Line, b: &Line| time(&a.text).cmp(time(&b.text)));
            for line in batch.drain(..) {
                out::line(&format!("{} {}", out::faint(&format!("{:<12}", line.server)), line.text));
            }
        }
        let results = reads.join_all().await;
        if results.iter().all(Result::is_err) {
            return Err(site.is_not_up());
        }
        for error in results.into_iter().filter_map(Result::err) {
            out::error(&error.to_string());
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Passes on the lines of one machine until there are no more.
async fn read(
    identity: Identity,
    site: String,
    machine: Machine,
    ask: Ask,
    lines: mpsc::Sender<Line>,
) -> Result<(), ApiError> {
    let mut conversation = call(&identity, &site, &machine.name, machine.agent).await?;
    conversation.ask(&ask).await?;
    while let Answer::Log { server, line: text } = conversation.answer().await? {
        if lines.send(Line { server, text }).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Collects lines until none has come for a moment, within bounds: a log that never pauses is printed all the
/// same. False when there will be no more.
async fn gather(receiver: &mut mpsc::Receiver<Line>, batch: &mut Vec<Line>) -> bool {
    match receiver.recv().await {
        Some(line) => batch.push(line),
        None => return false,
    }
    let end = Instant::now() + LONGEST;
    while batch.len() < BATCH
        && let Ok(Some(line)) =
            tokio::time::timeout_at(end.min(Instant::now() + GATHER), receiver.recv()).await
    {
        batch.push(line);
    }
    true
}

/// The time at the beginning of a line; RFC 3339 in UTC, so that text order is time order.
fn time(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}
