//! PostgreSQL's protocol, as far as a gate must understand it: no sockets, no clock, any bytes.
//!
//! After the start-up message both sides send messages of one shape: a letter, a length, a body. A gate looks
//! at the letters and skips the bodies, so that a large result costs it nothing but one look for each message;
//! of four small bodies ([`answers`]) it reads what it needs. Nothing here holds more than a key of 256 bytes,
//! whatever length a message claims, and nothing here changes a byte of what passes.
//!
//! PostgreSQL manual, sections 55.2 (flow) and 55.7 (formats).

pub mod answers;

pub mod asks;

pub mod opening;

pub use answers::Answers;
pub use asks::Asks;
pub use opening::Opening;

/// A letter and a length, which counts itself.
const HEAD: usize = 5;
const LENGTH: usize = 4;

/// A length that no message can have. What follows cannot be told apart any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of type {kind:?} claims a length of {length} bytes, less than the length itself")]
pub struct Malformed {
    pub kind: char,
    pub length: u32,
}

/// Where one side is in its messages.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    head: [u8; HEAD],
    /// How many bytes of the head are there.
    have: usize,
    /// How many bytes of the body are still to come, once the head is whole.
    left: usize,
}

/// A part of a message's body, as large as it came. Every message has at least one, be it empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    pub kind: u8,
    pub body: &'a [u8],
    /// Whether the message ends with it.
    pub last: bool,
}

impl Messages {
    /// Takes the next piece from the front of `bytes`; `None` when more bytes are needed.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, Malformed> {
        if self.have < HEAD {
            let taken = bytes.len().min(HEAD - self.have);
            let (head, rest) = bytes.split_at(taken);
            self.head[self.have..self.have + taken].copy_from_slice(head);
            self.have += taken;
            *bytes = rest;
            if self.have < HEAD {
                return Ok(None);
            }
            self.left = self.body_length()?;
        } else if bytes.is_empty() {
            return Ok(None);
        }
        let (body, rest) = bytes.split_at(bytes.len().min(self.left));
        *bytes = rest;
        self.left -= body.len();
        let last = self.left == 0;
        if last {
            self.have = 0;
        }
        Ok(Some(Piece { kind: self.head[0], body, last }))
    }

    /// Whether the last message is whole, so that another may follow.
    pub fn between(&self) -> bool {
        self.have == 0
    }

    fn body_length(&self) -> Result<usize, Malformed> {
        let [kind, length @ ..] = self.head;
        let length = u32::from_be_bytes(length);
        let malformed = Malformed { kind: char::from(kind), length };
        (length as usize).checked_sub(LENGTH).ok_or(malformed)
    }
}

/// Both sides of one connection, from behind its start-up message.
#[derive(Debug, Default)]
pub struct Conversation {
    pub asks: Asks,
    pub answers: Answers,
}

impl Conversation {
    /// With a server that is to take writes.
    pub fn with_primary() -> Self {
        Self { answers: Answers::of_primary(), ..Self::default() }
    }

    /// Whether nothing is under way: the server waits for the next statement outside of a transaction, and the
    /// client has begun none. False when in doubt.
    pub fn idle(&self) -> bool {
        self.asks.complete() && self.answers.idle_after(self.asks.awaited())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every piece of these chunks: the letter, the bytes of the body, and whether it was the last one.
    fn pieces(chunks: &[&[u8]]) -> Vec<(char, Vec<u8>, bool)> {
        let mut messages = Messages::default();
        let mut pieces = Vec::new();
        for chunk in chunks {
            let mut rest = *chunk;
            while let Some(piece) = messages.next(&mut rest).unwrap() {
                pieces.push((char::from(piece.kind), piece.body.to_vec(), piece.last));
            }
            assert!(rest.is_empty());
        }
        pieces
    }

    #[test]
    fn messages_are_cut_wherever_the_network_cuts_them() {
        let bytes = b"D\0\0\0\x07abcS\0\0\0\x04Z\0\0\0\x05I";
        let whole = [('D', b"abc".to_vec(), true), ('S', vec![], true), ('Z', b"I".to_vec(), true)];
        assert_eq!(pieces(&[bytes]), whole);
        for at in 0..bytes.len() {
            let (one, two) = bytes.split_at(at);
            let mut joined: Vec<(char, Vec<u8>, bool)> = Vec::new();
            for (kind, body, last) in pieces(&[one, two]) {
                match joined.last_mut() {
                    Some((_, before, done @ false)) => {
                        before.extend(body);
                        *done = last;
                    }
                    _ => joined.push((kind, body, last)),
                }
            }
            assert_eq!(joined, whole, "cut at {at}");
        }
    }

    #[test]
    fn a_length_shorter_than_itself_is_refused() {
        let mut rest = &b"D\0\0\0\x03"[..];
        let error = Messages::default().next(&mut rest).unwrap_err();
        assert_eq!(error, Malformed { kind: 'D', length: 3 });
    }

    #[test]
    fn a_connection_is_idle_only_while_nothing_is_under_way() {
        const IDLE: &[u8] = b"Z\0\0\0\x05I";
        const IN_TRANSACTION: &[u8] = b"Z\0\0\0\x05T";
        const QUERY: &[u8] = b"Q\0\0\0\x06;\0";
        const EXECUTE: &[u8] = b"E\0\0\0\x09\0\0\0\0\0";
        const SYNC: &[u8] = b"S\0\0\0\x04";
        let mut conversation = Conversation::default();
        let mut check = |asked: &[&[u8]], answered: &[&[u8]], idle: bool| {
            asked.iter().for_each(|bytes| conversation.asks.read(bytes));
            for bytes in answered {
                assert_eq!(conversation.answers.read(bytes), Ok(None));
            }
            assert_eq!(conversation.idle(), idle, "{asked:?} {answered:?}");
        };
        check(&[], &[], false);
        check(&[b"p\0\0\0\x08abc\0"], &[b"R\0\0\0\x08\0\0\0\0"], false);
        check(&[], &[IDLE], true);
        check(&[QUERY], &[], false);
        check(&[], &[IN_TRANSACTION], false);
        check(&[QUERY], &[IDLE], true);
        check(&[QUERY, QUERY], &[IDLE], false);
        check(&[], &[IDLE], true);
        check(&[EXECUTE], &[], false);
        check(&[SYNC], &[], false);
        check(&[], &[IDLE], true);
        check(&[&QUERY[..3]], &[], false);
        check(&[&QUERY[3..]], &[&IDLE[..5]], false);
        check(&[], &[&IDLE[5..]], true);
        check(&[b"Q\0\0\0\0"], &[IDLE, IDLE], false);
    }
}
