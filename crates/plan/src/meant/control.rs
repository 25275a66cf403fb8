//! Who votes on what the machines agree on.

use serde::{Deserialize, Serialize};

/// There is one control server on each machine. These vote; all others learn what was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// The names of the servers that vote: one, three or five, the first of them begins.
    pub voters: Vec<String>,
    /// Why this number cannot keep the site going by itself when a machine is lost, and what to add.
    pub note: Option<String>,
}
