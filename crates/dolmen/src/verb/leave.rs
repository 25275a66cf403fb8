//! `dolmen leave MACHINE`: a machine belongs to the site no longer: its key is revoked everywhere.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use link::api::{Authority, Fingerprint, Sealed};
use link::control::wire::MembersReport;
use link::control::{ControlError, REVOKED};
use plan::Role;
use tokio::time::{Instant, sleep};

use super::control::{leader, reports};
use super::{Site, wait};
use crate::failure::Failure;
use crate::machines::agreed::{self, AgreedError, Agreement, MACHINES, Machines, Member, Vault};
use crate::out;
use crate::site::Home;

/// How long control may be without a leader or a majority, and how soon it is asked again.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub struct Leave {
    /// The machine, which was lost or is to be another computer
    machine: String,
}

impl Leave {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let site = Site::open(home)?;
        let machine = &self.machine;
        let Some(here) = site.here() else {
            return Err(Failure::mistake("on `up` all machines are this computer, and none can leave"));
        };
        if here.name == *machine {
            return Err(Failure::mistake(format!(
                "{machine} cannot send itself away\nhint: `dolmen leave {machine}` on another machine does it"
            )));
        }
        if !site.is_operator() {
            return Err(Failure::failed(format!("{} only looks; leave on a machine that votes", here.name)));
        }
        let kept = agreed::is_keeper(&site.plan, machine);
        wait(leave(&site, machine))?;
        out::line(&format!("{machine} has left {}: no machine listens to it any more", site.plan.site));
        let danger = "it kept the authority's key and all secrets: if somebody else may have its disk, begin the site anew";
        if site.plan.machine(machine).is_none() {
            out::line(&format!("  if it ever voted, {danger}"));
            out::line("  what runs on it goes on until it is switched off");
            return Ok(ExitCode::SUCCESS);
        }
        if kept {
            out::line(&format!("  {danger}"));
        }
        out::line("  it is still in the site file; what runs on it goes on until it is switched off");
        out::line(&format!("  `dolmen token {machine}` lets another computer take its place"));
        Ok(ExitCode::SUCCESS)
    }
}

/// Its key is revoked first, so that a command that is killed in between has at least done that.
async fn leave(site: &Site, machine: &str) -> Result<(), Failure> {
    // Its own control server may lead, until the others have heard of this and elect another.
    let everybody = Agreement::new(site.identity.clone(), &site.plan, "");
    // Afterwards it is not asked: what was told to it alone changes nothing.
    let mut plan = site.plan.clone();
    plan.servers.retain(|server| server.role != Role::Control || server.machine != machine);
    let authority = Authority::open(&site.state.authority())?;
    let agreement = Agreement::new(site.identity.clone(), &plan, "");
    let (_, machines) = patiently(async || agreement.read::<Machines>(MACHINES).await).await?;
    let Some(Member { key, sealing_key }) = machines.unwrap_or_default().machines.remove(machine) else {
        return Err(Failure::mistake(format!("no machine named {machine} has joined {}", site.plan.site)));
    };
    may_leave(site, machine).await?;
    change::<Vec<Fingerprint>>(&everybody, &authority, REVOKED, |revoked| {
        if !revoked.contains(&key) {
            revoked.push(key);
        }
    })
    .await?;
    change::<Machines>(&agreement, &authority, MACHINES, |machines| {
        machines.machines.remove(machine);
    })
    .await?;
    let purpose = agreed::purpose(&site.plan.site, machine);
    let empty = Sealed::new(&sealing_key, &purpose, &Vault::default()).map_err(Failure::failed)?;
    patiently(async || agreement.put_vault(&authority, machine, &empty).await).await
}

/// Waits until control can do without this machine: on a site that has just got its third machine, the first may still
/// be the only one that votes, and nobody could elect another leader once its key is worth nothing.
async fn may_leave(site: &Site, machine: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reports = reports(site).await;
        let stays = |report: &&MembersReport| {
            site.plan.server(&report.server).is_some_and(|server| server.machine != machine)
        };
        let staying: BTreeSet<u64> = reports.iter().filter(stays).map(|report| report.node).collect();
        let Some(because) = keeps(&reports, &staying) else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(Failure::failed(format!(
                "{machine} cannot leave now: {because}\nhint: `dolmen control` shows who votes and who answers"
            )));
        }
        sleep(AGAIN).await;
    }
}

/// Why control would have no majority when only these of its nodes are left.
fn keeps(reports: &[MembersReport], staying: &BTreeSet<u64>) -> Option<String> {
    let Some(leader) = leader(reports) else { return Some("control has no leader".into()) };
    let short = |voters: &&BTreeSet<u64>| staying.intersection(voters).count() <= voters.len() / 2;
    let voters = leader.voters.iter().find(short)?;
    let left = staying.intersection(voters).count();
    Some(format!("control would be without a majority: {left} of {} voters would be left", voters.len()))
}

/// Tries again while control is without a leader, or somebody else was faster. The machine that leaves may have the
/// leader; the others elect another one.
async fn patiently<T>(mut attempt: impl AsyncFnMut() -> Result<T, AgreedError>) -> Result<T, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Err(AgreedError::Control(
                ControlError::Unavailable(_) | ControlError::Unknown(_) | ControlError::Changed(_),
            )) if Instant::now() < deadline => sleep(AGAIN).await,
            other => return other.map_err(Failure::failed),
        }
    }
}

/// Changes a record, again when nobody knows whether it was changed: once or twice is the same.
async fn change<T: serde::de::DeserializeOwned + serde::Serialize + Default>(
    agreement: &Agreement,
    authority: &Authority,
    key: &str,
    change: impl Fn(&mut T),
) -> Result<(), Failure> {
    patiently(async || {
        let (version, value) = agreement.read::<T>(key).await?;
        let mut value = value.unwrap_or_default();
        change(&mut value);
        agreement.propose(authority, key, version, &value).await.map(drop)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(node: u64, leads: bool, voters: &[&[u64]]) -> MembersReport {
        let server = format!("control-{node}");
        MembersReport {
            leader: leads.then(|| server.clone()),
            server,
            node,
            term: 1,
            log: 9,
            log_term: 1,
            applied: 9,
            members: Vec::new(),
            voters: voters.iter().map(|voters| voters.iter().copied().collect()).collect(),
        }
    }

    #[test]
    fn a_machine_that_control_needs_may_not_leave() {
        let of = |voters: &[&[u64]], staying: &[u64]| {
            keeps(&[report(1, true, voters), report(2, false, voters)], &staying.iter().copied().collect())
        };
        assert_eq!(of(&[&[1, 2, 3]], &[2, 3]), None);
        let one = "control would be without a majority: 1 of 3 voters would be left";
        assert_eq!(of(&[&[1, 2, 3]], &[2]).as_deref(), Some(one), "the third one does not answer");
        let none = "control would be without a majority: 0 of 1 voters would be left";
        assert_eq!(of(&[&[1]], &[2, 3]).as_deref(), Some(none), "the others only learn");
        assert_eq!(of(&[&[1], &[1, 2, 3]], &[2, 3]).as_deref(), Some(none), "the change has not ended");
        assert_eq!(keeps(&[], &[2, 3].into()).as_deref(), Some("control has no leader"));
    }
}
