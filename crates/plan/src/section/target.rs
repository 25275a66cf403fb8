//! Servers that are written by address because they are not ours: `[balancer] servers`, `[web] app`.
//! Each is `"10.0.0.1:80"`, `"app.internal:80"`, or `{ address = "10.0.0.1:80", weight = 2, backup = true, name = "old" }`.

use std::net::{Ipv4Addr, SocketAddr};

use crate::address::Place;
use crate::meant::Target;
use crate::mistake::Mistake;
use crate::section::limit::{CONNECTIONS_MAX, small};
use crate::typed::{Item, Written, or};

const WEIGHT_MAX: u64 = 256;
const ADDRESSES_MAX: u64 = 100;
/// Servers of one pool, each address of a name counted: more the balancer does not watch.
const TARGETS_MAX: usize = 128;

#[derive(Clone, Debug)]
pub(crate) struct TargetEntry {
    place: Written<Place>,
    /// How many addresses of a name are each a server.
    addresses: u32,
    name: Option<Written<String>>,
    weight: Option<Written<u64>>,
    backup: Option<Written<bool>>,
    max_connections: Option<u32>,
}

/// Reads a list of servers, which must hold at least one.
pub(crate) fn read(item: &Item<'_>) -> Written<Vec<TargetEntry>> {
    let items = item.list(&format!("{} = [\"10.0.0.1:80\"]", item.name)).unwrap_or_default();
    if item.is_empty_list() {
        item.note(format!("`{}` names no server", item.name), Some("for example [\"10.0.0.1:80\"]"));
    }
    let entries: Vec<TargetEntry> = items.iter().filter_map(entry).collect();
    let all: usize = entries.iter().map(|entry| entry.addresses as usize).sum();
    if all > TARGETS_MAX {
        let why = format!("`{}` names {all} servers, and a pool has {TARGETS_MAX} at most", item.name);
        item.note(
            why,
            Some("`addresses` of a name count each; a `[pool.NAME]` with a route of its own takes more"),
        );
    }
    note_twins(&entries, item);
    Written { value: entries, span: item.span.clone() }
}

fn entry(item: &Item<'_>) -> Option<TargetEntry> {
    if item.value.is_str() {
        return Some(TargetEntry {
            place: item.server()?,
            addresses: 1,
            name: None,
            weight: None,
            backup: None,
            max_connections: None,
        });
    }
    if !item.value.is_table() {
        let hint = "for example \"10.0.0.1:80\" or { address = \"10.0.0.1:80\", weight = 2 }";
        item.note(
            format!("a server in `{}` must be an address in quotes, or a table", item.name),
            Some(hint),
        );
        return None;
    }
    let mut table = item.table("the server")?;
    table.span = item.span.clone();
    let place = table.get("address").and_then(|item| item.server());
    let addresses = table.number("addresses", 1, ADDRESSES_MAX);
    let name = table.text("name");
    let weight = table.number("weight", 0, WEIGHT_MAX);
    let backup = table.get("backup").and_then(|item| item.boolean());
    let max_connections = table.number("max-connections", 1, CONNECTIONS_MAX).and_then(small);
    table.require("address", "where it answers: `address = \"10.0.0.1:80\"`");
    table.close();
    let place = place?;
    if let (Place::Address(_), Some(addresses)) = (&place.value, &addresses) {
        let message = "`addresses` is for a server with a name: an address is only one";
        let mistake = Mistake::at(addresses.span.clone(), message);
        item.notes.note(mistake.hint("for example { address = \"app.internal:8080\", addresses = 4 }"));
    }
    let addresses = addresses.and_then(small).unwrap_or(1);
    Some(TargetEntry { place, addresses, name, weight, backup, max_connections })
}

fn note_twins(entries: &[TargetEntry], item: &Item<'_>) {
    for (index, entry) in entries.iter().enumerate() {
        let before = &entries[..index];
        if before.iter().any(|other| other.place.value == entry.place.value) {
            let message = format!("the server {} is named twice in `{}`", entry.place.value, item.name);
            let hint = "give one of them a `weight` if it shall have more of the traffic";
            item.notes.note(Mistake::at(entry.place.span.clone(), message).hint(hint));
        }
        let Some(name) = &entry.name else { continue };
        if before.iter().any(|other| other.name.as_ref().is_some_and(|other| other.value == name.value)) {
            let message = format!("two servers in `{}` are named {:?}", item.name, name.value);
            item.notes.note(Mistake::at(name.span.clone(), message));
        }
    }
}

pub(crate) fn mean(entries: &[TargetEntry]) -> Vec<Target> {
    entries.iter().flat_map(targets).collect()
}

/// The servers of one entry: one for each address that its name may have.
fn targets(entry: &TargetEntry) -> impl Iterator<Item = Target> {
    let name = or(&entry.name, entry.place.value.to_string());
    let (address, lookup) = match &entry.place.value {
        Place::Address(address) => (*address, None),
        Place::Name { host, port } => {
            (SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), *port), Some(host.clone()))
        }
    };
    let target = move |number: u32| Target {
        name: if entry.addresses > 1 { format!("{name}#{number}") } else { name.clone() },
        address,
        lookup: lookup.clone(),
        machine: None,
        weight: u32::try_from(or(&entry.weight, 1)).unwrap_or(1),
        backup: or(&entry.backup, false),
        max_connections: entry.max_connections,
    };
    (1..=entry.addresses).map(target)
}
