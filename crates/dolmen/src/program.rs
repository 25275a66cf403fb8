//! Whether another build of dolmen can take over from the one that runs.
//!
//! The other build answers for itself: `dolmen understand` reads the state folder with its own eyes and says what it
//! speaks. Nothing is changed by it.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use link::program::Build;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::site::{Account, State};

/// How long the other build may take to answer.
const TRIAL: Duration = Duration::from_secs(20);

/// What is read of its answer, and of what it says went wrong.
const ANSWER_BYTES: u64 = 64 * 1024;

/// What a build of dolmen says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Understands {
    pub build: Build,
    /// The versions of the link and of the agent API that it speaks.
    pub link: u32,
    pub api: u32,
}

impl Understands {
    /// What this program says, once it has read the state folder as an agent would.
    pub fn of(state: &State) -> io::Result<Self> {
        state.in_force().map_err(io::Error::other)?;
        for machine in state.plan().map_err(io::Error::other)?.machines {
            crate::agent::record::read(&state.machine(&machine.name).record())?;
        }
        let build = link::program::my_build(env!("CARGO_PKG_VERSION"))?;
        Ok(Self { build, link: link::agent_end::VERSION, api: link::api::VERSION })
    }
}

/// Why a build that says this cannot take over from this one, if it cannot. Servers of the one talk to the agent of
/// the other until they are replaced, and agents of both to each other.
fn objection(theirs: &Understands) -> Option<String> {
    let (link, api) = (link::agent_end::VERSION, link::api::VERSION);
    if theirs.link != link {
        return Some(format!(
            "speaks version {} of the link, and servers that run speak {link}",
            theirs.link
        ));
    }
    if theirs.api.abs_diff(api) > 1 {
        return Some(format!(
            "speaks version {} of the agent API, and agents that run speak {api}",
            theirs.api
        ));
    }
    None
}

/// Has the program at this path answer for itself, which may take [`TRIAL`]. `accounts`: those that have to run it, too.
pub fn try_out(path: &Path, state: &Path, accounts: &[Account]) -> Result<Build, String> {
    let mut command = Command::new(path);
    command.args(["understand", "--state"]).arg(state);
    let text = said(command)?;
    let theirs: Understands =
        serde_json::from_str(&text).map_err(|_| "does not answer as a dolmen does".to_owned())?;
    if let Some(objection) = objection(&theirs) {
        return Err(objection);
    }
    for account in accounts {
        let mut command = Command::new(path);
        command.arg("--version").uid(account.uid).gid(account.gid);
        let not =
            |error| format!("cannot be run by the account {} of the database servers: {error}", account.uid);
        said(command).map_err(not)?;
    }
    Ok(theirs.build)
}

/// What a program prints, or why it did not end well. Waits for it, and for none of its children.
fn said(mut command: Command) -> Result<String, String> {
    let cannot = |error: io::Error| format!("cannot be run: {error}");
    let (out, err) = (memory().map_err(cannot)?, memory().map_err(cannot)?);
    let status = run(&mut command, &out, &err).map_err(cannot)?;
    let Some(status) = status else { return Err(format!("did not answer within {} s", TRIAL.as_secs())) };
    if status.success() { text(out).map_err(cannot) } else { Err(why(status, &text(err).map_err(cannot)?)) }
}

/// None when it was too slow, and was killed.
fn run(command: &mut Command, out: &File, err: &File) -> io::Result<Option<ExitStatus>> {
    // What we were started with may hold secrets.
    command.env_clear().stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?);
    let mut child = command.process_group(0).spawn()?;
    let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).and_then(|pidfd| {
        let limit = Timespec { tv_sec: TRIAL.as_secs().cast_signed(), tv_nsec: 0 };
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))
    });
    let in_time = ended.is_ok_and(|ended| ended > 0);
    if !in_time {
        child.kill()?;
    }
    let status = child.wait()?;
    Ok(in_time.then_some(status))
}

/// A file in memory: unlike a pipe it holds up nobody, however much is written, and whoever keeps it open.
fn memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("dolmen-answer", MemfdFlags::CLOEXEC)?.into())
}

fn text(mut file: File) -> io::Result<String> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(ANSWER_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn why(status: ExitStatus, said: &str) -> String {
    match said.lines().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("ended with {status}: {}", line.trim()),
        None => format!("ended with {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(link: u32, api: u32) -> Understands {
        Understands { build: Build { version: "0.2.0".into(), id: "abc".into() }, link, api }
    }

    #[test]
    fn a_build_that_speaks_otherwise_is_refused() {
        let (link, api) = (link::agent_end::VERSION, link::api::VERSION);
        assert_eq!(objection(&says(link, api)), None);
        assert_eq!(objection(&says(link, api + 1)), None, "agents one version apart understand each other");
        assert!(objection(&says(link, api + 2)).unwrap().contains("agent API"));
        assert!(objection(&says(link + 1, api)).unwrap().contains("the link"));
    }
}
