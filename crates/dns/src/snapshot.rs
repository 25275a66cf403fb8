//! The zone, compiled: every record is ready in wire format, and one look into a hash table answers nearly
//! every query.
//!
//! A snapshot never changes. A new plan gives a new one, which the serving threads pick up between two
//! batches; they never wait for it and never see half of it.

use std::collections::HashMap;

use crate::name::{self, Key};

/// Record types that mean something to us (IANA DNS parameters).
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const HINFO: u16 = 13;
    pub(crate) const MX: u16 = 15;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const DS: u16 = 43;
    pub(crate) const TKEY: u16 = 249;
    pub(crate) const TSIG: u16 = 250;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const MAILB: u16 = 253;
    pub(crate) const MAILA: u16 = 254;
    pub(crate) const ANY: u16 = 255;
}

/// The one class we serve.
pub(crate) const CLASS_IN: u16 = 1;

/// All that the zone says. Made by [`Snapshot::compile`].
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) zone: Key,
    /// By name. Empty non-terminals have a node without sets, so that they exist (RFC 8020).
    pub(crate) nodes: HashMap<Key, Node>,
    /// The SOA with the time that a negative answer may be kept (RFC 2308 section 3).
    pub(crate) negative: Set,
    /// The answer to a query for everything (RFC 8482 section 4.2).
    pub(crate) everything: Set,
}

/// One name of the zone.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) sets: Vec<Set>,
    /// The delegation that this name belongs to: its own name at the cut, the cut's below it.
    pub(crate) cut: Option<Key>,
    /// Whether `*` stands directly below.
    pub(crate) has_wildcard: bool,
}

/// All records of one type at one name.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) kind: u16,
    /// Each record but for its owner: type, class, TTL, length, data.
    pub(crate) records: Vec<Box<[u8]>>,
    /// Names within the zone whose addresses a client asks for next.
    pub(crate) targets: Vec<Key>,
    /// Where a CNAME leads.
    pub(crate) alias: Option<Key>,
}

/// What the zone has for a name.
#[derive(Debug)]
pub(crate) enum Place<'a> {
    Here(&'a Node),
    /// Somebody else answers for it: the owner of the NS records, and its node.
    Away(&'a [u8], &'a Node),
    Nowhere,
}

impl Node {
    pub(crate) fn set(&self, kind: u16) -> Option<&Set> {
        self.sets.iter().find(|set| set.kind == kind)
    }
}

impl Snapshot {
    /// Finds a lower-case name of the zone (RFC 1034 section 4.3.2, RFC 4592 section 3.3).
    pub(crate) fn find(&self, wanted: &[u8], kind: u16) -> Place<'_> {
        if let Some((name, node)) = self.nodes.get_key_value(wanted) {
            // The parent side answers for DS at a cut (RFC 4035 section 3.1.4.1).
            let parent_side = kind == kind::DS && node.cut.as_deref() == Some(name);
            return if parent_side { Place::Here(node) } else { self.place(node) };
        }
        let Some((encloser, node)) = self.closest_encloser(wanted) else { return Place::Nowhere };
        if node.cut.is_some() || !node.has_wildcard {
            return if node.cut.is_some() { self.place(node) } else { Place::Nowhere };
        }
        let wildcard = name::wildcard_below(encloser).and_then(|name| self.nodes.get(&*name));
        wildcard.map_or(Place::Nowhere, |node| self.place(node))
    }

    fn place<'a>(&'a self, node: &'a Node) -> Place<'a> {
        match node.cut.as_deref() {
            None => Place::Here(node),
            Some(cut) => self.nodes.get(cut).map_or(Place::Nowhere, |at| Place::Away(cut, at)),
        }
    }

    /// The longest existing name above this one.
    fn closest_encloser(&self, wanted: &[u8]) -> Option<(&[u8], &Node)> {
        let mut next = name::parent(wanted);
        while let Some(name) = next {
            if let Some((found, node)) = self.nodes.get_key_value(name) {
                return Some((found, node));
            }
            next = name::parent(name);
        }
        None
    }
}
