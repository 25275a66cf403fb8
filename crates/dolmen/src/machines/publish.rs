//! A change of the site on several machines: put where all of them find it, or refused, with nothing half done.
//!
//! What machines need to know comes first, then the plan, by compare-and-swap from the one that the change was
//! made for: of two commands on two machines one is told that the other was faster. The plan is what puts a
//! change in force; secrets that nobody's plan asks for yet do no harm.

use link::api::Identity;
use link::control::{Client, ControlError};

use super::agreed::{self, Agreed, AgreedError, MACHINES, Machines, PLAN};
use super::desk;
use crate::failure::Failure;
use crate::site::{InForce, State};

/// The site's control, seen from a command.
#[derive(Debug)]
pub struct Publisher {
    client: Client,
    state: State,
    me: String,
}

impl Publisher {
    pub fn new(state: &State, identity: &Identity, old: &InForce, me: &str) -> Self {
        let client = Client::new(identity.clone(), &old.plan, me);
        Self { client, state: state.clone(), me: me.to_owned() }
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

    /// Puts `new` in the place of `old`.
    pub async fn publish(&self, old: &InForce, new: &InForce) -> Result<(), Failure> {
        let (version, agreed) = self.agreed().await?;
        // An older one is what control began anew with; what is in force here goes on from the later one of both.
        if agreed.plan.generation > old.plan.generation {
            return Err(faster(&agreed));
        }
        let (_, machines) =
            agreed::read::<Machines>(&self.client, MACHINES).await.map_err(Failure::failed)?;
        for (machine, member) in machines.unwrap_or_default().machines {
            if new.plan.machine(&machine).is_some() {
                let sealed = desk::seal(&self.state, &new.plan, &machine, &member.sealing_key);
                let sealed = sealed.map_err(Failure::failed)?;
                agreed::put_vault(&self.client, &machine, &sealed).await.map_err(Failure::failed)?;
            }
        }
        let files = self.state.releases().digest_of(&new.release)?;
        let next = if agreed.plan.generation == old.plan.generation && is_of_no_file(old, new) {
            Agreed { plan: new.plan.clone(), ..agreed }
        } else {
            Agreed { applied: new.plan.generation, plan: new.plan.clone(), files, by: self.me.clone() }
        };
        match agreed::propose(&self.client, PLAN, version, &next).await {
            Ok(_) => Ok(()),
            Err(AgreedError::Control(ControlError::Changed(_))) => Err(faster(&self.agreed().await?.1)),
            Err(error) => Err(Failure::failed(format!(
                "{error}\nhint: `dolmen status` shows which generation is in force"
            ))),
        }
    }

    async fn agreed(&self) -> Result<(u64, Agreed), Failure> {
        let (version, agreed) = agreed::read::<Agreed>(&self.client, PLAN).await.map_err(|error| {
            Failure::failed(format!(
                "{error}; nothing was changed\nhint: a majority of the voters must be reached"
            ))
        })?;
        let agreed = agreed.ok_or_else(|| Failure::failed("the machines have not agreed on a plan yet"))?;
        Ok((version, agreed))
    }
}

fn faster(agreed: &Agreed) -> Failure {
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
