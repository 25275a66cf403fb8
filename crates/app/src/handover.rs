//! How an app server gives way to its successor, on the board that both share.
//!
//! The successor starts its workers one after another, in the half of the board that its predecessor does not use. For
//! each that is ready the predecessor lets one of its own finish what it has: there is never a worker less than the
//! plan wants, and only one more. Nothing need be said between the two, and each of them can die at any time.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use link::Order;
use link::board::Board;
use link::report::State;

use crate::crew::{Crew, HALF};
use crate::{Error, Supervisor};

/// How often the predecessor looks which workers of its successor are ready.
const LOOK: Duration = Duration::from_millis(50);

/// How long a worker of somebody else may take to accept a connection.
const CONNECT: Duration = Duration::from_millis(100);

/// Where the slots begin that nobody uses, once those are given back whose workers are gone.
pub(crate) fn free_half(board: &Board) -> usize {
    withdraw_gone(board, |_| false);
    let ready = |base: usize| board.workers().filter(|(slot, _)| (base..base + HALF).contains(slot)).count();
    if ready(0) <= ready(HALF) { 0 } else { HALF }
}

/// Takes workers off the board whose port nobody has any more: whoever should have done it was killed.
fn withdraw_gone(board: &Board, is_ours: impl Fn(usize) -> bool) {
    for (slot, address) in board.workers().filter(|(slot, _)| !is_ours(*slot)) {
        // One that is too busy to accept is not gone.
        let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
        if TcpStream::connect_timeout(&SocketAddr::V4(address), CONNECT).is_err_and(refused) {
            tracing::warn!("the worker at {address} is gone and leaves the board");
            board.withdraw(slot, address);
        }
    }
}

impl Supervisor {
    fn is_ours(&self, slot: usize) -> bool {
        self.leaving.iter().chain([&self.crew]).any(|crew| crew.has(slot))
    }

    /// While the predecessor is at work there are workers on the board that are not ours; it may have been killed.
    pub(crate) fn tidy_board(&self) {
        withdraw_gone(&self.around.board, |slot| self.is_ours(slot));
    }

    /// Gives way to a successor: what was begun is finished, within this time.
    pub(crate) async fn retire(self, within: Duration) -> Result<(), Error> {
        self.line.report(State::Draining, Order::Retire { within }.sentence());
        let Supervisor { around, mut crew, mut leaving, serving, stop, line, tune: _tune, .. } = self;
        let front = serving.retire(&stop, within, line.hurried());
        let workers = async {
            let until = Instant::now() + within;
            let hurried = line.hurried();
            tokio::pin!(hurried);
            let mut is_hurried = false;
            while !(crew.is_gone() && leaving.iter_mut().all(Crew::is_gone)) {
                let left = until.saturating_duration_since(Instant::now());
                let is_ours = |slot| leaving.iter().chain([&crew]).any(|crew| crew.has(slot));
                let theirs = around.board.workers().filter(|(slot, _)| !is_ours(*slot)).count();
                crew.retire(theirs, left);
                if left.is_zero() {
                    crew.end_all(Duration::ZERO);
                }
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    within = &mut hurried, if !is_hurried => {
                        is_hurried = true;
                        leaving.iter().chain([&crew]).for_each(|crew| crew.end_all(within));
                    }
                }
            }
        };
        tokio::join!(front, workers);
        around.end_leftover();
        Ok(())
    }
}
