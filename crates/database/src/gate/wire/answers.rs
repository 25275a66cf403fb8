//! What a server answers: the key for cancelling, whether it is ready, the one warning that a commit is not
//! safe, and whether it is a standby.
//!
//! PostgreSQL ends a cancelled wait for the synchronous replicas with success: the transaction is on the
//! primary's disk, and the client is told so with a mere warning (`SyncRepWaitForLSN` in `syncrep.c`: severity
//! WARNING, SQLSTATE 01000, or 57P01 when the server is being stopped; the text is translated, the name of the
//! routine never is). Such a commit may vanish with the primary. So a gate looks for that routine in every
//! notice, field by field and without keeping any of it.
//!
//! A server tells at the start of a session whether it is a standby (`in_hot_standby`, since PostgreSQL 14). An old
//! primary that has fenced itself becomes one while gates beside it may not know yet that its lease is over, and
//! a standby shows commits that no other server has: nobody may see them at the read-write address.

use super::{Malformed, Messages};

/// The routine that says a commit was not confirmed. No statement can send a notice in its name.
const UNCONFIRMED: &[u8] = b"SyncRepWaitForLSN";

/// The body of the ParameterStatus of a standby.
const STANDBY: &[u8] = b"in_hot_standby\0on\0";

/// Process number and secret of a session: 4 + 4 bytes, up to 4 + 256 in protocol 3.2.
const KEY_BYTES: usize = 4 + 256;

/// Reads the messages of a server.
#[derive(Debug, Default)]
pub struct Answers {
    messages: Messages,
    notice: Notice,
    key: Vec<u8>,
    key_is_whole: bool,
    /// How many times it has said that it is ready for a statement, and whether outside of a transaction.
    ready: u64,
    outside: bool,
    /// Whether it must be a primary.
    no_standby: bool,
    /// The beginning of a ParameterStatus, up to one byte more than that of a standby has.
    parameter: Vec<u8>,
    is_standby: bool,
}

impl Answers {
    /// Of a server that is to take writes.
    pub fn of_primary() -> Self {
        Self { no_standby: true, ..Self::default() }
    }

