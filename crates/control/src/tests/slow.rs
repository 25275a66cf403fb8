//! Connections that take longer to open than an ask may take.

use std::time::Duration;

use link::api::ApiError;
use tokio::time::{Instant, sleep};

use super::stage::{DEADLINE, Stage, name};
use crate::peers::{Kept, Peers};

#[tokio::test]
async fn a_connection_that_one_ask_had_no_time_for_serves_a_later_one() {
    let stage = Stage::new(119, 1);
    let running = stage.start(1).await;
    let peers = Peers::new(stage.identity(&stage.machine(1)), &stage.plan);
    let mut kept = Kept::default();
    let end = Instant::now() + DEADLINE;
    // No time at all, each time.
    let mut tries = 0;
    while let Err(error) = peers.open(&name(1), &mut kept, Instant::now()).await {
        assert!(matches!(error, ApiError::Slow(_)), "{error}");
        assert!(Instant::now() < end, "never open");
        tries += 1;
        sleep(Duration::from_millis(10)).await;
    }
    assert!(tries > 0);
    running.stop().await;
}
