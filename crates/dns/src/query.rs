//! Reading a query: what is asked, and what cannot be asked.
//!
//! Nothing in a packet is believed: every length is checked, every loop is bounded by the packet's own size,
//! and a packet that is itself an answer is dropped, so that two servers never talk to each other forever.

use crate::answer::Rcode;
use crate::name;
use crate::snapshot::kind;

pub(crate) const HEADER: usize = 12;
const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
/// Copied into the answer: recursion desired, checking disabled (RFC 4035 section 3.1.6), and the opcode.
const KEPT: u16 = OPCODE | 0x0100 | 0x0010;
/// Type, class, TTL and length of a record, after its owner.
const FIXED: usize = 10;

/// One query that is in order.
pub(crate) struct Query<'a> {
    /// Name, type and class as they came: given back with the client's upper and lower case.
    pub(crate) question: &'a [u8],
    pub(crate) name: name::Lowered,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) edns: Option<Edns>,
}

/// What the client says of itself (RFC 6891 section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    pub(crate) payload: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
}

/// The id, and the flags that an answer takes over.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    pub(crate) id: [u8; 2],
    pub(crate) flags: u16,
    counts: [u16; 4],
}

/// Reads the header. None: not a query, and no answer is given.
pub(crate) fn header(bytes: &[u8]) -> Option<Header> {
    let head = bytes.get(..HEADER)?;
    let flags = number(head, 2)?;
    let counts = [number(head, 4)?, number(head, 6)?, number(head, 8)?, number(head, 10)?];
    (flags & QR == 0).then_some(Header { id: [head[0], head[1]], flags: flags & KEPT, counts })
}

/// Reads the rest of a query with this header, or says with which code it is refused.
pub(crate) fn read<'a>(bytes: &'a [u8], header: &Header) -> Result<Query<'a>, Rcode> {
    if header.flags & OPCODE != 0 {
        return Err(Rcode::NotImp);
    }
    // One question only (RFC 9619).
    if header.counts[0] != 1 {
        return Err(Rcode::FormErr);
    }
    question(bytes, header).ok_or(Rcode::FormErr)
}

fn question<'a>(bytes: &'a [u8], header: &Header) -> Option<Query<'a>> {
    let rest = bytes.get(HEADER..)?;
    let length = name::length(rest)?;
    let end = HEADER + length + 4;
    let mut query = Query {
        question: bytes.get(HEADER..end)?,
        name: name::Lowered::of(&rest[..length])?,
        kind: number(rest, length)?,
        class: number(rest, length + 2)?,
        edns: None,
    };
    let before = u32::from(header.counts[1]) + u32::from(header.counts[2]);
    let mut at = end;
    for index in 0..before + u32::from(header.counts[3]) {
        let owner = at;
        at = skip_name(bytes, at)?;
        let is_edns = number(bytes, at)? == kind::OPT;
        if is_edns && (index < before || query.edns.is_some() || bytes[owner] != 0) {
            return None;
        }
        if is_edns {
            query.edns = Some(edns(bytes, at)?);
        }
        at += FIXED + usize::from(number(bytes, at + 8)?);
    }
    // Nothing may follow, and the last record must be whole.
    (at == bytes.len()).then_some(query)
}

fn edns(bytes: &[u8], at: usize) -> Option<Edns> {
    Some(Edns {
        payload: number(bytes, at + 2)?,
        version: *bytes.get(at + 5)?,
        dnssec_ok: bytes.get(at + 6)? & 0x80 != 0,
    })
}

/// Where the name at this place ends; pointers are stepped over, not followed.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            label if label & 0xc0 == 0 => at += 1 + usize::from(label),
            pointer if pointer & 0xc0 == 0xc0 => return Some(at + 2),
            _ => return None,
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}
