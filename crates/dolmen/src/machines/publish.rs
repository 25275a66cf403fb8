//! A change of the site on several machines: put where all of them find it, or refused, with nothing half done.
//!
//! The plan is what puts a change in force, by compare-and-swap from the one that the change was made for: of two commands
//! on two machines one is told that the other was faster. What machines need to know comes before it, beside what they
//! need for the plan in force, which stays good. A change is announced before anything is sealed for it, so that in the
//! end what is sealed is that of the change that went through, whenever which of two commands was interrupted.

use std::collections::{BTreeMap, BTreeSet};

use link::Secrets;
use link::api::{Authority, Fingerprint, Identity, Sealed};
use link::control::{ABSENT, ControlError, REVOKED};
use plan::Plan;

use super::agreed::{self, Agreed, AgreedError, Agreement, MACHINES, Machines, Member, PLAN};
use super::desk;
use crate::failure::Failure;
use crate::site::{InForce, State};

/// The site's control, seen from a command.
#[derive(Debug)]
pub struct Publisher {
    agreement: Agreement,
    state: State,
    me: String,
}

impl Publisher {
    pub fn new(state: &State, identity: &Identity, old: &InForce, me: &str) -> Self {
        let agreement = Agreement::new(identity.clone(), &old.plan, me);
        Self { agreement, state: state.clone(), me: me.to_owned() }
    }

    /// Whether the site file here may replace what is in force: it may if that came from here, or if whoever runs
    /// the command has seen it (`over`).
    /// Says the generation that last came from a site file.
    pub async fn may_apply(&self, over: Option<u64>) -> Result<u64, Failure> {
        let (_, agreed) = self.agreed().await?;
        let here = self.state.applied()?;
        may_apply(agreed.applied, &agreed.by, here, over).map_err(Failure::mistake)?;
        Ok(agreed.applied)
    }

    /// Whether control began anew and has forgotten what is in force here.
    pub async fn has_forgotten(&self, old: &InForce) -> Result<bool, Failure> {
        let (_, agreed) = self.agreed().await?;
        Ok(agreed.plan.generation < old.plan.generation)
    }

    /// Puts `new` in the place of `old`, with these secrets.
    pub async fn publish(&self, (old, new): (&InForce, &InForce), secrets: &Secrets) -> Result<(), Failure> {
        let authority = Authority::open(&self.state.authority())?;
        let mut vaults = BTreeMap::new();
        for (machine, member) in self.members(new).await? {
            let version = self.agreement.version(&agreed::vault(&machine)).await.map_err(Failure::failed)?;
            vaults.insert(machine, (member, version));
        }
        let (version, agreed) = self.agreed().await?;
        // An older one is what control began anew with; what is in force here goes on from the later one of both.
        if agreed.plan.generation > old.plan.generation {
            return Err(faster(&agreed, old));
        }
        let files = self.state.releases().digest_of(&new.release)?;
        let next = if agreed.plan.generation == old.plan.generation && is_of_no_file(old, new) {
            Agreed { plan: new.plan.clone(), ..agreed.clone() }
        } else {
            Agreed { applied: new.plan.generation, plan: new.plan.clone(), files, by: self.me.clone() }
        };
        let before = self.state.all_secrets()?;
        let sealing = Sealing {
            agreement: &self.agreement,
            state: &self.state,
            authority: &authority,
            generations: [(&old.plan, &before), (&new.plan, secrets)],
            // The same again, but of a later version: a change that began before this one does not go through any more.
            announced: self.change(&authority, (version, old), &agreed).await?,
        };
        for (machine, (member, version)) in &vaults {
            if !sealing.put(machine, member, *version).await.map_err(Failure::failed)? {
                return Err(self.was_slower(old).await);
            }
        }
        self.change(&authority, (sealing.announced, old), &next).await?;
        for (machine, member) in self.members(new).await? {
            // It joined meanwhile.
            if !vaults.get(&machine).is_some_and(|(known, _)| *known == member) {
                let sealed = sealing.seal(&machine, &member).map_err(Failure::failed)?;
                self.agreement.put_vault(&authority, &machine, &sealed).await.map_err(Failure::failed)?;
            }
        }
        Ok(())
    }

    /// The names of the machines of this plan that have joined, and have not left.
    pub async fn joined(&self, new: &InForce) -> Result<BTreeSet<String>, Failure> {
        Ok(self.members(new).await?.into_keys().collect())
    }

    /// The machines of the plan that have joined, and have not left.
    async fn members(&self, new: &InForce) -> Result<BTreeMap<String, Member>, Failure> {
        let machines = self.agreement.read::<Machines>(MACHINES).await.map_err(Failure::failed)?.1;
        let revoked = self.agreement.read::<Vec<Fingerprint>>(REVOKED).await.map_err(Failure::failed)?.1;
        // An older list may have been put back.
        let revoked = [revoked.unwrap_or_default(), self.state.revoked()?].concat();
        let mut members = machines.unwrap_or_default().machines;
        members.retain(|name, member| new.plan.machine(name).is_some() && !revoked.contains(&member.key));
        Ok(members)
    }

