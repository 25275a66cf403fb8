//! What an agent does for `dolmen upgrade`: it says which program lies on disk, becomes it when it is told to, and has
//! its servers succeeded by processes of it. By itself it only says that there is another one.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use link::api::{Answer, ProgramReport};
use link::program;
use plan::Role;
use tokio::sync::oneshot;

use super::servant::Servant;
use super::{Agent, answer};
use crate::site::Account;

/// How often the agent looks which program lies on disk.
const LOOK: Duration = Duration::from_secs(1);

/// What this machine's operator should know of its program.
#[derive(Debug, Default)]
pub(super) struct Notes {
    looked: Option<Instant>,
    sentences: Vec<String>,
}

impl Notes {
    pub(super) fn sentences(&self) -> &[String] {
        &self.sentences
    }
}

impl Agent {
    /// Looks once in a while; nothing is done about what it finds.
    pub(super) fn look_at_program(&mut self) {
        if self.notes.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        let sentences: Vec<String> = self.on_disk().into_iter().chain(self.left_behind()).collect();
        for new in sentences.iter().filter(|sentence| !self.notes.sentences.contains(sentence)) {
            tracing::info!("{new}");
        }
        self.notes = Notes { looked: Some(Instant::now()), sentences };
    }

    /// What is to say of the program on disk, if it is not the one that runs.
    fn on_disk(&self) -> Option<String> {
        let path = program::path().ok()?;
        let shown = path.display();
        match (program::at(&path), program::mine()) {
            (Ok(there), Ok(mine)) if there == mine => None,
            (Ok(_), _) => {
                Some(format!("another build of dolmen lies at {shown}; `dolmen upgrade` takes it into use"))
            }
            (Err(error), _) => Some(format!(
                "the program file {shown} cannot be found ({error}); what runs goes on, but put it back before a restart"
            )),
        }
    }

    fn left_behind(&self) -> Option<String> {
        let other = self.of_another_build();
        let (noun, names) = (if other.len() == 1 { "runs" } else { "run" }, other.join(", "));
        (!other.is_empty())
            .then(|| format!("{names} still {noun} another build; `dolmen upgrade` goes on with it"))
    }

    fn of_another_build(&self) -> Vec<String> {
        let servants = self.order.iter().filter_map(|name| self.servants.get(name));
        servants.filter(|servant| servant.is_of_another_build()).map(|s| s.server.name.clone()).collect()
    }

    /// Answers when the program on disk has answered for itself.
    pub(super) fn say_program(&self, reply: oneshot::Sender<Answer>) -> bool {
        let state = self.around.root();
        let has_database = self.plan.on(&self.machine.name).any(|server| server.role == Role::Database);
        // Its manager runs the file under its own account, and its guard too.
        let accounts: Vec<_> =
            self.around.account(Role::Database).filter(|_| has_database).into_iter().collect();
        tokio::task::spawn_local(async move {
            let tried = tokio::task::spawn_blocking(move || tried(&state, &accounts)).await;
            answer(
                reply,
                match tried {
                    Ok(Ok(report)) => Answer::Program(Box::new(report)),
                    Ok(Err(error)) => {
                        Answer::Refused { because: format!("cannot tell its program: {error}") }
                    }
                    Err(error) => Answer::Refused { because: format!("cannot tell its program: {error}") },
                },
            );
        });
        false
    }

    /// Becomes the program on disk. Returns only when that cannot be; then nothing has changed. Sockets are closed by
    /// it, and come back with the servers that hold them, as they do after the death of an agent.
    pub(super) fn become_program(&mut self, id: &str) -> Answer {
        Answer::Refused { because: self.try_to_become(id) }
    }

    fn try_to_become(&mut self, id: &str) -> String {
        if !self.waiting.is_empty() || self.ending || !self.servants.values().all(Servant::is_settled) {
            return "a server of this machine is being ended or replaced right now".into();
        }
        if !self.record.is_written() {
            return "its record cannot be written, and without it the next agent would not find its servers"
                .into();
        }
        let exec = || -> std::io::Result<std::convert::Infallible> {
            let path = program::path()?;
            let mut file = File::open(&path)?;
            if program::id(&mut file)? != id {
                return Err(std::io::Error::other("the file on disk is not the one that was tried"));
            }
            tracing::info!("becoming {}, build {id}", path.display());
            let mut arguments = std::env::args_os();
            let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
            command.arg0(arguments.next().unwrap_or_else(|| "dolmen".into())).args(arguments);
            command.env(program::VARIABLE, &path);
            Err(command.exec())
        };
        match exec() {
            Err(error) => format!("cannot become the program on disk: {error}"),
        }
    }

    pub(super) fn succeed(&mut self, server: &str, drain_ms: u64, reply: oneshot::Sender<Answer>) -> bool {
        let now_ms = self.now_ms();
        match self.servants.get_mut(server) {
            Some(servant) => servant.succeed(now_ms, drain_ms, reply, &mut self.around, &mut self.record),
            None => {
                let because = format!("machine {} has no server {server}", self.machine.name);
                answer(reply, Answer::Refused { because });
            }
        }
        false
    }
}

fn tried(state: &Path, accounts: &[Account]) -> std::io::Result<ProgramReport> {
    let path = program::path()?;
    let running = program::my_build(env!("CARGO_PKG_VERSION"))?;
    let on_disk = crate::program::try_out(&path, state, accounts);
    Ok(ProgramReport { path, running, on_disk })
}
