//! Whole sites for tests: started by the built binary, asked over sockets, stopped and removed at the end.
//!
//! A test names its block of loopback addresses (127.0.N.*), so that tests run side by side. Nothing here
//! sleeps for luck: [`until`] waits for a condition, with a deadline.
//!
//! ```no_run
//! let site = testkit::Site::guestbook(env!("CARGO_MANIFEST_DIR"), 60);
//! site.up();
//! assert_eq!(site.get("/").status, 200);
//! ```

mod bed;
mod delay;
mod disk;
mod http;
mod load;
mod machines;
mod network;
mod processes;
mod site;
mod writers;

use std::time::{Duration, Instant};

pub use bed::{Bed, Machine};
pub use delay::Late;
pub use disk::SmallDisk;
pub use http::{Client, Response, get, post};
pub use load::{Load, Outcome, Report};
pub use machines::{Machines, Part, signal};
pub use network::{Cut, Network};
pub use processes::Processes;
pub use site::{Ran, Site, TOKEN_APP};
pub use writers::{Acknowledged, Ledger, Writers, ask};

/// Waits until `condition` gives something, and fails the test with what was waited for when it never does.
#[track_caller]
pub fn until<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
