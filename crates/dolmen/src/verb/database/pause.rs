//! `dolmen database pause` and `resume`: whether the database servers may act by themselves.

use std::process::ExitCode;

use database::group::{Command, Group};

use crate::failure::Failure;
use crate::out;
use crate::site::Home;
use crate::verb::record::GroupRecord;
use crate::verb::{Site, wait};

pub fn pause(home: &Home) -> Result<ExitCode, Failure> {
    let paused = |_: &Group| {
        "paused: nobody is promoted, restarted or copied by itself until `dolmen database resume`; a primary that \
         loses its lease still ends"
            .to_owned()
    };
    set(home, "pause", &Command::Pause, true, paused)
}

pub fn resume(home: &Home) -> Result<ExitCode, Failure> {
    let resumed =
        |group: &Group| format!("resumed: {} is the primary of epoch {}", group.holder, group.epoch);
    set(home, "resume", &Command::Resume, false, resumed)
}

fn set(
    home: &Home,
    what: &str,
    command: &Command,
    paused: bool,
    said: impl Fn(&Group) -> String,
) -> Result<ExitCode, Failure> {
    let site = Site::open(home)?;
    wait(async {
        let record = GroupRecord::of(&site).await?;
        let (_, before) = record.read().await?;
        if before.paused == paused {
            out::line(if paused { "it was paused already" } else { "it was not paused" });
            return Ok(ExitCode::SUCCESS);
        }
        let (_, after) = record.change(what, command).await?;
        out::line(&said(&after));
        Ok(ExitCode::SUCCESS)
    })
}
