//! `dolmen psql [--replica] [-- ARGUMENTS]`: the installed psql, at the site's database as its owner.
//!
//! It becomes psql, so that the terminal, the signals and the exit code are psql's own. The password goes by
//! the environment, which only the account itself and root can read; never by the argument list.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use link::Secrets;
use plan::{Role, Server, Value};

use super::{Site, status, wait};
use crate::failure::Failure;
use crate::site::Home;

#[derive(Debug, clap::Args)]
pub struct Psql {
    /// Read-only, at a replica; at the primary when there is none
    #[arg(long)]
    replica: bool,
    /// What psql gets, for example -c 'SELECT 1'
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

impl Psql {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let site = Site::open(home)?;
        let ours = site.plan.database.as_ref().ok_or_else(|| {
            Failure::mistake(format!(
                "{} has no database; [database] in the site file makes one",
                site.plan.site
            ))
        })?;
        if let Some(url) = &ours.url {
            return Err(Failure::mistake(elsewhere(url)));
        }
        let mut command = Command::new(database::find_psql().map_err(Failure::failed)?);
        let secrets = site.state.secrets_for(Role::App)?;
        let address = wait(self.address(&site))?;
        as_owner(&mut command, &ours.name, &secrets)?;
        command.env("PGHOST", address.ip().to_string()).env("PGPORT", address.port().to_string());
        if self.replica {
            command.env("PGOPTIONS", "-c default_transaction_read_only=on");
        }
        let error = command.args(&self.arguments).exec();
        Err(Failure::failed(format!("cannot start {}: {error}", command.get_program().display())))
    }

    /// A gate that serves, or else the server itself: a gate that is down is no reason to be locked out.
    async fn address(&self, site: &Site) -> Result<SocketAddr, Failure> {
        let (_, report) = status::ask(site).await?;
        let name = if self.replica { "read-only" } else { "read-write" };
        let runs = |server: &&Server| report.server(&server.name).is_some_and(|server| server.pid.is_some());
        let gates = site.plan.role(Role::Gate).filter(runs);
        if let Some(address) = gates.filter_map(|gate| gate.listens(name)).next() {
            return Ok(address);
        }
        let fits = |server: &&Server| {
            let database = report.server(&server.name).and_then(|server| server.database.as_ref());
            database.is_some_and(|database| if self.replica { database.streaming } else { database.primary })
        };
        let server = site.plan.role(Role::Database).find(fits);
        server.and_then(|server| server.listens("postgres")).ok_or_else(|| {
            Failure::failed("no gate runs, and no database server fits\nhint: `dolmen status` says why")
        })
    }
}

fn as_owner(command: &mut Command, name: &str, secrets: &Secrets) -> Result<(), Failure> {
    let password = secrets.get("app-password");
    let password =
        password.ok_or_else(|| Failure::failed("the site has no password yet; `dolmen up` makes it"))?;
    // What the operator has set for another server must not lead this one elsewhere.
    for variable in ["PGHOSTADDR", "PGSERVICE", "PGPASSFILE", "PGSSLMODE", "PGTARGETSESSIONATTRS"] {
        command.env_remove(variable);
    }
    // The role that owns the database has its name.
    command.env("PGUSER", name).env("PGDATABASE", name).env("PGPASSWORD", password.reveal());
    Ok(())
}

fn elsewhere(url: &Value) -> String {
    let from = match url {
        Value::Plain(url) => format!("psql '{url}'"),
        Value::Env(name) => format!("psql \"${name}\""),
        Value::File(path) => format!("psql \"$(cat {})\"", path.display()),
    };
    format!("this database is run by somebody else\nhint: {from}")
}
