//! `dolmen server NAME`: one server, started by its agent, which tells it everything else over the link.

use std::path::PathBuf;
use std::process::ExitCode;

use link::Start;
use plan::Role;

use crate::failure::Failure;
use crate::site::MachineFolder;

#[derive(Debug, clap::Args)]
pub struct Server {
    name: String,
    /// The socket of the agent's link
    #[arg(long)]
    link: PathBuf,
}

impl Server {
    pub fn run(self) -> Result<ExitCode, Failure> {
        let folder = self.link.parent().map(|folder| MachineFolder::new(folder.to_owned()));
        link::log::begin(folder.map(|folder| folder.log(&self.name)).as_deref());
        let start = Start::connect(&self.link, &self.name).map_err(Failure::failed)?;
        tracing::info!("{} begins as process {}", self.name, std::process::id());
        if let Err(because) = serve(start) {
            tracing::error!("{} ends: {because}", self.name);
            return Err(Failure::Said(1));
        }
        tracing::info!("{} ends", self.name);
        Ok(ExitCode::SUCCESS)
    }
}

/// The one place that knows which crate serves which role.
fn serve(start: Start) -> Result<(), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    match start.me.role {
        Role::Dns => dns::run(start).map_err(|error| text(&error)),
        Role::Balancer => balancer::run(start).map_err(|error| text(&error)),
        Role::Web => web::run(start).map_err(|error| text(&error)),
        Role::App => app::run(start).map_err(|error| text(&error)),
        Role::Gate => database::gate::run(start).map_err(|error| text(&error)),
        Role::Database => database::run(start).map_err(|error| text(&error)),
        Role::Control => control::run(start).map_err(|error| text(&error)),
        role @ Role::Monitor => Err(format!("this version has no {role} server")),
    }
}