    /// Replaces the plan's record of this version.
    async fn change(
        &self,
        authority: &Authority,
        (version, old): (u64, &InForce),
        next: &Agreed,
    ) -> Result<u64, Failure> {
        match self.agreement.propose(authority, PLAN, version, next).await {
            Err(AgreedError::Control(ControlError::Changed(_))) => Err(self.was_slower(old).await),
            other => other.map_err(|error| {
                Failure::failed(format!("{error}\nhint: `dolmen status` shows which generation is in force"))
            }),
        }
    }

    async fn was_slower(&self, old: &InForce) -> Failure {
        self.agreed().await.map_or_else(|error| error, |(_, agreed)| faster(&agreed, old))
    }

    async fn agreed(&self) -> Result<(u64, Agreed), Failure> {
        let (version, agreed) = self.agreement.read::<Agreed>(PLAN).await.map_err(|error| {
            Failure::failed(format!(
                "{error}; nothing was changed\nhint: a majority of the voters must be reached"
            ))
        })?;
        let agreed = agreed.ok_or_else(|| Failure::failed("the machines have not agreed on a plan yet"))?;
        Ok((version, agreed))
    }
}

/// What all that is sealed for one change has in common.
struct Sealing<'a> {
    agreement: &'a Agreement,
    state: &'a State,
    authority: &'a Authority,
    /// The plan in force and the next, each with its secrets: until the next one is agreed on, both are needed.
    generations: [(&'a Plan, &'a Secrets); 2],
    /// The version of the plan's record by which the change was announced.
    announced: u64,
}

impl Sealing<'_> {
    fn seal(&self, machine: &str, member: &Member) -> Result<Sealed, AgreedError> {
        desk::seal(self.state, &self.generations, machine, &member.sealing_key)
    }

    /// Seals what a machine needs, in the place of a vault of this version, which was read before the change was announced.
    /// False when a later change was announced meanwhile: whatever it has sealed stays.
    async fn put(&self, machine: &str, member: &Member, mut version: u64) -> Result<bool, AgreedError> {
        let (key, sealed) = (agreed::vault(machine), self.seal(machine, member)?);
        loop {
            match self.agreement.propose(self.authority, &key, version, &sealed).await {
                Err(AgreedError::Control(ControlError::Changed(current))) => {
                    version = current.map_or(ABSENT, |record| record.version);
                }
                other => return other.map(|_| true),
            }
            if self.agreement.version(PLAN).await? != self.announced {
                return Ok(false);
            }
        }
    }
}

fn faster(agreed: &Agreed, old: &InForce) -> Failure {
    if agreed.plan.generation <= old.plan.generation {
        return Failure::failed(
            "another change is on its way at this moment; nothing was changed\nhint: try again when it is done",
        );
    }
    Failure::failed(format!(
        "{} has put generation {} in force meanwhile; nothing was changed\nhint: `dolmen plan` shows what is different",
        agreed.by, agreed.plan.generation
    ))
}

/// Whether all that changes is which servers are drained, which stands in no site file.
fn is_of_no_file(old: &InForce, new: &InForce) -> bool {
    let drained = old.plan.drained.clone();
    let undrained = plan::Plan { drained, generation: old.plan.generation, ..new.plan.clone() };
    undrained == old.plan && new.release == old.release
}

/// A site file that was changed on another machine since this one was applied is not overwritten by accident.
fn may_apply(generation: u64, by: &str, applied: Option<u64>, over: Option<u64>) -> Result<(), String> {
    // A later one than is in force: control began anew and has forgotten it.
    if applied.is_some_and(|applied| applied >= generation) || over == Some(generation) {
        return Ok(());
    }
    let here = match applied {
        Some(applied) => format!("the site file here was applied as generation {applied}"),
        None => "no site file was applied from here before".to_owned(),
    };
    Err(format!(
        "{here}, and generation {generation} is in force, from {by}; nothing was changed\n\
         hint: take over what is different (`dolmen plan` shows it), then `dolmen reload --over {generation}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_changed_elsewhere_is_not_overwritten_unseen() {
        assert!(may_apply(4, "alpha", Some(4), None).is_ok());
        assert!(may_apply(4, "alpha", Some(5), None).is_ok(), "control has forgotten it");
        assert!(may_apply(4, "alpha", Some(3), Some(4)).is_ok());
        assert!(may_apply(4, "alpha", None, Some(3)).unwrap_err().starts_with("no site file was applied"));
        let because = may_apply(4, "alpha", Some(3), None).unwrap_err();
        assert!(because.contains("applied as generation 3, and generation 4 is in force, from alpha"));
    }
}
