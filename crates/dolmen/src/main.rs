//! `dolmen`: the whole distributed web infrastructure of a site in one binary and one file.
//!
//! The binary knows all parts; the parts do not know each other. Each command is one file under `verb`.

mod agent;
mod failure;
mod machines;
mod out;
mod program;
mod site;
mod up;
mod verb;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Before anything makes a thread: a guard has one, and few of our pages.
    if let Some(code) = database::guard::called(std::env::args_os()) {
        return code;
    }
    match verb::Arguments::parse().run() {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
