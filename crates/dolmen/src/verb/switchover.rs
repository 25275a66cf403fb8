//! `dolmen switchover [SERVER]`: makes another database server the primary, and prints each step as it happens.
//!
//! It asks by the record and watches the record; the servers do it. Interrupted, it changes nothing of that.

mod steps;

use std::process::ExitCode;
use std::time::Duration;

use database::failover::lease::Timings;
use database::group::{Command, Group};
use link::report::DatabaseReport;
use tokio::time::{Instant, sleep, timeout_at};

use super::record::{self, GroupRecord};
use super::{Site, status, wait};
use crate::failure::Failure;
use crate::out;
use crate::site::Home;
use steps::{Outcome, outcome, steps};

/// An orderly end takes 2 s at most, an election one lease, a promotion 10 s: after this it hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// How long the last primary may take to follow before the command says that it will later.
const FOLLOWS: Duration = Duration::from_secs(15);

const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub struct Switchover {
    /// The server that becomes the primary; without it, the replica that lacks least
    #[arg(value_name = "SERVER")]
    to: Option<String>,
    /// When the last primary is lost and nobody may be promoted: promote SERVER, and lose what it lacks
    #[arg(long, requires = "to")]
    force: bool,
}

impl Switchover {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let site = Site::open(home)?;
        if record::servers(&site)?.len() == 1 {
            return Err(Failure::mistake(format!(
                "{} has one database server, so nobody to switch to\nhint: name a second machine in [database] on",
                site.plan.site
            )));
        }
        if let Some(name) = &self.to {
            record::server(&site, name)?;
        }
        wait(self.switch(&site))
    }

    async fn switch(&self, site: &Site) -> Result<ExitCode, Failure> {
        let record = GroupRecord::of(site).await?;
        let (command, what) = self.order(&record).await?;
        let steps = Steps { began: Instant::now(), to: self.to.as_deref() };
        let mut seen = record.watch();
        let (version, asked) = record.change(&what, &command).await?;
        steps.say(&format!("asked {} to hand over to {}", asked.holder, steps.heir()));
        let mut last = asked.clone();
        let until = steps.began + LIMIT;
        loop {
            let changed = timeout_at(until, seen.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return Err(hangs(&last));
            }
            let Some(now) = seen.borrow_and_update().clone() else { continue };
            if now.record.version < version {
                continue;
            }
            let now = record::group(&now.record)?;
            for step in self::steps(&last, &now) {
                steps.say(&step);
            }
            last = now;
            match outcome(&asked, steps.to, &last) {
                Outcome::UnderWay => {}
                Outcome::Done => break,
                Outcome::Refused(because) => return Err(refused(site, &because).await),
                Outcome::Otherwise(because) => return Err(Failure::failed(because)),
            }
        }
        steps.say(&follows(site, &asked.holder, &last.holder).await);
        Ok(ExitCode::SUCCESS)
    }

    /// What to ask for, and how that is called in a refusal.
    async fn order(&self, record: &GroupRecord) -> Result<(Command, String), Failure> {
        let Some(server) = self.to.clone() else {
            return Ok((Command::AskHandover { to: None }, "switch over".into()));
        };
        if !self.force {
            let what = format!("switch over to {server}");
            return Ok((Command::AskHandover { to: Some(server) }, what));
        }
        nobody_holds(record, &server).await?;
        Ok((Command::ForceTakeOver { server: server.clone() }, format!("force {server} to be the primary")))
    }
}

/// Whoever forces a server on a site whose primary lives would only take a replica away from it.
async fn nobody_holds(record: &GroupRecord, server: &str) -> Result<(), Failure> {
    let (_, before) = record.read().await?;
    if !before.is_released() {
        let patience = Timings::new(before.lease()).patience();
        let holder = &before.holder;
        out::line(&format!("watching for {:.1} s whether {holder} renews its lease", patience.as_secs_f32()));
        sleep(patience).await;
        let (_, after) = record.read().await?;
        if (after.epoch, after.seq) != (before.epoch, before.seq) {
            return Err(Failure::failed(format!(
                "{} is the primary and renews its lease; nothing was changed\n\
                 hint: `dolmen switchover {server}` hands over without losing anything",
                after.holder
            )));
        }
    }
    let written = before.written.map_or_else(|| "an unknown place".into(), |lsn| lsn.to_string());
    out::line(&format!(
        "forcing {server}: whatever {} wrote that {server} lacks, up to {written}, is lost",
        before.holder
    ));
    Ok(())
}

/// Prints lines with the time since the order.
struct Steps<'a> {
    began: Instant,
    to: Option<&'a str>,
}

impl Steps<'_> {
    fn say(&self, step: &str) {
        out::line(&format!("{:>8.3} s  {step}", self.began.elapsed().as_secs_f64()));
    }

    fn heir(&self) -> &str {
        self.to.unwrap_or("the replica that lacks least")
    }
}

fn hangs(last: &Group) -> Failure {
    let ordered = if last.force.is_some() || last.handover.is_some() { "; the order stands" } else { "" };
    Failure::failed(format!(
        "the switchover is not done after {} s: epoch {} of {}{ordered}\n\
         hint: `dolmen status` says what each server waits for",
        LIMIT.as_secs(),
        last.epoch,
        last.holder
    ))
}

/// Why the primary would not, and how its replicas are.
async fn refused(site: &Site, because: &str) -> Failure {
    let replicas = match status::ask(site).await {
        Ok((_, report)) => report.servers().filter_map(|server| server.database.clone()).collect(),
        Err(_) => Vec::new(),
    };
    let primary = replicas.into_iter().find(|database: &DatabaseReport| database.primary);
    let replicas = primary.into_iter().flat_map(|database| database.replicas);
    let lines = replicas.map(|replica| {
        format!("\n  {} is {}, {} bytes behind", replica.name, replica.state, replica.lag_bytes)
    });
    Failure::failed(format!("{because}; nothing was changed{}", lines.collect::<String>()))
}

/// Waits until the last primary follows the new one.
async fn follows(site: &Site, old: &str, new: &str) -> String {
    let until = Instant::now() + FOLLOWS;
    let mut because = "nothing is known of it".to_owned();
    while Instant::now() < until {
        if let Ok((_, report)) = status::ask(site).await
            && let Some(server) = report.server(old)
        {
            because.clone_from(&server.because);
            if server.database.as_ref().is_some_and(|database| database.streaming && !database.primary) {
                return format!("{old} follows {new}");
            }
        }
        sleep(LOOK).await;
    }
    format!("{old} does not follow {new} yet ({because}); `dolmen status` shows when it does")
}
