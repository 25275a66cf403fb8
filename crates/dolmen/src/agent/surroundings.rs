//! What all servers of an agent have in common: the plan in force, the folders, the board, and the way to the loop.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use link::Secrets;
use link::agent_end::Given;
use link::api::{Delegate, Identity};
use link::board::Board;
use plan::{Place, Role};
use tokio::sync::mpsc;

use super::{Happening, spawn};
use crate::site::{self, Account, InForce, MachineFolder, StateError};

/// What all servants of an agent share.
pub struct Surroundings {
    pub in_force: InForce,
    pub(super) folder: MachineFolder,
    state: site::State,
    /// The ready workers of this machine's app server; made when the first server needs it.
    pub(super) board: Option<Board>,
    sender: mpsc::Sender<Happening>,
    processes: u64,
}

impl Surroundings {
    pub fn new(
        state: &site::State,
        folder: &MachineFolder,
        in_force: InForce,
        sender: mpsc::Sender<Happening>,
    ) -> Self {
        Self { in_force, folder: folder.clone(), state: state.clone(), board: None, sender, processes: 0 }
    }

    /// The board, for the two roles that share it on a machine with an app server.
    pub(super) fn board(&mut self, role: Role) -> std::io::Result<Option<&Board>> {
        if !matches!(role, Role::App | Role::Web) {
            return Ok(None);
        }
        if self.board.is_none() {
            self.board = Some(Board::create()?);
        }
        Ok(self.board.as_ref())
    }

    /// The state folder.
    pub fn root(&self) -> std::path::PathBuf {
        self.state.root().to_owned()
    }

    pub fn account(&self, role: Role) -> Option<Account> {
        self.state.account(role)
    }

    /// The way to the loop.
    pub fn sender(&self) -> mpsc::Sender<Happening> {
        self.sender.clone()
    }

    /// Who servers of this role run as.
    pub(super) fn uid(&self, role: Role) -> u32 {
        self.account(role).map_or_else(|| rustix::process::geteuid().as_raw(), |account| account.uid)
    }

    /// Whether servers of this role get keys among their secrets.
    pub(super) fn gives_keys(&self, role: Role) -> bool {
        talks_to_control(role) || self.delegates_to(role)
    }

    /// Whether servers of this role talk to those of other machines, by a key that the machine makes for them.
    fn delegates_to(&self, role: Role) -> bool {
        self.in_force.plan.place == Place::Machines && matches!(role, Role::Balancer | Role::Web | Role::App)
    }

    /// What servers of this role need to know; with this machine's identity for those that talk to control.
    fn secrets(&self, role: Role) -> std::io::Result<Secrets> {
        let mut secrets = self.state.secrets_for(role)?;
        if talks_to_control(role) {
            secrets.extend(Identity::secrets(self.folder.path(), &self.state.revoked()?)?);
        }
        if self.delegates_to(role) {
            let delegated = Delegate::secrets(self.folder.path(), &self.state.revoked()?);
            secrets.extend(delegated.map_err(std::io::Error::other)?);
        }
        Ok(secrets)
    }

    /// What a server of this role works by.
    pub(super) fn given(&self, role: Role) -> std::io::Result<Given> {
        let InForce { plan, release } = &self.in_force;
        Ok(Given {
            plan: plan.clone(),
            files: release.files.clone(),
            programs: release.programs.clone(),
            secrets: self.secrets(role)?,
        })
    }

    pub fn read_in_force(&self) -> Result<InForce, StateError> {
        self.state.in_force()
    }

    pub fn stamp(&self) -> std::io::Result<(u64, i64, i64)> {
        self.state.stamp()
    }

    /// Has the loop told when this process ends.
    pub(super) fn watch(&mut self, server: &str, pid: u32) -> std::io::Result<Running> {
        self.processes += 1;
        let process = self.processes;
        let handle = Arc::new(spawn::watch(pid)?);
        let end = spawn::end(Arc::clone(&handle));
        let (sender, server) = (self.sender.clone(), server.to_owned());
        tokio::task::spawn_local(async move {
            if let Err(error) = end.await {
                tracing::error!("cannot watch the process of {server}: {error}");
            } else if sender.send(Happening::Ended { server, process }).await.is_err() {
                tracing::debug!("a server ended after its agent");
            }
        });
        Ok(Running { process, handle })
    }
}

/// Whether servers of this role hold the machine's key.
fn talks_to_control(role: Role) -> bool {
    matches!(role, Role::Gate | Role::Database | Role::Control)
}

/// A process, and the number by which the loop is told of its end.
pub(super) struct Running {
    pub(super) process: u64,
    pub(super) handle: Arc<OwnedFd>,
}
