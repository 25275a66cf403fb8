//! `dolmen upgrade`: takes the program that lies on disk into use, without the loss of a request or of a connection.
//!
//! First the program on each machine answers for itself; if one of them cannot take over, nothing is changed. Then
//! `up` becomes it, and machine by machine the agent, and each server is succeeded by a process of it, one after
//! another. A step that fails ends it there: what runs goes on, of two builds that understand each other, and the
//! same command goes on where it stopped.

mod steps;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use link::api::{Answer, ApiError, Ask, ProgramReport};
use link::program::Build;
use plan::Machine;
use tokio::time::timeout;

use super::change::Change;
use super::{Site, status, wait};
use crate::failure::Failure;
use crate::out;
use crate::site::Home;
use steps::Steps;

/// How long an agent may take to try out the program on its disk.
const TRIAL: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct Upgrade {
    /// For how many seconds connections that are open may go on in the processes that are replaced
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    drain: u64,
    /// Only try out what lies on disk, and change nothing
    #[arg(long)]
    check: bool,
}

impl Upgrade {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        super::usual_umask();
        // The site is of the plan in force, whatever the site file says by now.
        let change = Change::begin(home)?;
        let (began, drain) = (Instant::now(), Duration::from_secs(self.drain));
        wait(async {
            let trial = Trial::of(&change.site).await?;
            let mut steps = Steps::new(&change.site, &trial, drain, began).await?;
            if steps.is_done() {
                out::line(&format!("everything runs dolmen {} already", trial.build));
                trial.other_command();
                return Ok(ExitCode::SUCCESS);
            }
            out::line(&trial.sentence());
            if self.check {
                out::line("it can take over; nothing was changed");
                return Ok(ExitCode::SUCCESS);
            }
            steps.all().await?;
            out::line(&format!(
                "{} runs dolmen {} after {:.1} s",
                change.site.plan.site,
                trial.build,
                began.elapsed().as_secs_f64()
            ));
            steps.say_who_finishes().await;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// What the machines said of the program on their disks, all of which can take over.
pub(super) struct Trial {
    /// The build that is to run everywhere.
    pub(super) build: Build,
    /// The machines that take part; those that were killed start with what lies on their disk.
    pub(super) machines: Vec<(Machine, ProgramReport)>,
}

impl Trial {
    async fn of(site: &Site) -> Result<Self, Failure> {
        let (mut machines, mut objections) = (Vec::new(), Vec::new());
        for machine in &site.plan.machines {
            if site.state.machine(&machine.name).down_mark().exists() {
                out::line(&format!("  {} was killed; it starts with what lies on its disk", machine.name));
                continue;
            }
            match program(site, machine).await {
                Ok(report) => {
                    if let Err(because) = &report.on_disk {
                        objections.push(format!("{} on {}: {because}", report.path.display(), machine.name));
                    }
                    machines.push((machine.clone(), report));
                }
                Err(error) => {
                    objections.push(format!("the agent of {} does not answer: {error}", machine.name))
                }
            }
        }
        if !objections.is_empty() {
            return Err(Failure::failed(format!(
                "this cannot be taken into use, and nothing was changed:\n  {}\n\
                 hint: put it right on each machine, then `dolmen upgrade` again",
                objections.join("\n  ")
            )));
        }
        let found: Vec<(&Machine, &Build)> = machines
            .iter()
            .filter_map(|(machine, report)| Some((machine, report.on_disk.as_ref().ok()?)))
            .collect();
        let Some(build) = found.first().map(|(_, build)| (*build).clone()) else {
            return Err(site.is_not_up());
        };
        if found.iter().any(|(_, other)| **other != build) {
            let all: Vec<String> =
                found.iter().map(|(machine, build)| format!("{}: {build}", machine.name)).collect();
            return Err(Failure::failed(format!(
                "the machines have different programs on their disks, and nothing was changed:\n  {}\n\
                 hint: put the same one on each of them",
                all.join("\n  ")
            )));
        }
        Ok(Self { build, machines })
    }

    fn sentence(&self) -> String {
        let mut from: Vec<String> =
            self.machines.iter().map(|(_, report)| report.running.to_string()).collect();
        from.dedup();
        format!("from dolmen {} to {}", from.join(", "), self.build)
    }

    /// Somebody who calls another program than the agents have on disk may expect that this one is taken into use.
    fn other_command(&self) {
        let mine = link::program::my_build(env!("CARGO_PKG_VERSION")).ok();
        if let (Some(mine), Some((_, report))) = (mine, self.machines.first())
            && mine != self.build
        {
            let path = report.path.display();
            out::line(&format!("hint: this command is dolmen {mine}; to take it into use put it at {path}"));
        }
    }
}

/// Which program this machine runs, and which lies on its disk.
pub(super) async fn program(site: &Site, machine: &Machine) -> Result<ProgramReport, ApiError> {
    let ask = async {
        let mut conversation = site.agent(machine).await?;
        conversation.ask(&Ask::Program).await?;
        match conversation.answer().await? {
            Answer::Program(report) => Ok(*report),
            other => Err(link::frame::FrameError::Unexpected(format!("{other:?}")).into()),
        }
    };
    timeout(TRIAL, ask).await.unwrap_or(Err(ApiError::Slow(machine.agent)))
}

/// How the site is, as any agent sees it.
async fn look(site: &Site) -> Result<link::report::SiteReport, Failure> {
    Ok(status::ask(site).await?.1)
}
