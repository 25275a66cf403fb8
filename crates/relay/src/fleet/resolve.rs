//! Names to addresses, asked of the computer itself (getaddrinfo): so /etc/hosts, search domains and whatever else its
//! keeper has set up count as they do for every program, and one question has one answer everywhere on it.
//!
//! The answer comes without a time to live, so names are asked again at an interval. The question blocks, for as long as
//! the resolver likes: it has a thread of its own, at most one for each name, and nobody waits for it at the end.

use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::reason::reason;

/// After this time without an answer the name counts as not resolved. The question goes on.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of a name.
type Answer = io::Result<Vec<IpAddr>>;

/// Says where a name leads; may block.
#[derive(Clone)]
pub struct Resolver(Arc<dyn Fn(&str) -> Answer + Send + Sync>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl Default for Resolver {
    /// The computer's own.
    fn default() -> Self {
        Self::new(|host| {
            let addresses = (host, 0).to_socket_addrs()?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

impl Resolver {
    pub fn new(resolve: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self(Arc::new(resolve))
    }

    /// A question that is asked again and again.
    pub(super) fn question(&self, host: &str) -> Question {
        Question { resolver: self.clone(), host: host.to_owned(), asked: None }
    }
}

pub(super) struct Question {
    resolver: Resolver,
    host: String,
    /// The answer that is still to come.
    asked: Option<oneshot::Receiver<Answer>>,
}

impl Question {
    /// The addresses, at least one, or why there are none.
    pub(super) async fn ask(&mut self) -> Result<Vec<IpAddr>, String> {
        let asked = match self.asked.take() {
            Some(asked) => asked,
            None => self.begin().map_err(|error| format!("cannot begin to ask: {}", reason(&error)))?,
        };
        let asked = self.asked.insert(asked);
        let answer = match tokio::time::timeout(PATIENCE, asked).await {
            Err(_) => return Err(format!("no answer within {} s", PATIENCE.as_secs())),
            Ok(answer) => answer,
        };
        self.asked = None;
        match answer {
            Ok(Ok(addresses)) if addresses.is_empty() => Err("it has no address".to_owned()),
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(reason(&error)),
            Err(_) => Err("the question was lost".to_owned()),
        }
    }

    fn begin(&self) -> io::Result<oneshot::Receiver<Answer>> {
        let (answer, asked) = oneshot::channel();
        let (resolver, host) = (self.resolver.clone(), self.host.clone());
        let ask = move || {
            // Whoever asked may be gone by now.
            let _ = answer.send((resolver.0)(&host));
        };
        std::thread::Builder::new().name("resolve".into()).spawn(ask)?;
        Ok(asked)
    }
}
