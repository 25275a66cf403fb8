//! A port for a worker, free on all addresses of this computer.
//!
//! Nothing is held: between our look and the worker's own bind another may take it, and then the worker gets
//! another one. Several app servers, sites and tests choose at the same time on one computer, so each begins
//! its search somewhere else.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Below the ephemeral range of Linux (32768 up), above what people give to programs.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_768;
/// Ports looked at for one worker.
const LOOKS: u16 = 2_000;

/// The ports of this server's workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ports(Arc<Mutex<HashSet<u16>>>);

/// One port, until it is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    ports: Ports,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.ports.taken().remove(&self.number);
    }
}

impl Ports {
    /// Finds a free one. `seed` decides where the search begins.
    pub(crate) fn choose(&self, seed: impl Hash) -> Option<Port> {
        let mut taken = self.taken();
        let number = candidates(seed).find(|port| !taken.contains(port) && is_free(*port))?;
        taken.insert(number);
        drop(taken);
        Some(Port { number, ports: self.clone() })
    }

    fn taken(&self) -> MutexGuard<'_, HashSet<u16>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ports in the order in which they are looked at.
fn candidates(seed: impl Hash) -> impl Iterator<Item = u16> {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    let begin = (hasher.finish() % u64::from(COUNT)) as u16;
    (0..LOOKS).map(move |step| FIRST + (begin + step) % COUNT)
}

/// A bind on the wildcard fails when any address of this computer has a listener on the port.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_given_twice_and_comes_back() {
        let ports = Ports::default();
        let seed = ("ports", std::process::id());
        let (first, second) = (ports.choose(seed).unwrap(), ports.choose(seed).unwrap());
        assert_ne!(first.number, second.number);
        let again = first.number;
        drop(first);
        assert_eq!(ports.choose(seed).unwrap().number, again);
    }

    #[test]
    fn a_port_with_a_listener_on_any_address_is_passed_over() {
        let ports = Ports::default();
        let seed = ("listener", std::process::id());
        let number = ports.choose(seed).unwrap().number;
        let _listener = TcpListener::bind(("127.0.42.9", number)).unwrap();
        assert_ne!(ports.choose(seed).unwrap().number, number);
    }

    #[test]
    fn all_are_below_the_ephemeral_range() {
        for seed in 0..200 {
            assert!(candidates(seed).all(|port| (20_000..=32_767).contains(&port)));
        }
    }
}
