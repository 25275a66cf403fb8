//! Which server made the key of which session, so that a cancel request goes there and nowhere else.
//!
//! A key is kept exactly as long as its connection, so there are never more keys than connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::targets::Target;

#[derive(Debug, Default)]
pub(crate) struct Keys(Mutex<HashMap<Vec<u8>, Target>>);

impl Keys {
    fn all(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Target>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps it for as long as the value lives. Two servers may by chance make the same key; then the later
    /// one has it, and a cancel request for the other does nothing, as any cancel request may.
    pub(crate) fn keep(self: &Arc<Self>, key: &[u8], server: &Target) -> Kept {
        self.all().insert(key.to_owned(), server.clone());
        Kept { keys: Arc::clone(self), key: key.to_owned() }
    }

    /// The server that made the key of this cancel request, if its connection is one of ours and not encrypted.
    pub(crate) fn server(&self, key: &[u8]) -> Option<Target> {
        self.all().get(key).cloned()
    }
}

#[derive(Debug)]
pub(crate) struct Kept {
    keys: Arc<Keys>,
    key: Vec<u8>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.keys.all().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::super::targets::Address;
    use super::*;

    #[test]
    fn a_key_lives_as_long_as_its_connection() {
        let address = Address::Ours(SocketAddr::from((Ipv4Addr::LOCALHOST, 5432)));
        let server = Target { name: "database-1".into(), address };
        let keys = Arc::new(Keys::default());
        let kept = keys.keep(&[1; 8], &server);
        assert_eq!(keys.server(&[1; 8]), Some(server));
        assert_eq!(keys.server(&[2; 8]), None);
        drop(kept);
        assert_eq!(keys.server(&[1; 8]), None);
    }
}
