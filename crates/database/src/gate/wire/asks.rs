//! What a client asks: only how many answers it will wait for.

use super::Messages;

/// Reads the messages of a client. What makes no sense is for the server to judge, so it is never an error here:
/// from there on the connection just counts as busy.
#[derive(Debug)]
pub struct Asks {
    messages: Messages,
    /// How many times the server will say that it is ready. The first time is after start-up.
    awaited: u64,
    /// Whether something was sent that the server works on without saying "ready" afterwards.
    unsynced: bool,
    lost: bool,
}

impl Default for Asks {
    fn default() -> Self {
        Self { messages: Messages::default(), awaited: 1, unsynced: false, lost: false }
    }
}

impl Asks {
    pub fn read(&mut self, mut bytes: &[u8]) {
        while !self.lost {
            match self.messages.next(&mut bytes) {
                Ok(Some(piece)) if piece.last => self.message(piece.kind),
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => self.lost = true,
            }
        }
    }

    /// How many times the server will have said that it is ready when it has answered everything. A server that
    /// copies in ignores `Sync`, so this may be too many, never too few.
    pub(super) fn awaited(&self) -> u64 {
        self.awaited
    }

    /// Whether everything that was sent is whole and ends in an answer.
    pub(super) fn complete(&self) -> bool {
        !self.lost && !self.unsynced && self.messages.between()
    }

    fn message(&mut self, kind: u8) {
        match kind {
            // Query, FunctionCall, Sync.
            b'Q' | b'F' | b'S' => {
                self.awaited += 1;
                self.unsynced = false;
            }
            // Passwords, and what is copied in: parts of something that is answered as a whole.
            b'p' | b'd' | b'c' | b'f' => {}
            _ => self.unsynced = true,
        }
    }
}
