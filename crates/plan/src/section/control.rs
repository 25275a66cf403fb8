//! `[control]`: which machines vote on what all of them agree on.

use crate::meant::{Control, Role, Server};
use crate::typed::{On, Table};

pub(crate) const NOT_SERVED: &str =
    "[control] has nothing to keep: this site runs no database of its own, so it starts no control server";

#[derive(Clone, Debug, Default)]
pub(crate) struct ControlSection {
    pub(crate) on: On,
}

impl ControlSection {
    pub(crate) fn read(mut table: Table<'_>) -> ControlSection {
        let section = ControlSection { on: table.on() };
        table.close();
        section
    }
}

/// How many of so many machines vote. An even number would need as many for a majority as the odd one above
/// it, and more than five make every change slower.
fn voters(machines: usize) -> usize {
    match machines {
        0..3 => 1,
        3..5 => 3,
        5.. => 5,
    }
}

/// Who votes, of the machines in this order; None without control servers.
pub(crate) fn mean(may_vote: &[String], servers: &[Server]) -> Option<Control> {
    let on = |machine: &String| {
        servers.iter().find(|server| server.role == Role::Control && server.machine == *machine)
    };
    let names = may_vote.iter().filter_map(on).map(|server| server.name.clone());
    let voters: Vec<String> = names.take(voters(may_vote.len())).collect();
    let has_database = servers.iter().any(|server| server.role == Role::Database);
    let lost = if has_database { "the primary is not replaced" } else { "nothing can be changed" };
    let note = (may_vote.len() == 2).then(|| {
        format!(
            "two machines cannot decide safely which of them is lost, so {} decides alone, and without {} {lost}: \
             add a third small machine to [machines], which votes",
            may_vote[0], may_vote[0]
        )
    });
    (!voters.is_empty()).then_some(Control { voters, note })
}
