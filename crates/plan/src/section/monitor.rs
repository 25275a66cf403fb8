//! `[monitor]`: where the dashboard shall run. Checked now, served by a later version.

use crate::typed::{On, Table};

pub(crate) const NOT_SERVED: &str =
    "[monitor] is checked, but this version does not run it yet: `dolmen status` shows what there is";

#[derive(Clone, Debug, Default)]
pub(crate) struct MonitorSection {
    pub(crate) on: On,
}

impl MonitorSection {
    pub(crate) fn read(mut table: Table<'_>) -> MonitorSection {
        let section = MonitorSection { on: table.on() };
        table.close();
        section
    }
}
