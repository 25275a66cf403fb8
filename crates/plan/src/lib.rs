//! The site file and what it means.
//!
//! Two stages, kept apart on purpose. `typed` is what the user wrote, with the place of every value and
//! without a single system call. [`Plan`] is what it means: which server runs on which machine at which
//! address, with every default filled in. A `Plan` is immutable; a changed site file gives a new one with a
//! higher generation. Nothing in this crate opens a socket or starts a process.
//!
//! ```
//! use plan::{Ground, NoFiles, Place, Role, Site};
//!
//! let site = Site::from_text("domain = \"www.foobar.com\"\n[app]\ncommand = \"python3 app.py\"\n");
//! let ground = Ground { place: Place::Up { block: 1 }, generation: 1, folder: "shop", files: &NoFiles };
//! let plan = site.plan(&ground).expect("this is a whole site");
//! assert_eq!(plan.role(Role::Balancer).count(), 1);
//! ```

mod site;

mod mistake;
mod typed;
// What each section of the site file may hold, and what it means; in the order of a request.
mod section;

mod address;
mod ground;
mod meaning;
mod placement;
mod servers;

mod meant;

pub mod command;
mod describe;
mod difference;
mod init;
mod live;

pub use describe::describe;
pub use difference::{difference, same_meaning};
pub use ground::{Disk, Files, Ground, NoFiles};
pub use init::{Folder, init};
pub use live::{is_drainable, obstacles, obstacles_on, why_not_drain};
pub use meant::*;
pub use mistake::{Mistake, Mistakes, render};
pub use site::Site;
