//! A later plan, on its way from the state folder to the servers of this machine.
//!
//! The state folder says what is in force. The agent compares it with what it goes by whenever it is asked to, and
//! by itself once in a while, so that a command killed between two machines leaves no machine behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use link::api::Answer;

use super::Agent;
use crate::site::InForce;

/// How often the agent looks by itself whether something else is in force.
const LOOK: Duration = Duration::from_secs(1);

/// When `plan.json` was looked at, and what it was then.
#[derive(Debug, Default)]
pub(super) struct Looked {
    at: Option<Instant>,
    stamp: Option<(u64, i64, i64)>,
}

impl Agent {
    /// Looks once in a while; what is wrong with the file is said once for each version of it.
    pub(super) fn look_for_changes(&mut self) {
        if self.looked.at.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        self.looked.at = Some(Instant::now());
        let stamp = self.around.stamp().ok();
        if stamp.is_some() && self.looked.stamp != stamp {
            self.looked.stamp = stamp;
            if let Err(because) = self.catch_up() {
                tracing::error!("{because}");
            }
        }
    }

    /// The answer to one who wants this generation, or a later one, carried out.
    pub(super) fn reload(&mut self, generation: u64) -> Answer {
        match self.catch_up() {
            Ok(reached) if reached >= generation => Answer::Done,
            Ok(reached) => {
                let because = format!("in force is generation {reached}, and not {generation}");
                Answer::Refused { because }
            }
            Err(because) => Answer::Refused { because },
        }
    }

    /// Carries out what is in force, if that is later than what this agent goes by.
    pub(super) fn catch_up(&mut self) -> Result<u64, String> {
        let new = self.around.read_in_force().map_err(|error| error.to_string())?;
        if new.plan.generation > self.plan.generation {
            let obstacles = plan::obstacles(&self.plan, &new.plan);
            if !obstacles.is_empty() {
                return Err(format!("cannot follow the plan while servers run: {}", obstacles.join("; ")));
            }
            self.take_on(new);
        }
        Ok(self.plan.generation)
    }

    fn take_on(&mut self, new: InForce) {
        tracing::info!("going by generation {}", new.plan.generation);
        self.plan = Arc::new(new.plan.clone());
        self.plans.send_replace(Arc::clone(&self.plan));
        self.around.in_force = new;
        for name in &self.order {
            if let Some(servant) = self.servants.get_mut(name) {
                servant.follow_plan(&self.around);
            }
        }
    }
}
