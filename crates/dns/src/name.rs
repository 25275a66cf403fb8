//! Domain names in wire format, lower case: a run of labels, each after its length, then a zero (RFC 1035
//! section 3.1).
//!
//! A whole name may be lowered byte by byte: a length is at most 63, and upper case begins at 65. Nothing
//! here allocates while a query is answered.

use domain::base::name::Name as Parsed;

/// The longest name in bytes, with all lengths and the last zero (RFC 1035 section 2.3.4).
pub(crate) const LONGEST: usize = 255;
const LONGEST_LABEL: u8 = 63;

/// A name as a key of the zone.
pub(crate) type Key = Box<[u8]>;

/// A name on the stack.
#[derive(Clone, Copy)]
pub(crate) struct Lowered {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Lowered {
    /// Copies and lowers a name whose length was found by [`length`]; None when it is longer than a name.
    pub(crate) fn of(name: &[u8]) -> Option<Self> {
        let mut bytes = [0; LONGEST];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        bytes[..name.len()].make_ascii_lowercase();
        Some(Self { bytes, length: name.len() })
    }
}

impl std::ops::Deref for Lowered {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// How many bytes the uncompressed name at the beginning of these bytes takes. None when there is no such
/// name: cut off, too long, or with a pointer, which cannot point anywhere in a question.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            label if label <= LONGEST_LABEL => at += 1 + usize::from(label),
            _ => return None,
        }
        if at >= LONGEST {
            return None;
        }
    }
}

/// The name without its first label; None for the root.
pub(crate) fn parent(name: &[u8]) -> Option<&[u8]> {
    match name.first() {
        None | Some(0) => None,
        Some(label) => name.get(1 + usize::from(*label)..),
    }
}

/// Whether the name is the zone's own or below it.
pub(crate) fn is_within(name: &[u8], zone: &[u8]) -> bool {
    let mut next = Some(name);
    while let Some(name) = next {
        if name.len() <= zone.len() {
            return name == zone;
        }
        next = parent(name);
    }
    false
}

/// Reads a name as people write it, with or without the last dot.
pub(crate) fn parse(text: &str) -> Option<Key> {
    let name = Parsed::vec_from_str(text).ok()?;
    Some(name.as_slice().to_ascii_lowercase().into_boxed_slice())
}

/// The name as people write it, without the last dot.
pub(crate) fn show(name: &[u8]) -> String {
    Parsed::from_slice(name).map_or_else(|_| format!("{name:?}"), |name| name.to_string())
}

/// `*.` and the name. None when that would be too long for a name.
pub(crate) fn wildcard_below(name: &[u8]) -> Option<Lowered> {
    let mut bytes = [0; LONGEST];
    bytes[..2].copy_from_slice(b"\x01*");
    bytes.get_mut(2..2 + name.len())?.copy_from_slice(name);
    Some(Lowered { bytes, length: 2 + name.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_measured() {
        let long = [[&[63][..], &[b'a'; 63]].concat().repeat(4), vec![0]].concat();
        let cases: [(&[u8], Option<usize>); 7] = [
            (b"\0", Some(1)),
            (b"\x03www\x03Foo\0rest", Some(9)),
            (b"", None),
            (b"\x03ww", None),
            (b"\x03www", None),
            (b"\xc0\x0c", None),
            (&long, None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(length(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_name_is_within_its_zone_by_whole_labels() {
        let zone = parse("foobar.com").unwrap();
        for (name, within) in [
            ("foobar.com", true),
            ("www.foobar.com.", true),
            ("WWW.FooBar.com", true),
            ("xfoobar.com", false),
            ("com", false),
            (".", false),
        ] {
            assert_eq!(is_within(&parse(name).unwrap(), &zone), within, "{name}");
        }
    }

    #[test]
    fn a_name_is_shown_as_written() {
        assert_eq!(show(&parse("Www.Foobar.com").unwrap()), "www.foobar.com");
    }
}
