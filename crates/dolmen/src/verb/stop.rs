//! `dolmen stop`: the orderly end of a site that runs on this computer.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::out;
use crate::site::{Home, Lock};
use crate::up::{prepare::remove_mark, stop};

/// How long `up` may take to notice that all its agents have ended.
const UP_ENDS: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub struct Stop {}

impl Stop {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let state = home.state()?;
        stop::all(&state)?;
        let deadline = Instant::now() + UP_ENDS;
        let _lock = loop {
            if let Some(lock) = Lock::take(&state.root().join("lock"))? {
                break lock;
            }
            if Instant::now() > deadline {
                return Err(Failure::failed(
                    "everything has stopped but `dolmen up` itself, which still runs",
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        remove_mark(&state.stop_mark())?;
        out::line(&format!("{} is stopped", state.about().site));
        Ok(ExitCode::SUCCESS)
    }
}
