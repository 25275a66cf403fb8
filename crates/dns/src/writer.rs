//! Writing an answer that never grows over its limit.
//!
//! Owners are compressed against the question, which holds the zone's name, so that no table of earlier names
//! is needed. Names inside data are not compressed: it saves little and RFC 3597 forbids it for newer types.

use crate::answer::Rcode;
use crate::query::{Edns, HEADER, Header};
use crate::snapshot::{Set, kind};

/// What we can take over UDP, and the most that we send, so that no packet is fragmented (DNS flag day 2020).
pub(crate) const PAYLOAD: u16 = 1232;
/// An OPT record without options.
const OPT_LENGTH: usize = 11;

const QR: u16 = 0x8000;
const AA: u16 = 0x0400;
const TC: u16 = 0x0200;

#[derive(Clone, Copy)]
pub(crate) enum Section {
    Answer = 0,
    Authority = 1,
    Additional = 2,
}

/// There is no room for a whole set.
#[derive(Debug)]
pub(crate) struct Full;

pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Where this message begins in `out`.
    start: usize,
    limit: usize,
    header: Header,
    /// The name of the question, in lower case.
    asked: &'a [u8],
    /// Where the question ends.
    body: usize,
    edns: Option<Edns>,
    counts: [u16; 3],
}

impl<'a> Writer<'a> {
    /// Begins a message: `question` is empty when the client's could not be read.
    pub(crate) fn begin(
        out: &'a mut Vec<u8>,
        limit: usize,
        header: Header,
        question: &[u8],
        asked: &'a [u8],
        edns: Option<Edns>,
    ) -> Self {
        let start = out.len();
        out.extend([0; HEADER]);
        out.extend(question);
        let body = out.len();
        let limit = start + limit - if edns.is_some() { OPT_LENGTH } else { 0 };
        Self { out, start, limit, header, asked, body, edns, counts: [0; 3] }
    }

    /// Adds a whole set, or nothing. `turn` decides which address stands first.
    pub(crate) fn set(&mut self, section: Section, owner: &[u8], set: &Set, turn: usize) -> Result<(), Full> {
        let (mark, count) = (self.out.len(), set.records.len());
        let first = if matches!(set.kind, kind::A | kind::AAAA) { turn % count.max(1) } else { 0 };
        for record in set.records[first..].iter().chain(&set.records[..first]) {
            self.name(owner);
            self.out.extend_from_slice(record);
            if self.out.len() > self.limit {
                self.out.truncate(mark);
                return Err(Full);
            }
        }
        self.counts[section as usize] += count as u16;
        Ok(())
    }

    /// Writes an owner, as a pointer into the question from the first label that they share.
    fn name(&mut self, owner: &[u8]) {
        let mut rest = owner;
        while let Some(label) = rest.first().map(|length| usize::from(*length)).filter(|label| *label > 0) {
            if self.asked.ends_with(rest) {
                let at = HEADER + self.asked.len() - rest.len();
                self.out.extend((0xc000 | at as u16).to_be_bytes());
                return;
            }
            self.out.extend_from_slice(&rest[..=label]);
            rest = &rest[1 + label..];
        }
        self.out.push(0);
    }

    /// Completes the message. A truncated one has no records: the client asks again over TCP
    /// (RFC 2181 section 9 lets nobody use what a truncated one has).
    pub(crate) fn finish(mut self, rcode: Rcode, authoritative: bool, truncated: bool) {
        if truncated {
            self.out.truncate(self.body);
            self.counts = [0; 3];
        }
        if let Some(edns) = self.edns {
            self.out.extend([0, 0, kind::OPT as u8]);
            self.out.extend(PAYLOAD.to_be_bytes());
            // The code's upper bits, our version 0, DO as it came (RFC 3225 section 3), no options.
            self.out.extend([rcode as u8 >> 4, 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
            self.counts[2] += 1;
        }
        let mut flags = QR | self.header.flags | u16::from(rcode as u8 & 0x0f);
        flags |= if authoritative { AA } else { 0 };
        flags |= if truncated { TC } else { 0 };
        let questions = u16::from(self.body > self.start + HEADER);
        let [answer, authority, additional] = self.counts;
        let head = &mut self.out[self.start..self.start + HEADER];
        head[..2].copy_from_slice(&self.header.id);
        for (place, number) in [flags, questions, answer, authority, additional].into_iter().enumerate() {
            head[2 + 2 * place..4 + 2 * place].copy_from_slice(&number.to_be_bytes());
        }
    }
}
