//! Header fields of one head, as places in its bytes.
//!
//! The bytes are a copy that the head owns, so that the buffer it came in can go on being read into. Lines are
//! kept as they came, which lets the writer copy runs of them unchanged.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::limits;

/// Fields that the engine itself must understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Other,
    Connection,
    ContentLength,
    Date,
    Expect,
    Host,
    /// `Keep-Alive`, `Proxy-Connection`, `TE`, `HTTP2-Settings`: of this hop alone, and nothing we use.
    HopOnly,
    TransferEncoding,
    Upgrade,
    Via,
}

impl Known {
    pub fn of(name: &[u8]) -> Self {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is(b"te") => Known::HopOnly,
            3 if is(b"via") => Known::Via,
            4 if is(b"host") => Known::Host,
            4 if is(b"date") => Known::Date,
            6 if is(b"expect") => Known::Expect,
            7 if is(b"upgrade") => Known::Upgrade,
            10 if is(b"connection") => Known::Connection,
            10 if is(b"keep-alive") => Known::HopOnly,
            14 if is(b"content-length") => Known::ContentLength,
            14 if is(b"http2-settings") => Known::HopOnly,
            16 if is(b"proxy-connection") => Known::HopOnly,
            17 if is(b"transfer-encoding") => Known::TransferEncoding,
            _ => Known::Other,
        }
    }
}

/// One field: `bytes[line_start..][..name_length]` is its name, `value` its value without the blanks around it.
#[derive(Clone, Debug)]
pub struct Field {
    pub known: Known,
    line_start: u32,
    name_length: u16,
    value: Range<u32>,
}

/// All fields of a head, with what they say of the connection.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    list: Vec<Field>,
    /// Where the last line ends.
    end: u32,
    pub connection: Connection,
}

/// What the `Connection` fields say (RFC 9110 section 7.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
    /// Whether it names fields that are of this hop alone.
    pub names_fields: bool,
}

impl Fields {
    /// Takes a head that httparse has accepted; `parsed` are its fields, which point into `head`.
    pub(crate) fn load(&mut self, head: &[u8], parsed: &[httparse::Header<'_>]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(head);
        self.list.clear();
        self.list.reserve(parsed.len());
        self.end = head.len().saturating_sub(2) as u32;
        self.connection = Connection::default();
        let base = head.as_ptr() as usize;
        for header in parsed {
            let known = Known::of(header.name.as_bytes());
            if known == Known::Connection {
                self.connection.add(header.value);
            }
            let value = (header.value.as_ptr() as usize - base) as u32;
            self.list.push(Field {
                known,
                line_start: (header.name.as_ptr() as usize - base) as u32,
                name_length: header.name.len() as u16,
                value: value..value + header.value.len() as u32,
            });
        }
    }

    /// Whether its memory is worth keeping for the next head.
    pub(crate) fn is_small(&self) -> bool {
        self.bytes.capacity() <= limits::FREE_HEAD_BYTES
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn list(&self) -> &[Field] {
        &self.list
    }

    pub fn name(&self, field: &Field) -> &[u8] {
        &self.bytes[field.line_start as usize..][..field.name_length as usize]
    }

    pub fn value(&self, field: &Field) -> &[u8] {
        &self.bytes[field.value.start as usize..field.value.end as usize]
    }

    /// Where the line of this field begins and ends, the line end included.
    pub(crate) fn line(&self, index: usize) -> Range<usize> {
        let end = self.list.get(index + 1).map_or(self.end, |next| next.line_start);
        self.list[index].line_start as usize..end as usize
    }

    pub fn known(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.list.iter().filter(move |field| field.known == known).map(|field| self.value(field))
    }

    /// The value of the first field of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The values of all fields of this name, in their order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// Names and values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.list.iter().map(|field| (self.name(field), self.value(field)))
    }

    /// Whether `Connection` says that this field is of this hop alone.
    pub(crate) fn is_named_by_connection(&self, name: &[u8]) -> bool {
        self.connection.names_fields
            && self.known(Known::Connection).flat_map(tokens).any(|token| token.eq_ignore_ascii_case(name))
    }
}

impl Connection {
    fn add(&mut self, value: &[u8]) {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.names_fields = true;
            }
        }
    }
}

/// The members of a comma-separated list, without blanks and without empty ones (RFC 9110 section 5.6.1).
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// The array that httparse fills. Not initialised: that alone would cost more than parsing a small head.
pub(crate) type Parsed<'a> = [MaybeUninit<httparse::Header<'a>>; limits::FIELDS];

pub(crate) const fn unparsed<'a>() -> Parsed<'a> {
    [const { MaybeUninit::uninit() }; limits::FIELDS]
}
