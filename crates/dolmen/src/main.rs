//! `dolmen`: the whole distributed web infrastructure of a site in one binary and one file.
//!
//! The binary knows all parts; the parts do not know each other. Each command is one file under `verb`.

mod agent;
mod failure;
mod out;
mod site;
mod up;
mod verb;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match verb::Arguments::parse().run() {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
