//! `[control]`: which machines vote. Checked now, served by a later version.

use crate::typed::{On, Table};

pub(crate) const NOT_SERVED: &str =
    "[control] is checked, but this version does not run it yet: the primary is not replaced when it fails";

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
