//! `dolmen logs [-f] [SERVER]`: the logs of all servers, merged by time.

use std::process::ExitCode;
use std::time::Duration;

use link::api::{Answer, Ask};
use plan::Machine;
use tokio::sync::mpsc;

use super::{Site, wait};
use crate::failure::Failure;
use crate::out;
use crate::site::Home;

/// Lines that wait to be printed.
const QUEUE: usize = 1024;

/// Lines from different machines that arrive within this time are put in order.
const GATHER: Duration = Duration::from_millis(250);

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
        let reads = machines.iter().map(|machine| self.read(site, machine, sender.clone()));
        let mut reached = Vec::new();
        for read in reads {
            reached.push(read);
        }
        drop(sender);
        let print = async {
            let mut batch = Vec::new();
            while gather(&mut receiver, &mut batch).await {
                batch.sort_by(|a: &Line, b: &Line| time(&a.text).cmp(time(&b.text)));
                for line in batch.drain(..) {
                    out::line(&format!("{} {}", out::faint(&format!("{:<12}", line.server)), line.text));
                }
            }
        };
        let (results, ()) = tokio::join!(all(reached), print);
        if results.iter().all(Result::is_err) {
            return Err(site.is_not_up());
        }
        for error in results.into_iter().filter_map(Result::err) {
            out::error(&error.to_string());
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn read(
        &self,
        site: &Site,
        machine: &Machine,
        lines: mpsc::Sender<Line>,
    ) -> Result<(), link::api::ApiError> {
        let mut conversation = site.agent(machine).await?;
        let ask = Ask::Logs { server: self.server.clone(), lines: self.lines, follow: self.follow };
        conversation.ask(&ask).await?;
        while let Answer::Log { server, line: text } = conversation.answer().await? {
            if lines.send(Line { server, text }).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Waits for all at once. A handful of machines: no need for a library of combinators.
async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, output) in futures.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(value) => *output = Some(value),
                std::task::Poll::Pending => pending = true,
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

/// Collects lines until none has come for a moment. False when there will be no more.
async fn gather(receiver: &mut mpsc::Receiver<Line>, batch: &mut Vec<Line>) -> bool {
    match receiver.recv().await {
        Some(line) => batch.push(line),
        None => return false,
    }
    while let Ok(Some(line)) = tokio::time::timeout(GATHER, receiver.recv()).await {
        batch.push(line);
    }
    true
}

/// The time at the beginning of a line; RFC 3339 in UTC, so that text order is time order.
fn time(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}
