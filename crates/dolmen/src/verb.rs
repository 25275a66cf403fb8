//! The commands, one file each, and what they share.

mod agent;
mod change;
mod check;
mod control;
mod database;
mod doctor;
mod drain;
mod init;
mod join;
mod leave;
mod kill;
mod logs;
mod plan;
mod psql;
mod ready;
mod record;
mod reload;
mod server;
mod start;
mod status;
mod stop;
mod switchover;
mod token;
mod understand;
mod up;
mod upgrade;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ::plan::{Machine, Plan};
use clap::{Parser, Subcommand};
use link::api::{Ask, Conversation, Due, Identity, call};

use crate::failure::Failure;
use crate::machines::desk::now_s;
use crate::site::{Home, State};

#[derive(Debug, Parser)]
#[command(name = "dolmen", version, about, long_about = None, propagate_version = true)]
#[command(after_help = "Exit codes: 0 fine, 1 failed, 2 the user's mistake.")]
pub struct Arguments {
    /// The site file
    #[arg(long, global = true, value_name = "FILE", default_value = "dolmen.toml")]
    file: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write a commented dolmen.toml for the application in this folder
    Init(init::Init),
    /// Report every mistake in the site file
    Check(check::Check),
    /// Print which server will run where, and what would change
    Plan(plan::PlanVerb),
    /// Run the whole site on this computer until Ctrl-C
    Up(up::Up),
    /// Apply the changed site file while the site runs; no request and no connection is lost
    Reload(reload::Reload),
    /// Take the program that lies on disk into use while the site runs; no request and no connection is lost
    Upgrade(upgrade::Upgrade),
    /// Take a server out of rotation; it finishes what it has begun, and stays out until `ready`
    Drain(drain::Drain),
    /// Put a drained server back into rotation
    Ready(ready::Ready),
    /// Is everything fine, and if not, why
    Status(status::Status),
    /// Make another database server the primary, and print each step
    Switchover(switchover::Switchover),
    /// The database group by hand: pause, resume, reinit, history
    Database(database::Database),
    /// psql at the site's database
    Psql(psql::Psql),
    /// Print the servers' logs, merged
    Logs(logs::Logs),
    /// A fault drill: end a server or a whole machine at once, and keep it down
    Kill(kill::Kill),
    /// Bring back what `kill` ended
    Start(start::Start),
    /// Who keeps the machines agreed, and replacing one that died for good
    Control(control::Control),
    /// End the site in an orderly way
    Stop(stop::Stop),
    /// Check what this machine lacks, and print the command that mends it
    Doctor(doctor::Doctor),
    /// Run this machine's part of a site on several machines; on the first of them, begin the site
    Agent(agent::Agent),
    /// Print a token by which one more machine can join, once and soon
    Token(token::Token),
    /// Make this computer a machine of a site, by a token
    Join(join::Join),
    /// Revoke a machine that was lost, or that another computer is to replace
    Leave(leave::Leave),
    /// What this build says of itself to one that may give way to it (asked by an agent)
    #[command(hide = true)]
    Understand(understand::Understand),
    /// Run one server (started by an agent)
    #[command(hide = true)]
    Server(server::Server),
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode, Failure> {
        let file = self.file;
        match self.verb {
            Verb::Init(verb) => verb.run(&file),
            Verb::Check(verb) => verb.run(&file),
            Verb::Plan(verb) => verb.run(&home(&file)?),
            Verb::Up(verb) => verb.run(&home(&file)?),
            Verb::Reload(verb) => verb.run(&home(&file)?),
            Verb::Upgrade(verb) => verb.run(&home(&file)?),
            Verb::Drain(verb) => verb.run(&home(&file)?),
            Verb::Ready(verb) => verb.run(&home(&file)?),
            Verb::Status(verb) => verb.run(&home(&file)?),
            Verb::Switchover(verb) => verb.run(&home(&file)?),
            Verb::Database(verb) => verb.run(&home(&file)?),
            Verb::Psql(verb) => verb.run(&home(&file)?),
            Verb::Logs(verb) => verb.run(&home(&file)?),
            Verb::Kill(verb) => verb.run(&home(&file)?),
            Verb::Start(verb) => verb.run(&home(&file)?),
            Verb::Control(verb) => verb.run(&home(&file)?),
            Verb::Stop(verb) => verb.run(&home(&file)?),
            Verb::Doctor(verb) => verb.run(&file),
            Verb::Agent(verb) => verb.run(&file),
            Verb::Token(verb) => verb.run(&home(&file)?),
            Verb::Join(verb) => verb.run(),
            Verb::Leave(verb) => verb.run(&home(&file)?),
            Verb::Understand(verb) => verb.run(),
            Verb::Server(verb) => verb.run(),
        }
    }
}

