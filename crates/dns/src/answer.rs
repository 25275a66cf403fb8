//! One query in, one answer out: no sockets, no clock, no state.
//!
//! The order of the checks is that of RFC 1034 section 4.3.2 with what came after it: EDNS (RFC 6891),
//! negative answers (RFC 2308), wildcards (RFC 4592), minimal ANY (RFC 8482). Never an answer to an answer,
//! never more bytes than the client can take, never a word about a zone that is not ours.

use crate::name::{self, Lowered};
use crate::query::{self, Query};
use crate::snapshot::{CLASS_IN, Place, Set, Snapshot, kind};
use crate::writer::{Full, PAYLOAD, Section, Writer};

/// The most bytes to a client that says nothing of itself (RFC 1035 section 4.2.1).
const PLAIN_UDP: u16 = 512;
/// The most aliases followed for one query: a longer chain, or a circle, is left to the resolver.
const ALIASES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Response codes that we give (IANA DNS RCODEs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rcode {
    NoError = 0,
    FormErr = 1,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    BadVers = 16,
}

/// What became of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was not a query; nothing was written.
    Dropped,
    Answered {
        rcode: Rcode,
        truncated: bool,
    },
}

/// Appends the answer to `out`. `turn` is any number that differs from query to query: it decides which of
/// several addresses stands first.
pub fn answer(
    snapshot: &Snapshot,
    bytes: &[u8],
    transport: Transport,
    turn: usize,
    out: &mut Vec<u8>,
) -> Verdict {
    let Some(header) = query::header(bytes) else { return Verdict::Dropped };
    let query = match query::read(bytes, &header) {
        Ok(query) => query,
        Err(rcode) => {
            Writer::begin(out, PLAIN_UDP.into(), header, &[], &[], None).finish(rcode, false, false);
            return Verdict::Answered { rcode, truncated: false };
        }
    };
    let limit = limit(&query, transport);
    let mut writer = Writer::begin(out, limit, header, query.question, &query.name, query.edns);
    let mut reply = Reply { snapshot, turn, rcode: Rcode::NoError, authoritative: false };
    let truncated = reply.fill(&query, &mut writer).is_err();
    writer.finish(reply.rcode, reply.authoritative, truncated);
    Verdict::Answered { rcode: reply.rcode, truncated }
}

fn limit(query: &Query<'_>, transport: Transport) -> usize {
    match (transport, query.edns) {
        (Transport::Tcp, _) => u16::MAX.into(),
        (Transport::Udp, None) => PLAIN_UDP.into(),
        (Transport::Udp, Some(edns)) => edns.payload.clamp(PLAIN_UDP, PAYLOAD).into(),
    }
}

/// Why a query gets no answer from the zone.
fn refusal(query: &Query<'_>, zone: &[u8]) -> Option<Rcode> {
    if query.edns.is_some_and(|edns| edns.version > 0) {
        return Some(Rcode::BadVers);
    }
    match query.kind {
        kind::OPT | kind::TKEY | kind::TSIG | 0 => Some(Rcode::FormErr),
        kind::MAILA | kind::MAILB => Some(Rcode::NotImp),
        kind::AXFR | kind::IXFR => Some(Rcode::Refused),
        _ if query.class != CLASS_IN || !name::is_within(&query.name, zone) => Some(Rcode::Refused),
        _ => None,
    }
}

struct Reply<'a> {
    snapshot: &'a Snapshot,
    turn: usize,
    rcode: Rcode,
    authoritative: bool,
}

impl Reply<'_> {
    fn fill(&mut self, query: &Query<'_>, writer: &mut Writer<'_>) -> Result<(), Full> {
        if let Some(rcode) = refusal(query, &self.snapshot.zone) {
            self.rcode = rcode;
            return Ok(());
        }
        let mut name = query.name;
        for _ in 0..=ALIASES {
            match self.step(&name, query.kind, writer)? {
                Some(alias) => name = alias,
                None => break,
            }
        }
        Ok(())
    }

    /// Answers for one name; a CNAME gives the next one.
    fn step(&mut self, name: &[u8], kind: u16, writer: &mut Writer<'_>) -> Result<Option<Lowered>, Full> {
        let node = match self.snapshot.find(name, kind) {
            Place::Here(node) => node,
            Place::Away(cut, node) => return self.refer(cut, node.set(kind::NS), writer).map(|()| None),
            Place::Nowhere => {
                self.rcode = Rcode::NxDomain;
                return self.deny(writer).map(|()| None);
            }
        };
        self.authoritative = true;
        if let Some(set) = node.set(kind) {
            writer.set(Section::Answer, name, set, self.turn)?;
            self.add_targets(name, set, writer);
            return Ok(None);
        }
        if let Some(set) = node.set(kind::CNAME) {
            writer.set(Section::Answer, name, set, self.turn)?;
            let alias = set.alias.as_ref().filter(|_| kind != kind::ANY);
            return Ok(alias.and_then(|alias| Lowered::of(alias)));
        }
        if kind == kind::ANY && !node.sets.is_empty() {
            return writer.set(Section::Answer, name, &self.snapshot.everything, 0).map(|()| None);
        }
        self.deny(writer).map(|()| None)
    }

    /// The SOA says how long the absence may be remembered (RFC 2308 section 3).
    fn deny(&mut self, writer: &mut Writer<'_>) -> Result<(), Full> {
        self.authoritative = true;
        writer.set(Section::Authority, &self.snapshot.zone, &self.snapshot.negative, 0)
    }

    /// Names the servers of a delegated part, and all their addresses that we know (RFC 9471 section 2).
    /// It is not authoritative, unless an alias of ours led there.
    fn refer(&mut self, cut: &[u8], set: Option<&Set>, writer: &mut Writer<'_>) -> Result<(), Full> {
        let Some(set) = set else { return Ok(()) };
        writer.set(Section::Authority, cut, set, 0)?;
        for target in &set.targets {
            self.add_addresses(target, writer)?;
        }
        Ok(())
    }

    /// Adds the addresses that a client asks for next, as far as they fit: leaving them out is no truncation
    /// (RFC 2181 section 9).
    fn add_targets(&self, asked: &[u8], set: &Set, writer: &mut Writer<'_>) {
        for target in set.targets.iter().filter(|target| ***target != *asked) {
            if self.add_addresses(target, writer).is_err() {
                return;
            }
        }
    }

    fn add_addresses(&self, target: &[u8], writer: &mut Writer<'_>) -> Result<(), Full> {
        let Some(node) = self.snapshot.nodes.get(target) else { return Ok(()) };
        for set in [kind::A, kind::AAAA].into_iter().filter_map(|kind| node.set(kind)) {
            writer.set(Section::Additional, target, set, self.turn)?;
        }
        Ok(())
    }
}
