//! The steps of an upgrade, one after another, each with its time; and what is waited for between them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use link::api::{ApiError, Ask};
use link::disk;
use link::program;
use link::report::{ServerReport, SiteReport};
use plan::{Machine, Role};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{sleep, timeout};

use super::{Trial, look};
use crate::agent::record::Process;
use crate::failure::Failure;
use crate::out;
use crate::up::progress::{is_as_wanted, is_synchronous, waits_for_nobody};
use crate::up::stop;
use crate::verb::Site;

/// How long `up` or an agent may take to become another program.
const BECOME: Duration = Duration::from_secs(30);

/// How long a server may take beyond the time that its successor has.
const BEYOND: Duration = Duration::from_secs(60);

/// How long the site may take to be as well as it was, before the next step.
const SETTLE: Duration = Duration::from_secs(120);

const RETRY: Duration = Duration::from_millis(50);

/// The order on each machine: in the order of a request, but for the gates: the new workers of the application keep
/// their connections, and those are to lead to the process that stays. Then what all of them stand on.
const ROLES: [Role; 8] = [
    Role::Dns,
    Role::Balancer,
    Role::Web,
    Role::Gate,
    Role::App,
    Role::Monitor,
    Role::Control,
    Role::Database,
];

pub(super) struct Steps<'a> {
    site: &'a Site,
    trial: &'a Trial,
    drain: Duration,
    began: Instant,
    /// The servers that were not well before the first step: an upgrade may be what they need.
    ailing: BTreeSet<String>,
    report: SiteReport,
}

impl<'a> Steps<'a> {
    pub(super) async fn new(
        site: &'a Site,
        trial: &'a Trial,
        drain: Duration,
        began: Instant,
    ) -> Result<Self, Failure> {
        let report = look(site).await?;
        let ailing = report.servers().filter(|server| !is_as_wanted(&site.plan, server));
        let ailing = ailing.map(|server| server.name.clone()).collect();
        Ok(Self { site, trial, drain, began, ailing, report })
    }

    /// Whether nothing runs another build than the one on disk.
    pub(super) fn is_done(&self) -> bool {
        let agents = self.trial.machines.iter().all(|(_, report)| report.running == self.trial.build);
        agents && !self.report.servers().any(|server| server.other_build) && self.up().is_none()
    }

    pub(super) async fn all(&mut self) -> Result<(), Failure> {
        self.renew_up().await?;
        for (machine, program) in self.in_order() {
            if program.running != self.trial.build {
                self.renew_agent(&machine).await?;
            }
            self.settle(&machine.name).await?;
            for server in self.on(&machine.name) {
                self.succeed(&machine, &server).await?;
            }
        }
        Ok(())
    }

    /// The machine of the primary comes last: a step that fails there has left the others done.
    fn in_order(&self) -> Vec<(Machine, link::api::ProgramReport)> {
        let primary =
            self.report.servers().find(|server| is_primary(server)).map(|server| server.machine.clone());
        let mut machines = self.trial.machines.clone();
        machines.sort_by_key(|(machine, _)| Some(&machine.name) == primary.as_ref());
        machines
    }

    /// The servers of this machine that run another build than its agent, in the order in which they are replaced.
    fn on(&self, machine: &str) -> Vec<ServerReport> {
        let here = self.report.servers().filter(|server| server.machine == machine && server.other_build);
        let mut servers: Vec<ServerReport> = here.cloned().collect();
        servers
            .sort_by_key(|server| (ROLES.iter().position(|role| *role == server.role), is_primary(server)));
        servers
    }

    /// The process of `up`, while it runs another program than the one on disk.
    fn up(&self) -> Option<Process> {
        let path = &self.trial.machines.first()?.1.path;
        let process: Process = disk::read_json(&self.site.state.up_record()).ok()??;
        let other = program::of(process.pid).ok()? != program::at(path).ok()?;
        (process.is_alive() && other).then_some(process)
    }

    async fn renew_up(&self) -> Result<(), Failure> {
        let Some(process) = self.up() else { return Ok(()) };
        let since = Instant::now();
        let order = || {
            let pid = Pid::from_raw(process.pid.cast_signed()).ok_or(std::io::ErrorKind::NotFound)?;
            let up = pidfd_open(pid, PidfdFlags::empty())?;
            Ok::<_, std::io::Error>(pidfd_send_signal(&up, Signal::USR2)?)
        };
        order().map_err(|error| self.stands("up", &format!("it takes no order: {error}")))?;
        while self.up().is_some() {
            if since.elapsed() > BECOME {
                return Err(self.stands("up", "it does not become the new program; what it prints says why"));
            }
            sleep(RETRY).await;
        }
        self.say("up", "", &format!("process {} goes on as the new program", process.pid));
        Ok(())
    }