    /// Reads what came next. `Some`: a commit was not confirmed, or the server is a standby and must not be
    /// ([`Answers::is_standby`]), and what comes after this many of these bytes must not reach the client.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut rest = bytes;
        while let Some(piece) = self.messages.next(&mut rest)? {
            match piece.kind {
                b'N' if self.notice.unconfirmed(piece.body, piece.last) => {
                    return Ok(Some(bytes.len() - rest.len()));
                }
                b'S' if self.no_standby && self.parameter_of_standby(piece.body, piece.last) => {
                    self.is_standby = true;
                    return Ok(Some(bytes.len() - rest.len()));
                }
                b'Z' => self.ready_for_query(piece.body, piece.last),
                b'K' => self.backend_key(piece.body, piece.last),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Whether a message of ours could stand behind what was read.
    pub fn between(&self) -> bool {
        self.messages.between()
    }

    /// Whether what must be a primary has said that it is a standby.
    pub fn is_standby(&self) -> bool {
        self.is_standby
    }

    /// Process number and secret, as a cancel request repeats them, once they are known.
    pub fn key(&self) -> Option<&[u8]> {
        self.key_is_whole.then_some(&self.key)
    }

    pub(super) fn idle_after(&self, awaited: u64) -> bool {
        self.ready >= awaited && self.outside && self.between()
    }

    fn ready_for_query(&mut self, body: &[u8], last: bool) {
        if let Some(status) = body.first() {
            self.outside = *status == b'I';
        }
        self.ready += u64::from(last);
    }

    fn parameter_of_standby(&mut self, body: &[u8], last: bool) -> bool {
        let room = STANDBY.len() + 1 - self.parameter.len();
        self.parameter.extend_from_slice(&body[..body.len().min(room)]);
        let found = last && self.parameter == STANDBY;
        if last {
            self.parameter.clear();
        }
        found
    }

    fn backend_key(&mut self, body: &[u8], last: bool) {
        if self.key_is_whole {
            return;
        }
        let room = KEY_BYTES - self.key.len();
        self.key.extend_from_slice(&body[..body.len().min(room)]);
        self.key_is_whole = last;
    }
}

/// Where we are in the fields of a notice: a letter, a text and a zero byte each.
#[derive(Debug, Default)]
struct Notice {
    field: Field,
    found: bool,
}

#[derive(Debug, Default)]
enum Field {
    #[default]
    Letter,
    /// In the name of the routine, of which this many bytes are as looked for.
    Routine(usize),
    Other,
}

impl Notice {
    /// Whether the message ends with this part of its body and named the routine that we look for.
    fn unconfirmed(&mut self, body: &[u8], last: bool) -> bool {
        for byte in body {
            self.byte(*byte);
        }
        last && std::mem::take(self).found
    }

    fn byte(&mut self, byte: u8) {
        self.field = match (&self.field, byte) {
            (Field::Letter, b'R') => Field::Routine(0),
            (Field::Letter, 0) => Field::Letter,
            (Field::Letter, _) => Field::Other,
            (Field::Routine(alike), 0) => {
                self.found |= *alike == UNCONFIRMED.len();
                Field::Letter
            }
            (Field::Routine(alike), _) if UNCONFIRMED.get(*alike) == Some(&byte) => Field::Routine(alike + 1),
            (Field::Other, 0) => Field::Letter,
            (Field::Routine(_) | Field::Other, _) => Field::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    fn notice(routine: &str) -> Vec<u8> {
        let text = "canceling wait for synchronous replication due to user request";
        let body = format!(
            "SWARNING\0VWARNING\0C01000\0M{text}\0DRSyncRepWaitForLSN\0Fsyncrep.c\0L297\0R{routine}\0\0"
        );
        message(b'N', body.as_bytes())
    }

    #[test]
    fn an_unconfirmed_commit_is_seen_wherever_it_is_cut_and_nothing_passes_after_it() {
        let before = message(b'1', b"");
        let warning = notice("SyncRepWaitForLSN");
        let bytes = [&before[..], &warning, &message(b'C', b"INSERT 0 1\0")].concat();
        let end = before.len() + warning.len();
        for at in 0..=bytes.len() {
            let mut answers = Answers::default();
            let stop = match answers.read(&bytes[..at]).unwrap() {
                Some(stop) => stop,
                None => at + answers.read(&bytes[at..]).unwrap().unwrap(),
            };
            assert_eq!(stop, end, "cut at {at}");
            assert!(answers.between());
        }
    }

    #[test]
    fn other_notices_pass() {
        for routine in ["", "SyncRepWaitForLS", "SyncRepWaitForLSNs", "xSyncRepWaitForLSN", "exec_stmt_raise"]
        {
            let mut answers = Answers::default();
            assert_eq!(answers.read(&notice(routine)), Ok(None), "{routine}");
        }
        // Nor one that ends within the name, followed by one that begins with the rest.
        let mut answers = Answers::default();
        let bytes = [message(b'N', b"RSyncRepWait"), message(b'N', b"ForLSN\0\0")].concat();
        assert_eq!(answers.read(&bytes), Ok(None));
    }

    #[test]
    fn a_standby_is_known_wherever_its_word_is_cut_and_only_where_a_primary_is_wanted() {
        let before = [message(b'R', &[0; 4]), message(b'S', b"in_hot_standby\0off\0")].concat();
        let other = message(b'S', b"application_name\0in_hot_standby\0");
        let word = message(b'S', STANDBY);
        let bytes = [&before[..], &other, &word, &message(b'Z', b"I")].concat();
        let end = before.len() + other.len() + word.len();
        for at in 0..=bytes.len() {
            let mut answers = Answers::of_primary();
            let stop = match answers.read(&bytes[..at]).unwrap() {
                Some(stop) => stop,
                None => at + answers.read(&bytes[at..]).unwrap().unwrap(),
            };
            assert_eq!((stop, answers.is_standby()), (end, true), "cut at {at}");
            assert!(answers.between());
        }
        let mut answers = Answers::default();
        assert_eq!((answers.read(&bytes), answers.is_standby()), (Ok(None), false));
        let mut answers = Answers::of_primary();
        assert_eq!(answers.read(&before), Ok(None));
        assert_eq!(answers.read(&message(b'S', &[b'x'; 100_000])), Ok(None));
        assert!(answers.parameter.capacity() < 100);
    }

    #[test]
    fn the_key_is_kept_whole_and_bounded() {
        let mut answers = Answers::default();
        let bytes = message(b'K', &[7; 36]);
        answers.read(&bytes[..20]).unwrap();
        assert_eq!(answers.key(), None);
        answers.read(&bytes[20..]).unwrap();
        answers.read(&message(b'K', &[8; 8])).unwrap();
        assert_eq!(answers.key(), Some(&[7; 36][..]));
        let mut answers = Answers::default();
        answers.read(&message(b'K', &[7; 100_000])).unwrap();
        assert_eq!(answers.key().map(<[u8]>::len), Some(KEY_BYTES));
    }
}
