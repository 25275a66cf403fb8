//! The servers that one request was sent to so far.

/// The targets that a request has tried, by index. Each is tried at most once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried(u128);

impl Tried {
    pub fn add(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    pub fn has(&self, index: usize) -> bool {
        self.0 >> index & 1 == 1
    }

    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }
}
