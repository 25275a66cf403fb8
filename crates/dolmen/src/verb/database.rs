//! `dolmen database pause|resume|reinit|history`: the database group by hand.

mod history;
mod pause;
mod reinit;

use std::process::ExitCode;

use crate::failure::Failure;
use crate::site::Home;

#[derive(Debug, clap::Args)]
pub struct Database {
    #[command(subcommand)]
    order: Order,
}

#[derive(Debug, clap::Subcommand)]
enum Order {
    /// No automatic action on the database until `resume`: no failover, no restart
    Pause,
    /// Let the database servers act by themselves again
    Resume,
    /// Copy a replica anew from the primary
    Reinit(reinit::Reinit),
    /// Who was the primary when, and why
    History(history::History),
}

impl Database {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        match self.order {
            Order::Pause => pause::pause(home),
            Order::Resume => pause::resume(home),
            Order::Reinit(order) => order.run(home),
            Order::History(order) => order.run(home),
        }
    }
}
