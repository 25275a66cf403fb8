//! DNS over TCP (RFC 7766): for answers that do not fit a datagram, and for clients that prefer it.
//!
//! Each message stands after its length. A client may send many queries without waiting; they are answered in
//! their order. What a client can hold of us is bounded: connections, time, and memory.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::answer::{Transport, Verdict, answer};
use crate::count::{self, Counts};
use crate::snapshot::Snapshot;

/// The most connections at one listener, and from one address, so that one client cannot take them all.
const CONNECTIONS: usize = 1024;
const CONNECTIONS_OF_ONE: usize = 128;
/// How long a connection may take for its next whole query (RFC 7766 section 6.2.3), and how long when more
/// than half of all connections are in use.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_WHEN_BUSY: Duration = Duration::from_secs(2);
/// How long a client may take to accept answers.
const WRITE: Duration = Duration::from_secs(5);
/// Answers are written once they are this many bytes, even if more queries wait.
const ANSWERS: usize = 64 * 1024;
/// A pause after the system refused a connection: it lacks descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);
const LENGTH: usize = 2;

/// What all connections share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) turn: Arc<AtomicUsize>,
    /// Becomes true when the server is to end.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Accepts until the stop, then waits for the connections: each ends after its last whole query.
pub(crate) async fn serve(listener: TcpListener, shared: Shared) {
    let mut stop = shared.stop.clone();
    let mut clients = Clients { tasks: JoinSet::new(), addresses: HashMap::new() };
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            () = clients.leave() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => clients.admit(stream, peer.ip(), &shared),
            Err(error) => {
                tracing::debug!("a connection could not be accepted: {error}");
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    while clients.tasks.join_next().await.is_some() {}
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever would say it is gone, which is an end as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The connections at one listener.
struct Clients {
    tasks: JoinSet<()>,
    addresses: HashMap<Id, IpAddr>,
}

impl Clients {
    fn admit(&mut self, stream: TcpStream, address: IpAddr, shared: &Shared) {
        let same = self.addresses.values().filter(|client| **client == address).count();
        let all = self.addresses.len();
        if all >= CONNECTIONS || same >= CONNECTIONS_OF_ONE {
            return count::one(&shared.counts.tcp_refused);
        }
        count::one(&shared.counts.tcp_connections);
        let idle = if all > CONNECTIONS / 2 { IDLE_WHEN_BUSY } else { IDLE };
        let task = self.tasks.spawn(connection(stream, shared.clone(), idle));
        self.addresses.insert(task.id(), address);
    }

    /// Waits until one connection has ended, and forgets it.
    async fn leave(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => {
                self.addresses.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
            }
            None => std::future::pending().await,
        }
    }
}

async fn connection(mut stream: TcpStream, mut shared: Shared, idle: Duration) {
    if let Err(error) = converse(&mut stream, &mut shared, idle).await {
        tracing::trace!("a connection ended: {error}");
    }
}

async fn converse(stream: &mut TcpStream, shared: &mut Shared, idle: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut inbox, mut outbox) = (Vec::new(), Vec::new());
    let mut deadline = Instant::now() + idle;
    loop {
        let in_order = answer_all(&mut inbox, &mut outbox, shared);
        if !outbox.is_empty() {
            timeout(WRITE, stream.write_all(&outbox)).await??;
            outbox.clear();
            deadline = Instant::now() + idle;
            if in_order {
                continue;
            }
        }
        if !in_order {
            return Ok(());
        }
        tokio::select! {
            biased;
            read = timeout_at(deadline, stream.read_buf(&mut inbox)) => if read?? == 0 { return Ok(()) },
            () = stopped(&mut shared.stop), if inbox.is_empty() => return Ok(()),
        }
    }
}

/// Answers the whole queries in the inbox, as far as the outbox has room. False: what came is no query, and
/// nothing that follows on this connection can be trusted to be one.
fn answer_all(inbox: &mut Vec<u8>, outbox: &mut Vec<u8>, shared: &Shared) -> bool {
    let snapshot = shared.snapshots.borrow().clone();
    let mut at = 0;
    while outbox.len() < ANSWERS {
        let Some(query) = whole(&inbox[at..]) else { break };
        let begin = outbox.len();
        outbox.extend([0; LENGTH]);
        let turn = shared.turn.fetch_add(1, Ordering::Relaxed);
        let verdict = answer(&snapshot, query, Transport::Tcp, turn, outbox);
        shared.counts.add(verdict);
        if verdict == Verdict::Dropped {
            outbox.truncate(begin);
            return false;
        }
        let length = (outbox.len() - begin - LENGTH) as u16;
        outbox[begin..begin + LENGTH].copy_from_slice(&length.to_be_bytes());
        at += LENGTH + query.len();
    }
    inbox.drain(..at);
    true
}

/// The first message, if all of it has come.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let length = u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]);
    bytes.get(LENGTH..LENGTH + usize::from(length))
}
