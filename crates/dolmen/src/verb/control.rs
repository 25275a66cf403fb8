//! `dolmen control`: who keeps the machines agreed, `replace` for a voter that died for good, and `recover` for when
//! most of them did, after which the voters that are left `forget`.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use link::api::{Answer, ApiError, Ask, Identity, call};
use link::control::wire::{ControlAnswer, ControlAsk, LISTEN, MembersReport};
use plan::{Role, Server};

use super::{Site, wait};
use crate::failure::Failure;
use crate::out;
use crate::site::Home;

/// How long one control server may take to answer.
const ANSWER: Duration = Duration::from_secs(3);

/// How long a change of the voters may take: the leader itself gives up before.
const REPLACE: Duration = Duration::from_secs(10);

/// How long one may take to begin anew besides: it waits until no lease of before can be in force.
const RECOVER: Duration = Duration::from_secs(75);

#[derive(Debug, clap::Args)]
pub struct Control {
    #[command(subcommand)]
    order: Option<Order>,
}

#[derive(Debug, clap::Subcommand)]
enum Order {
    /// Let another control server vote in the place of one that died for good
    Replace {
        /// The voter that is lost, for example control-2
        old: String,
        /// The one that votes instead; the same one, when it came back with an empty disk
        new: Option<String>,
    },
    /// Begin anew from the state of one voter, when most of the others are lost for good
    Recover {
        /// The voter whose state counts from then on; otherwise the one that knows most of those that answer
        server: Option<String>,
        /// Say that the lost voters will never come back, and that what only they knew may be lost
        #[arg(long)]
        accept_loss: bool,
    },
    /// Let a voter that was left over when another one began anew set its state aside and come back empty
    Forget {
        /// The control server that still has the state of before
        server: String,
    },
}

impl Control {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let site = Site::open(home)?;
        if site.plan.control.is_none() {
            return Err(Failure::mistake(format!(
                "{} runs no database of its own, so no control",
                site.plan.site
            )));
        }
        match self.order {
            None => wait(show(&site)),
            Some(Order::Recover { server, accept_loss }) => {
                server.iter().try_for_each(|server| site.machine_of(server).map(drop))?;
                wait(recover(&site, server, accept_loss))
            }
            Some(Order::Forget { server }) => {
                site.machine_of(&server)?;
                wait(forget(&site, &server))
            }
            Some(Order::Replace { old, new }) => {
                let new = new.unwrap_or_else(|| old.clone());
                [&old, &new].into_iter().try_for_each(|server| site.machine_of(server).map(drop))?;
                wait(replace(&site, old, new))
            }
        }
    }
}