    async fn renew_agent(&self, machine: &Machine) -> Result<(), Failure> {
        let since = Instant::now();
        let what = format!("agent {}", machine.name);
        let ask = Ask::Become { id: self.trial.build.id.clone() };
        let order = stop::order(&self.site.identity, &self.site.plan.site, machine, &ask);
        match timeout(BECOME, order).await {
            Ok(Err(ApiError::Refused(because))) => return Err(self.stands(&what, &because)),
            Ok(Ok(())) => return Err(self.stands(&what, "it answers in an unknown way")),
            // The connection ends with the program.
            Ok(Err(_)) => {}
            Err(_) => return Err(self.stands(&what, "it does not answer")),
        }
        loop {
            match super::program(self.site, machine).await {
                Ok(program) if program.running == self.trial.build => break,
                Ok(_) | Err(_) if since.elapsed() < BECOME => sleep(RETRY).await,
                Ok(_) => return Err(self.stands(&what, "it still runs the earlier program; see its log")),
                Err(error) => return Err(self.stands(&what, &format!("it has not come back: {error}"))),
            }
        }
        let servers = self.site.plan.on(&machine.name).count();
        self.say(&what, &machine.name, &format!("goes on as the new program, with its {servers} servers"));
        Ok(())
    }

    async fn succeed(&mut self, machine: &Machine, server: &ServerReport) -> Result<(), Failure> {
        let (since, name) = (Instant::now(), &server.name);
        let ask = Ask::Succeed { server: name.clone(), drain_ms: self.drain.as_millis() as u64 };
        let worker = self.site.plan.app.as_ref().map_or(0, |app| app.start_ms);
        let limit = BEYOND + Duration::from_millis(worker);
        match timeout(limit, stop::order(&self.site.identity, &self.site.plan.site, machine, &ask)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.stands(name, &error.to_string())),
            Err(_) => return Err(self.stands(name, "its agent does not answer")),
        }
        loop {
            self.report = look(self.site).await?;
            let now = self.report.server(name).filter(|now| now.pid.is_some());
            if now.is_some_and(|now| !now.other_build) {
                break;
            }
            if since.elapsed() > limit {
                return Err(
                    self.stands(name, "its process is still that of the earlier program; see its log")
                );
            }
            sleep(RETRY).await;
        }
        self.settle(name).await?;
        let pid = |report: Option<&ServerReport>| report.and_then(|report| report.pid).unwrap_or_default();
        let (old, new) = (pid(Some(server)), pid(self.report.server(name)));
        let what = match server.role {
            Role::Database => format!("process {new} goes on as the new program; postgres was not touched"),
            _ if self.report.server(name).is_some_and(|now| now.finishing.contains(&old)) => {
                format!("process {new} serves; {old} finishes what it began")
            }
            _ => format!("process {new} serves in the place of {old}"),
        };
        self.say(name, &machine.name, &what);
        Ok(())
    }

    /// Waits until all that was well before the first step is well.
    async fn settle(&mut self, what: &str) -> Result<(), Failure> {
        let since = Instant::now();
        loop {
            self.report = look(self.site).await?;
            let plan = &self.site.plan;
            let wrong = self
                .report
                .servers()
                .find(|server| !is_as_wanted(plan, server) && !self.ailing.contains(&server.name));
            let wrong =
                wrong.map(|server| format!("{} is {}: {}", server.name, server.state, server.because));
            let alone =
                || waits_for_nobody(is_synchronous(plan) && self.ailing.is_empty(), &self.report.machines);
            let Some(wrong) = wrong.or_else(alone) else { return Ok(()) };
            if since.elapsed() > SETTLE {
                return Err(self.stands(what, &format!("after it {wrong}")));
            }
            sleep(RETRY).await;
        }
    }

    /// Where an upgrade that does not go on stands.
    fn stands(&self, what: &str, because: &str) -> Failure {
        let left: Vec<&str> = self
            .report
            .servers()
            .filter(|server| server.other_build)
            .map(|server| server.name.as_str())
            .collect();
        let left = if left.is_empty() {
            String::new()
        } else {
            format!("still to be replaced: {}\n", left.join(", "))
        };
        Failure::failed(format!(
            "{what}: {because}\nthe upgrade stops here; all that runs goes on\n{left}\
             hint: `dolmen status` shows how the site is; `dolmen upgrade` goes on from here, and with the earlier \
             program put back in its place it goes back"
        ))
    }

    fn say(&self, what: &str, machine: &str, did: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        out::line(&format!("  {seconds:>6.2} s  {what:<12} {machine:<8} {did}"));
    }

    /// The processes of the earlier program that are at work.
    pub(super) async fn say_who_finishes(&self) {
        let Ok(report) = look(self.site).await else { return };
        for server in report.servers().filter(|server| !server.finishing.is_empty()) {
            let pids: Vec<String> = server.finishing.iter().map(u32::to_string).collect();
            let minutes = self.drain.as_secs().div_ceil(60);
            out::line(&format!(
                "  {} finishes what it began in process {}, within {minutes} min",
                server.name,
                pids.join(", ")
            ));
        }
    }
}

fn is_primary(server: &ServerReport) -> bool {
    server.database.as_ref().is_some_and(|database| database.primary)
}
