//! Servers that are written by address because they are not ours: `[balancer] servers`, `[web] app`.
//! Each is `"10.0.0.1:80"` or `{ address = "10.0.0.1:80", weight = 2, backup = true, name = "old" }`.

use std::net::SocketAddr;

use crate::meant::Target;
use crate::mistake::Mistake;
use crate::section::limit::{CONNECTIONS_MAX, small};
use crate::typed::{Item, Written, or};

const WEIGHT_MAX: u64 = 256;
const TARGETS_MAX: usize = 1_000;

#[derive(Clone, Debug)]
pub(crate) struct TargetEntry {
    address: Written<SocketAddr>,
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
    if items.len() > TARGETS_MAX {
        item.note(format!("`{}` names more than {TARGETS_MAX} servers", item.name), None);
    }
    let entries: Vec<TargetEntry> = items.iter().take(TARGETS_MAX).filter_map(entry).collect();
    note_twins(&entries, item);
    Written { value: entries, span: item.span.clone() }
}

fn entry(item: &Item<'_>) -> Option<TargetEntry> {
    if item.value.is_str() {
        return Some(TargetEntry {
            address: item.socket()?,
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
    let address = table.get("address").and_then(|item| item.socket());
    let name = table.text("name");
    let weight = table.number("weight", 0, WEIGHT_MAX);
    let backup = table.get("backup").and_then(|item| item.boolean());
    let max_connections = table.number("max-connections", 1, CONNECTIONS_MAX).and_then(small);
    table.require("address", "where it answers: `address = \"10.0.0.1:80\"`");
    table.close();
    Some(TargetEntry { address: address?, name, weight, backup, max_connections })
}

fn note_twins(entries: &[TargetEntry], item: &Item<'_>) {
    for (index, entry) in entries.iter().enumerate() {
        let before = &entries[..index];
        if before.iter().any(|other| other.address.value == entry.address.value) {
            let message = format!("the server {} is named twice in `{}`", entry.address.value, item.name);
            let hint = "give one of them a `weight` if it shall have more of the traffic";
            item.notes.note(Mistake::at(entry.address.span.clone(), message).hint(hint));
        }
        let Some(name) = &entry.name else { continue };
        if before.iter().any(|other| other.name.as_ref().is_some_and(|other| other.value == name.value)) {
            let message = format!("two servers in `{}` are named {:?}", item.name, name.value);
            item.notes.note(Mistake::at(name.span.clone(), message));
        }
    }
}

pub(crate) fn mean(entries: &[TargetEntry]) -> Vec<Target> {
    let target = |entry: &TargetEntry| Target {
        name: or(&entry.name, entry.address.value.to_string()),
        address: entry.address.value,
        machine: None,
        weight: u32::try_from(or(&entry.weight, 1)).unwrap_or(1),
        backup: or(&entry.backup, false),
        max_connections: entry.max_connections,
    };
    entries.iter().map(target).collect()
}
