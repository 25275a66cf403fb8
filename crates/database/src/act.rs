//! The hands: each action may be cut off at any instruction and begun again.
//!
//! A data directory is made under another name and renamed when it is whole and on disk, so `data` is either
//! absent or complete. One that a copy replaces is set aside, not removed.

mod create;
mod lead;
mod replace;
mod run;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use link::control::{ControlError, since_boot};

use crate::failover::{Action, Names};
use crate::group::Command;
use crate::leftover;
use crate::manager::Manager;
use crate::record::ProposeError;
use crate::session::SessionError;
use crate::setup::SetupError;
use crate::tool::{self, ToolError};

pub(crate) use lead::EpochCommit;
pub(crate) use run::{Wanted, read_again, stop};

/// For tools that only read.
pub(crate) const QUICK_TOOL: Duration = Duration::from_secs(30);

/// How long an orderly end may take; the rest is crash recovery's.
pub(crate) const STOP: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ActError {
    #[error("cannot {what}: {error}")]
    Io { what: &'static str, error: io::Error },
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error("cannot set up the primary: {0}")]
    Setup(#[from] SetupError),
    #[error("cannot ask postgres: {0}")]
    Session(#[from] SessionError),
    #[error("PostgreSQL {0} is not installed")]
    NoVersion(u32),
    #[error("the plan has no database server {0}")]
    NoServer(String),
    #[error("the settings {names} are not in force {} s after postgres was told to read them", limit.as_secs())]
    NotInForce { names: Names, limit: Duration },
    #[error("the lease of epoch {0} is over, nothing is promoted")]
    NoLease(u64),
    #[error("postgres ended before its data was consistent")]
    Ended,
    #[error("what was made is no data directory: {0}")]
    NotMade(String),
    #[error("pg_rewind found nothing to rewind although the histories differ: the data will be copied anew")]
    NothingRewound,
}

fn cannot(what: &'static str) -> impl Fn(io::Error) -> ActError {
    move |error| ActError::Io { what, error }
}

/// How often the end of a copy is told anew when somebody else was faster.
const RACES: usize = 10;

/// Carries one action out.
pub(crate) async fn act(manager: &mut Manager, action: Action) -> Result<(), ActError> {
    match action {
        Action::Wait | Action::End => Ok(()),
        Action::EndLeftovers => {
            let ended = leftover::end(&manager.folder.data()).await;
            ended.map_err(cannot("end what an earlier manager left behind"))
        }
        Action::Create(group) => {
            let created = manager.view.create(*group).await;
            told("create the record", created);
            Ok(())
        }
        Action::Propose(command) => {
            propose(manager, &command).await;
            Ok(())
        }
        Action::Initialise => create::initialise(manager).await,
        Action::Clone { from, epoch, major, reinit } => {
            replace::clone(manager, &from, epoch, major).await?;
            if reinit {
                reinit_done(manager).await;
            }
            Ok(())
        }
        Action::Rewind { from, epoch, common } => replace::rewind(manager, &from, epoch, common).await,
        Action::Start { major } => run::start(manager, major, None).await,
        Action::Follow { server, epoch, confirmed } => run::follow(manager, &server, epoch, confirmed).await,
        Action::Seal => run::seal(manager).await,
        Action::Promote { names, epoch, confirmed } => lead::promote(manager, names, epoch, confirmed).await,
        Action::CommitEpoch(epoch) => {
            lead::commit_epoch(manager, epoch);
            Ok(())
        }
        Action::SetUp => lead::set_up(manager).await,
        Action::SetNames(names) => lead::set_names(manager, names).await,
        Action::Checkpoint => {
            lead::checkpoint(manager);
            Ok(())
        }
        Action::Stop => {
            stop(manager, STOP).await;
            Ok(())
        }
        Action::Fence => {
            manager.holder.give_up();
            run::end_by_force(manager).await;
            Ok(())
        }
    }
}

/// A take-over begins a lease, counted from before it was sent; a release ends it, whatever becomes of the word.
async fn propose(manager: &mut Manager, command: &Command) {
    if matches!(command, Command::BeginHandover { .. }) {
        lead::write_before_handover(manager).await;
        // The lease was renewed meanwhile, and a proposal on an older record would be refused, again and again.
        manager.view.refresh().await;
    }
    if matches!(command, Command::Release { .. }) {
        manager.holder.give_up();
    }
    let sent = since_boot();
    let proposed = manager.view.propose(command).await;
    if let (Ok(()), Command::TakeOver { .. }, Some(group)) = (&proposed, command, manager.view.group()) {
        manager.holder.begin(group.epoch, sent);
    }
    told("change the record", proposed);
}

/// The record has changed during the copy, and the holder renews it all the time; an order that stays in it
/// would be carried out again.
async fn reinit_done(manager: &mut Manager) {
    let command = Command::ReinitDone { server: manager.start.me.name.clone() };
    for _ in 0..RACES {
        manager.view.refresh().await;
        match manager.view.propose(&command).await {
            Err(ProposeError::Control(ControlError::Changed(_))) => {}
            proposed => return told("say that the copy is done", proposed),
        }
    }
    tracing::warn!("cannot say that the copy is done: others change the record all the time");
}

/// Somebody faster, or a refusal, is no failure: the next look decides on the newer record.
fn told(what: &str, proposed: Result<(), ProposeError>) {
    match proposed {
        Ok(()) => {}
        Err(ProposeError::Control(ControlError::Changed(_))) => {
            tracing::debug!("cannot {what}: not the newest")
        }
        Err(error) => tracing::info!("cannot {what}: {error}"),
    }
}

/// The name of the account that we run under, from the system's own list of accounts.
pub(crate) async fn account() -> Result<String, ToolError> {
    let mut command = tool::command(Path::new(""), "id");
    command.arg("-un");
    Ok(tool::run(command, QUICK_TOOL, |_| ()).await?.trim().to_owned())
}

fn bin(manager: &Manager, major: u32) -> Result<PathBuf, ActError> {
    let of_major = manager.installed.iter().find(|postgres| postgres.version.major == major);
    of_major.map(|postgres| postgres.bin.clone()).ok_or(ActError::NoVersion(major))
}
