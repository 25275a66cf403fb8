//! `dolmen database reinit SERVER`: a replica is copied anew from the primary; its old data is set aside.

use std::process::ExitCode;
use std::time::Duration;

use database::group::{Command, Group, Mode};
use link::report::{ServerReport, State};
use tokio::time::{Instant, sleep};

use crate::failure::Failure;
use crate::out;
use crate::site::Home;
use crate::verb::record::{self, GroupRecord};
use crate::verb::{Site, status, wait};

/// When neither the record nor the server's sentence changes for this long, nothing comes of it by watching.
const STILL: Duration = Duration::from_secs(120);

const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub struct Reinit {
    /// A replica, for example database-2
    #[arg(value_name = "SERVER")]
    server: String,
}

impl Reinit {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let site = Site::open(home)?;
        record::server(&site, &self.server)?;
        wait(self.copy(&site))
    }

    async fn copy(&self, site: &Site) -> Result<ExitCode, Failure> {
        let record = GroupRecord::of(site).await?;
        let (_, group) = record.read().await?;
        self.check(&group, report(site, &self.server).await?.as_ref())?;
        let command = Command::Reinit { server: self.server.clone() };
        record.change(&format!("copy {} anew", self.server), &command).await?;
        let began = Instant::now();
        let say = |text: &str| out::line(&format!("{:>7.1} s  {text}", began.elapsed().as_secs_f64()));
        say(&format!("asked {} to copy {}", self.server, group.holder));
        let (mut told, mut changed, mut copied) = (String::new(), Instant::now(), false);
        while changed.elapsed() < STILL {
            sleep(LOOK).await;
            copied = copied || !record.read().await?.1.reinit.contains(&self.server);
            let Some(server) = report(site, &self.server).await? else { continue };
            if copied && streams(&server) {
                say(&format!("{} is a new copy, and streams", self.server));
                return Ok(ExitCode::SUCCESS);
            }
            if server.because != told && server.state != State::Healthy {
                say(&server.because);
                changed = Instant::now();
                told = server.because;
            }
        }
        Err(Failure::failed(format!(
            "{} has not said anything new for {} s ({told}); the order stands\nhint: `dolmen status`",
            self.server,
            STILL.as_secs()
        )))
    }

    /// Why it would not be carried out, or not be wise.
    fn check(&self, group: &Group, report: Option<&ServerReport>) -> Result<(), Failure> {
        let server = &self.server;
        let members = &group.synchronous.members;
        let only = group.synchronous.mode == Mode::Strict && members.len() == 1 && members.contains(server);
        let because = if group.paused {
            "the group is paused: `dolmen database resume` ends that".to_owned()
        } else if report.is_none_or(|report| report.pid.is_none()) {
            format!("it does not run; `dolmen start {server}` brings back what was killed")
        } else if only {
            "it is the only replica that commits wait for (synchronous = \"strict\")".to_owned()
        } else {
            return Ok(());
        };
        Err(Failure::failed(format!("cannot copy {server} anew: {because}; nothing was changed")))
    }
}

async fn report(site: &Site, server: &str) -> Result<Option<ServerReport>, Failure> {
    Ok(status::ask(site).await?.1.server(server).cloned())
}

fn streams(server: &ServerReport) -> bool {
    server.state == State::Healthy && server.database.as_ref().is_some_and(|database| database.streaming)
}
