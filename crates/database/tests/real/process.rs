//! A server of the tests on real PostgreSQL, or its guard, as a process of its own.

mod control;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use control::Remote;
use link::Start;
use link::control::Control;
use plan::Role;

fn main() -> ExitCode {
    if let Some(code) = database::guard::called(std::env::args_os()) {
        return code;
    }
    let mut arguments = std::env::args_os().skip(1);
    let (Some(link), Some(server), Some(control)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("usage: database-process LINK SERVER CONTROL");
        return ExitCode::from(2);
    };
    link::log::begin(None);
    match serve(Path::new(&link), &server.to_string_lossy(), Remote(control.into())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(link: &Path, server: &str, control: Remote) -> Result<(), Box<dyn std::error::Error>> {
    let start = Start::connect(link, server)?;
    match start.me.role {
        Role::Gate => Ok(database::gate::run_with(start, Some(Arc::new(control)))?),
        _ => Ok(database::run_with(
            start,
            Arc::new(move || Ok(Arc::new(control.clone()) as Arc<dyn Control>)),
        )?),
    }
}
