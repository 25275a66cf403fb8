//! `[machines]`: the names and addresses of the computers. Without it there is one machine, `alpha`.
//!
//! On `up` every machine stands for a loopback address and the written addresses are not used at all, so
//! that nothing on a laptop can reach, or pretend to be, a machine that serves users.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::address::wrong_label;
use crate::ground::Ground;
use crate::meant::{Machine, Place, Role};
use crate::mistake::{Mistake, Notes};
use crate::typed::{Item, Table, Written};

/// The agent API of every machine.
pub(crate) const AGENT_PORT: u16 = 7400;
/// A loopback block has this many addresses for machines: 127.0.N.1 to 127.0.N.254.
const MACHINES_MAX: usize = 254;
const ONLY_MACHINE: &str = "alpha";
const ROLES: [Role; 8] = [
    Role::Dns,
    Role::Balancer,
    Role::Web,
    Role::App,
    Role::Gate,
    Role::Database,
    Role::Control,
    Role::Monitor,
];

#[derive(Clone, Debug)]
pub(crate) struct MachineEntry {
    pub(crate) name: Written<String>,
    /// None: written, but wrong.
    pub(crate) address: Option<Written<IpAddr>>,
    pub(crate) public: Vec<Written<IpAddr>>,
}

pub(crate) fn read(table: Table<'_>) -> Vec<MachineEntry> {
    let entries: Vec<MachineEntry> = table.all().iter().map(entry).collect();
    if entries.is_empty() {
        let hint = "write `alpha = \"10.0.0.1\"`, or remove the section to have one machine";
        table.notes.note(Mistake::at(table.span.clone(), "[machines] names no machine").hint(hint));
    }
    if let Some(first_too_many) = entries.get(MACHINES_MAX) {
        let message = format!("a site has at most {MACHINES_MAX} machines");
        table.notes.note(Mistake::at(first_too_many.name.span.clone(), message));
    }
    note_shared_addresses(&entries, table.notes);
    entries.into_iter().take(MACHINES_MAX).collect()
}

fn entry(item: &Item<'_>) -> MachineEntry {
    let name = Written { value: item.name.clone(), span: item.key_span.clone() };
    note_name(&name, item.notes);
    if item.value.is_str() {
        return MachineEntry { name, address: item.ip(), public: Vec::new() };
    }
    if !item.value.is_table() {
        let hint = format!("for example {} = \"10.0.0.1\"", item.name);
        item.note(
            format!("the machine `{}` must be an address in quotes, or a table", item.name),
            Some(&hint),
        );
        return MachineEntry { name, address: None, public: Vec::new() };
    }
    let Some(mut table) = item.table(&format!("the machine `{}`", item.name)) else {
        return MachineEntry { name, address: None, public: Vec::new() };
    };
    let address = table.get("address").and_then(|item| item.ip());
    let public = table.get("public").map(|item| public(&item)).unwrap_or_default();
    table.require("address", "where the other machines reach it: `address = \"10.0.0.1\"`");
    table.close();
    MachineEntry { name, address, public }
}

/// One address, or a list of them.
fn public(item: &Item<'_>) -> Vec<Written<IpAddr>> {
    if item.value.is_str() {
        return item.ip().into_iter().collect();
    }
    let items = item.list("public = [\"203.0.113.10\", \"2001:db8::10\"]").unwrap_or_default();
    items.iter().filter_map(Item::ip).collect()
}

/// A machine's name stands in file names, certificates and commands beside the names of servers.
fn note_name(name: &Written<String>, notes: &Notes) {
    if let Some(why) = wrong_label(&name.value) {
        let message = format!("{:?} cannot name a machine: {why}", name.value);
        let hint = "small letters, digits and hyphens: `alpha`, `web-host-1`";
        notes.note(Mistake::at(name.span.clone(), message).hint(hint));
    }
    if name.value == "operator" {
        let message = "no machine may be named `operator`".to_owned();
        let hint = "its certificate would be that of whoever gives the orders: choose another name";
        notes.note(Mistake::at(name.span.clone(), message).hint(hint));
    }
    if is_server_name(&name.value) {
        let message = format!("the machine `{}` is named like a server", name.value);
        let hint = "`dolmen kill web-1` must not be in doubt: choose a name without a role and a number";
        notes.note(Mistake::at(name.span.clone(), message).hint(hint));
    }
}

fn is_server_name(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.rsplit_once('-')
        .is_some_and(|(role, number)| is_number(number) && ROLES.iter().any(|known| known.name() == role))
}

fn note_shared_addresses(entries: &[MachineEntry], notes: &Notes) {
    let all: Vec<(&str, &Written<IpAddr>)> = entries
        .iter()
        .filter_map(|entry| Some((entry.name.value.as_str(), entry.address.as_ref()?)))
        .collect();
    for (index, (name, address)) in all.iter().enumerate() {
        if let Some((other, _)) = all[..index].iter().find(|(_, before)| before.value == address.value) {
            let message =
                format!("the machines `{other}` and `{name}` have the same address, {}", address.value);
            let hint = "each machine needs an address of its own";
            notes.note(Mistake::at(address.span.clone(), message).hint(hint));
        }
    }
}

/// The machines of the plan. A machine whose written address is wrong stands in with an address of nobody,
/// so that the rest of the file can still be checked; the plan itself is then never given out.
pub(crate) fn mean(entries: Option<&[MachineEntry]>, ground: &Ground<'_>) -> Vec<Machine> {
    let Some(entries) = entries else {
        let address = up_address(ground.place, 1).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        return vec![machine(ONLY_MACHINE, address, Vec::new())];
    };
    let mean = |(index, entry): (usize, &MachineEntry)| {
        let number = u8::try_from(index + 1).unwrap_or(u8::MAX);
        let public = entry.public.iter().map(|address| address.value).collect();
        match (up_address(ground.place, number), &entry.address) {
            (Some(address), _) => machine(&entry.name.value, address, Vec::new()),
            (None, Some(address)) => machine(&entry.name.value, address.value, public),
            (None, None) => machine(&entry.name.value, Ipv4Addr::new(192, 0, 2, number).into(), public),
        }
    };
    entries.iter().enumerate().map(mean).collect()
}

fn up_address(place: Place, number: u8) -> Option<IpAddr> {
    match place {
        Place::Up { block } => Some(Ipv4Addr::new(127, 0, block, number).into()),
        Place::Machines => None,
    }
}

fn machine(name: &str, address: IpAddr, public: Vec<IpAddr>) -> Machine {
    let agent = SocketAddr::new(address, AGENT_PORT);
    Machine { name: name.to_owned(), address, public, agent }
}