fn home(file: &std::path::Path) -> Result<Home, Failure> {
    Home::of(file).map_err(|error| Failure::mistake(format!("{}: {error}", file.display())))
}

/// How long an agent may take to carry out an order to kill or to start.
const ORDER: Duration = Duration::from_secs(10);

/// A site that was started, seen from a command.
struct Site {
    state: State,
    plan: Plan,
    identity: Identity,
}

impl Site {
    fn open(home: &Home) -> Result<Self, Failure> {
        let state = home.state()?;
        let plan = state.plan()?;
        let identity = Identity::open(&state.identity())?;
        identity.revoke(state.revoked()?);
        // The operator's is renewed by the agent, which needs nobody for that.
        if let (Some(machine), Due::Ended(ago)) = (&state.about().machine, identity.validity()?.due(now_s()))
            && state.identity() != state.operator()
        {
            return Err(Failure::failed(crate::agent::keys::ended(&plan, machine, ago)));
        }
        Ok(Self { state, plan, identity })
    }

    /// The machine that this computer is, on real machines.
    fn here(&self) -> Option<&Machine> {
        self.plan.machine(self.state.about().machine.as_deref()?)
    }

    /// Whether this computer has the operator's identity.
    fn is_operator(&self) -> bool {
        self.state.identity() == self.state.operator()
    }

    /// All machines, this one first: it answers also when the others cannot be reached.
    fn nearest_first(&self) -> impl Iterator<Item = &Machine> {
        let here = self.here();
        here.into_iter().chain(self.plan.machines.iter().filter(move |machine| Some(*machine) != here))
    }

    /// Talks to the agent of this machine.
    async fn agent(&self, machine: &Machine) -> Result<Conversation, link::api::ApiError> {
        call(&self.identity, &self.plan.site, &machine.name, machine.agent).await
    }

    /// Gives one order to one machine's agent, and waits until it is carried out.
    async fn order(&self, machine: &Machine, ask: &Ask) -> Result<(), Failure> {
        let order = crate::up::stop::order(&self.identity, &self.plan.site, machine, ask);
        let slow = || {
            let name = &machine.name;
            Failure::failed(format!("the agent of {name} does not answer\nhint: `dolmen logs agent-{name}`"))
        };
        tokio::time::timeout(ORDER, order).await.map_err(|_| slow())?.map_err(Failure::from)
    }

    fn is_not_up(&self) -> Failure {
        Failure::failed(format!(
            "{} is not up: no agent of it answers\nhint: {} starts it",
            self.plan.site,
            if self.here().is_some() { "on each machine `dolmen agent`" } else { "`dolmen up`" }
        ))
    }

    /// The machine of a server, or the user's mistake.
    fn machine_of(&self, server: &str) -> Result<&Machine, Failure> {
        let found = self.plan.server(server).and_then(|server| self.plan.machine(&server.machine));
        found.ok_or_else(|| {
            let names = self.plan.servers.iter().map(|server| server.name.as_str());
            let all: Vec<&str> = names.chain(self.plan.machines.iter().map(|m| m.name.as_str())).collect();
            Failure::mistake(format!("{} has no {server}\nhint: it has {}", self.plan.site, all.join(", ")))
        })
    }
}

/// The accounts of the servers must be able to pass through folders that we make, whatever the mask of whoever
/// starts us. What is secret has a mode of its own.
fn usual_umask() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
}

/// Runs a command's asynchronous part.
fn wait<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
