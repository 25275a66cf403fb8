//! `dolmen leave MACHINE`: a machine belongs to the site no longer: its key is revoked everywhere.

use std::process::ExitCode;
use std::time::Duration;

use link::api::{Authority, Fingerprint, Sealed};
use link::control::{ControlError, REVOKED};
use plan::Role;
use tokio::time::{Instant, sleep};

use super::{Site, wait};
use crate::failure::Failure;
use crate::machines::agreed::{self, AgreedError, Agreement, MACHINES, Machines, Member, Vault};
use crate::out;
use crate::site::Home;

/// How long control may be without a leader, and how soon it is asked again.
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
        if kept {
            out::line(
                "  it kept the authority's key and all secrets: if somebody else may have its disk, begin the site anew",
            );
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
    let (_, machines) = read::<Machines>(&agreement, MACHINES).await?;
    let Some(Member { key, sealing_key }) = machines.unwrap_or_default().machines.remove(machine) else {
        return Err(Failure::mistake(format!("no machine named {machine} has joined {}", site.plan.site)));
    };
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
    let deadline = Instant::now() + PATIENCE;
    loop {
        match agreement.put_vault(&authority, machine, &empty).await {
            Err(error) if will_pass(&error) && Instant::now() < deadline => sleep(AGAIN).await,
            other => return other.map_err(Failure::failed),
        }
    }
}

/// The machine that leaves may have control's leader; the others elect another one.
fn will_pass(error: &AgreedError) -> bool {
    matches!(error, AgreedError::Control(ControlError::Unavailable(_) | ControlError::Unknown(_)))
}

async fn read<T: serde::de::DeserializeOwned>(
    agreement: &Agreement,
    key: &str,
) -> Result<(u64, Option<T>), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match agreement.read(key).await {
            Err(error) if will_pass(&error) && Instant::now() < deadline => sleep(AGAIN).await,
            other => return other.map_err(Failure::failed),
        }
    }
}

/// Changes a record, again when somebody else was faster or nobody knows whether it was changed: once or twice is the
/// same.
async fn change<T: serde::de::DeserializeOwned + serde::Serialize + Default>(
    agreement: &Agreement,
    authority: &Authority,
    key: &str,
    change: impl Fn(&mut T),
) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (version, value) = read::<T>(agreement, key).await?;
        let mut value = value.unwrap_or_default();
        change(&mut value);
        match agreement.propose(authority, key, version, &value).await {
            Err(AgreedError::Control(ControlError::Changed(_))) => {}
            Err(error) if will_pass(&error) && Instant::now() < deadline => sleep(AGAIN).await,
            other => return other.map(drop).map_err(Failure::failed),
        }
    }
}
