//! A later plan, on its way from the state folder to the servers of this machine.
//!
//! The state folder says what is in force. The agent compares it with what it goes by whenever it is asked to, and
//! by itself once in a while, so that a command killed between two machines leaves no machine behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use link::api::Answer;

use super::life::Event;
use super::servant::Servant;
use super::{Agent, spawn};
use crate::site::InForce;

/// How often the agent looks by itself whether something else is in force.
const LOOK: Duration = Duration::from_secs(1);

/// How long a server that the plan has no more may take to finish what it has begun.
const GOING_MS: u64 = 30_000;

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
            let obstacles = plan::obstacles_on(&self.machine.name, &self.plan, &new.plan);
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
        self.peers.follow_plan(&self.plan);
        self.around.in_force = new;
        self.take_servers();
        for name in &self.order {
            if let Some(servant) = self.servants.get_mut(name) {
                servant.follow_plan(&self.around);
            }
        }
    }

    /// Of a machine that was taken out and comes back in one step, servers may have other names by now.
    fn take_servers(&mut self) {
        let now_ms = self.now_ms();
        let order: Vec<String> = self.plan.on(&self.machine.name).map(|server| server.name.clone()).collect();
        let before = std::mem::replace(&mut self.order, order);
        for server in self.plan.on(&self.machine.name).filter(|server| !before.contains(&server.name)) {
            let new = || Servant::new(server.clone(), false);
            let servant = self.servants.entry(server.name.clone()).or_insert_with(new);
            servant.step(now_ms, Event::Start, &mut self.around, &mut self.record);
        }
        for name in before.iter().filter(|name| !self.order.contains(name)) {
            let Some(servant) = self.servants.get_mut(name) else { continue };
            tracing::info!("{name} is in the plan no more");
            servant.step(now_ms, Event::Stop { within_ms: GOING_MS }, &mut self.around, &mut self.record);
        }
    }

    /// Forgets the servers that are in the plan no more, once they have ended.
    pub(super) fn let_go(&mut self) {
        self.servants.retain(|name, servant| self.order.contains(name) || !servant.is_over());
    }

    /// Ends what an earlier agent has left of servers that are in the plan no more. They are in nobody's choice by now.
    pub(super) fn end_strays(&mut self) {
        let strays =
            self.record.content().servers.iter().filter(|(name, _)| !self.servants.contains_key(*name));
        let strays: Vec<_> = strays.map(|(name, entry)| (name.clone(), entry.clone())).collect();
        for (name, entry) in strays {
            for process in entry.processes().filter(|process| process.is_alive()) {
                match spawn::watch(process.pid) {
                    Ok(handle) => spawn::kill(&handle),
                    Err(error) => tracing::info!("{name} has just ended: {error}"),
                }
            }
            tracing::warn!("{name} is in the plan no more, and was ended");
            self.record.change(|content| drop(content.servers.remove(&name)));
        }
    }
}