/// Prints each control server as it sees itself. Exit 1 when there is no leader.
async fn show(site: &Site) -> Result<ExitCode, Failure> {
    let mut has_leader = false;
    for server in site.plan.role(Role::Control) {
        let line = match ask(&site.identity, &site.plan.site, server, ControlAsk::Members, ANSWER).await {
            Ok(ControlAnswer::Members(report)) => {
                has_leader |= report.leads();
                of(&report)
            }
            Ok(other) => format!("answered {other:?}"),
            Err(error) => format!("does not answer: {error}"),
        };
        out::line(&format!("  {:<12} {:<8} {line}", server.name, server.machine));
    }
    Ok(if has_leader { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn of(report: &MembersReport) -> String {
    let mine: Vec<bool> =
        report.members.iter().filter(|member| member.server == report.server).map(|m| m.votes).collect();
    let role = match (&report.leader, mine.iter().any(|votes| *votes)) {
        (Some(leader), _) if *leader == report.server => "leads",
        (_, true) => "votes",
        (_, false) if mine.is_empty() => "is no member yet",
        (_, false) => "learns",
    };
    let leader = report.leader.as_deref().unwrap_or("nobody");
    format!(
        "{role:<8} term {}, leader {leader}, log to {}, applied to {}",
        report.term, report.log, report.applied
    )
}

async fn replace(site: &Site, old: String, new: String) -> Result<ExitCode, Failure> {
    let mut last = site.is_not_up();
    // Each of them, since only the leader can; the one that is to be lost at last.
    let (lost, others): (Vec<_>, Vec<_>) =
        site.plan.role(Role::Control).partition(|server| server.name == old);
    for server in others.into_iter().chain(lost) {
        let order = ControlAsk::Replace { old: old.clone(), new: new.clone() };
        match ask(&site.identity, &site.plan.site, server, order, REPLACE).await {
            Ok(ControlAnswer::Done) => {
                out::line(&format!("{new} votes in the place of {old}"));
                return Ok(ExitCode::SUCCESS);
            }
            Ok(ControlAnswer::Unavailable { because, .. }) => last = Failure::failed(because),
            Ok(other) => last = Failure::failed(format!("{} answered {other:?}", server.name)),
            Err(error @ ApiError::Refused(_)) => return Err(Failure::failed(error)),
            Err(error) => last = Failure::failed(format!("{}: {error}", server.name)),
        }
    }
    Err(last)
}

/// Lets one voter begin anew; without the flag only says what that would mean.
async fn recover(site: &Site, server: Option<String>, accept_loss: bool) -> Result<ExitCode, Failure> {
    let server = match server {
        Some(server) => server,
        None => knows_most(site).await?,
    };
    if !accept_loss {
        return Err(Failure::mistake(format!(
            "{server} would begin anew as the only voter, with what it knows. What the lost voters agreed on without \
             it is lost: a failover, a release or a plan of their last moments may be forgotten, and a database \
             server that knows of it then waits for you. If the lost ones ever come back with their old state, there \
             are two controls and may be two primaries: destroy their folders first. A voter that is left besides \
             keeps its state, which counts no more, until `dolmen control forget` is told of it; nothing was changed\n\
             hint: `dolmen control recover {server} --accept-loss` does it"
        )));
    }
    let found = control_server(site, &server)?;
    let others = left_over(site, &server).await;
    out::line("waits until no lease of before can be in force");
    match ask(&site.identity, &site.plan.site, found, ControlAsk::Recover, RECOVER).await {
        Ok(ControlAnswer::Done) => {
            out::line(&format!(
                "{server} begins anew as the only voter; its old state is kept beside it, and the others are taken in \
                 as they come: `dolmen control` shows them"
            ));
            for other in others {
                out::line(&format!(
                    "{other} still has the state of before and cannot come: `dolmen control forget {other}` sets it aside"
                ));
            }
            if site.plan.role(Role::Database).next().is_some() {
                out::line(
                    "the database goes on once all its servers have said what they have; `dolmen status` says whom it \
                     waits for, and what to do if one of them is lost",
                );
            }
            Ok(ExitCode::SUCCESS)
        }
        Ok(other) => Err(Failure::failed(format!("{server} answered {other:?}"))),
        Err(error) => Err(Failure::failed(error)),
    }
}

fn control_server<'a>(site: &'a Site, name: &str) -> Result<&'a Server, Failure> {
    let found = site.plan.role(Role::Control).find(|found| found.name == name);
    found.ok_or_else(|| Failure::mistake(format!("{name} is no control server")))
}

async fn forget(site: &Site, server: &str) -> Result<ExitCode, Failure> {
    let found = control_server(site, server)?;
    match ask(&site.identity, &site.plan.site, found, ControlAsk::Forget, REPLACE).await {
        Ok(ControlAnswer::Done) => {
            out::line(&format!("{server} has set its state aside, comes back empty and is taken in"));
            Ok(ExitCode::SUCCESS)
        }
        Ok(other) => Err(Failure::failed(format!("{server} answered {other:?}"))),
        Err(error) => Err(Failure::failed(error)),
    }
}

/// The others that answer and have a state.
async fn left_over(site: &Site, server: &str) -> Vec<String> {
    let reports = reports(site).await.into_iter().map(|report| report.server);
    reports.filter(|name| name != server).collect()
}

/// Of the control servers that answer and belong to a cluster.
async fn knows_most(site: &Site) -> Result<String, Failure> {
    let voters = reports(site).await.into_iter().filter(MembersReport::votes);
    let most = voters.max_by_key(|report| (report.log_term, report.log));
    let none =
        || Failure::failed("no control server that answers has any state: there is nothing to recover from");
    most.map(|report| report.server).ok_or_else(none)
}

/// What the leader says. One that was replaced may not know it yet.
pub(super) fn leader(reports: &[MembersReport]) -> Option<&MembersReport> {
    reports.iter().filter(|report| report.leads()).max_by_key(|report| report.term)
}

/// The control servers that vote, or may while a change of the members is under way, as the leader has it.
pub(super) async fn voters(site: &Site) -> Result<BTreeSet<String>, Failure> {
    let reports = reports(site).await;
    let none =
        || Failure::failed("control has no leader now, and nothing was changed\nhint: `dolmen control`");
    let report = leader(&reports).ok_or_else(none)?;
    let voters = report.voters.iter().flatten();
    let name = |node: &u64| Some(report.members.iter().find(|member| member.node == *node)?.server.clone());
    Ok(voters.filter_map(name).collect())
}

pub(super) async fn reports(site: &Site) -> Vec<MembersReport> {
    let mut reports = Vec::new();
    for server in site.plan.role(Role::Control) {
        let asked = ask(&site.identity, &site.plan.site, server, ControlAsk::Members, ANSWER).await;
        if let Ok(ControlAnswer::Members(report)) = asked
            && !report.members.is_empty()
        {
            reports.push(report);
        }
    }
    reports
}

/// Asks one control server of this site.
pub(super) async fn ask(
    identity: &Identity,
    site: &str,
    server: &Server,
    ask: ControlAsk,
    within: Duration,
) -> Result<ControlAnswer, ApiError> {
    let unknown = || ApiError::Refused(format!("the plan has no address of {}", server.name));
    let address = server.listens(LISTEN).ok_or_else(unknown)?;
    let answer = async {
        let mut conversation = call(identity, site, &server.machine, address).await?;
        conversation.ask(&Ask::Control(ask)).await?;
        conversation.answer().await
    };
    match tokio::time::timeout(within, answer).await.unwrap_or(Err(ApiError::Slow(address)))? {
        Answer::Control(answer) => Ok(answer),
        other => Err(link::frame::FrameError::Unexpected(format!("{other:?}")).into()),
    }
}
