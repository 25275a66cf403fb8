//! TLS between the servers of a site. What keys are shown and whose are accepted is for others to say.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::clock::Deadline;
use crate::limits::FIRST_REQUEST_GRACE_MS;
use crate::stream::{Stream, epoll};
use crate::thread::Thread;

/// How long a listener still takes what is not in TLS once it is to be: the other servers hear of that a little earlier
/// or later.
const CHANGING: Duration = Duration::from_secs(10);

/// The first byte of TLS (RFC 8446 section 5.1: a handshake record), with which no request begins.
const HANDSHAKE: u8 = 22;

/// How connections to one target are made.
#[derive(Clone)]
pub struct Secured {
    connector: TlsConnector,
    /// Who must be there.
    name: ServerName<'static>,
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secured({:?})", self.name)
    }
}

impl From<(Arc<ClientConfig>, ServerName<'static>)> for Secured {
    fn from((config, name): (Arc<ClientConfig>, ServerName<'static>)) -> Self {
        Self { connector: config.into(), name }
    }
}

impl Secured {
    pub(crate) async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        stream.set_nodelay(true)?;
        Ok(self.connector.connect(self.name.clone(), stream).await?.into())
    }
}

/// What a listener for the site's own servers takes: TLS from everywhere, anything else from its own machine only, unless
/// the site does without TLS. Clones are the same one.
#[derive(Clone)]
pub struct Inner {
    acceptor: TlsAcceptor,
    own: IpAddr,
    /// Until when all may come without TLS. None: always.
    plain_until: Arc<Mutex<Option<Instant>>>,
    /// How many keys were revoked so far.
    revoked: Arc<AtomicUsize>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inner({})", self.own)
    }
}

impl Inner {
    /// `own`: the machine's address. `encrypted` and `revoked`: see [`Inner::follow`].
    pub fn new(config: Arc<ServerConfig>, own: IpAddr, encrypted: bool, revoked: usize) -> Self {
        let plain_until = encrypted.then(Instant::now);
        Self {
            acceptor: config.into(),
            own,
            plain_until: Arc::new(Mutex::new(plain_until)),
            revoked: Arc::new(revoked.into()),
        }
    }

    /// Whether other machines must come in TLS from now on, or from a little later if that is new; and how many keys were
    /// revoked in all. When there are more, all show their keys again, with their next connection.
    pub fn follow(&self, encrypted: bool, revoked: usize) {
        self.revoked.store(revoked, Ordering::Relaxed);
        let mut until = self.plain_until.lock().unwrap_or_else(PoisonError::into_inner);
        match (encrypted, *until) {
            (true, None) => *until = Some(Instant::now() + CHANGING),
            (true, Some(_)) => {}
            (false, _) => *until = None,
        }
    }

    pub(crate) fn revoked(&self) -> usize {
        self.revoked.load(Ordering::Relaxed)
    }

    fn takes_plain(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let until = *self.plain_until.lock().unwrap_or_else(PoisonError::into_inner);
        peer.is_loopback() || peer == self.own || until.is_none_or(|until| Instant::now() < until)
    }

    /// The connection that was accepted, in TLS if it begins so. None: it did not, as it should have, or ended.
    pub(crate) async fn open(
        &self,
        thread: &Thread,
        stream: Stream,
        peer: IpAddr,
        deadline: &Deadline,
    ) -> Option<Stream> {
        let Stream::Epoll(epoll::Stream(stream)) = stream else { return Some(stream) };
        if first_byte(thread, &stream, deadline).await? != HANDSHAKE {
            if !self.takes_plain(peer) {
                tracing::debug!("a connection from {peer} was closed: it was not encrypted");
                return None;
            }
            return Stream::new(stream, &thread.driver).ok();
        }
        let accepting = self.acceptor.accept(stream);
        match deadline.within(thread.timeouts().header_ms, accepting).await {
            Ok(Ok(stream)) => Some(Stream::secured(stream.into())),
            Ok(Err(error)) => {
                tracing::debug!("a connection from {peer} was closed: {error}");
                None
            }
            Err(_) => None,
        }
    }
}

/// The first byte, which is left where it is; None when there is none in time.
async fn first_byte(thread: &Thread, stream: &TcpStream, deadline: &Deadline) -> Option<u8> {
    let mut byte = [0];
    deadline.set(thread.timeouts().idle_ms);
    std::future::poll_fn(|context| {
        if let Poll::Ready(peeked) = stream.poll_peek(context, &mut tokio::io::ReadBuf::new(&mut byte)) {
            return Poll::Ready(peeked.ok().filter(|count| *count > 0).map(|_| ()));
        }
        if thread.draining.get() {
            deadline.shorten(FIRST_REQUEST_GRACE_MS);
        }
        if deadline.check(context).is_ok() { Poll::Pending } else { Poll::Ready(None) }
    })
    .await?;
    Some(byte[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_only_the_own_machine_comes_in() {
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let inner = |encrypted| Inner::new(Arc::new(config.clone()), address("10.0.0.1"), encrypted, 0);
        let closed = inner(true);
        assert!(closed.takes_plain(address("10.0.0.1")) && closed.takes_plain(address("::ffff:10.0.0.1")));
        assert!(closed.takes_plain(address("127.0.0.1")));
        assert!(!closed.takes_plain(address("10.0.0.2")) && !closed.takes_plain(address("::ffff:10.0.0.2")));
        // A site that goes over to it does so everywhere, but not at one moment.
        let open = inner(false);
        assert!(open.takes_plain(address("10.0.0.2")));
        open.follow(true, 0);
        assert!(open.takes_plain(address("10.0.0.2")));
        *open.plain_until.lock().unwrap() = Some(Instant::now());
        open.follow(true, 0);
        assert!(!open.takes_plain(address("10.0.0.2")), "the time does not begin anew");
        open.follow(false, 0);
        assert!(open.takes_plain(address("10.0.0.2")));
    }
}
