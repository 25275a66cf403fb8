//! `[firewall]`: who may reach ssh and the dashboard. Checked now, served by a later version.

use crate::section::network::networks;
use crate::typed::{Item, Table};

pub(crate) const NOT_SERVED: &str =
    "[firewall] is checked, but this version does not apply it yet: no packet is filtered";

#[derive(Clone, Debug, Default)]
pub(crate) struct FirewallSection;

impl FirewallSection {
    pub(crate) fn read(mut table: Table<'_>) -> FirewallSection {
        if let Some(item) = table.get("admin") {
            networks(&item);
            note_empty(&item);
        }
        table.close();
        FirewallSection
    }
}

fn note_empty(item: &Item<'_>) {
    if item.is_empty_list() {
        item.note("`admin` lets nobody in, you neither", Some("name your own network: \"198.51.100.0/24\""));
    }
}
