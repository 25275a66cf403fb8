//! A server of the tests on real PostgreSQL, or its guard, as a process of its own.

use std::path::Path;
use std::process::ExitCode;

use link::Start;
use plan::Role;

fn main() -> ExitCode {
    if let Some(code) = database::guard::called(std::env::args_os()) {
        return code;
    }
    let mut arguments = std::env::args_os().skip(1);
    let (Some(link), Some(server)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: database-process LINK SERVER");
        return ExitCode::from(2);
    };
    match serve(Path::new(&link), &server.to_string_lossy()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(link: &Path, server: &str) -> Result<(), Box<dyn std::error::Error>> {
    let start = Start::connect(link, server)?;
    match start.me.role {
        Role::Gate => Ok(database::gate::run(start)?),
        _ => Ok(database::run(start)?),
    }
}
