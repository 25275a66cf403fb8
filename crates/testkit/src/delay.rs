//! A relay that gives what passes through it on later, in order: what netem does where the kernel has it. Rules of the
//! network lead connections between machines here, and the relay connects on from the same address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// How much of one direction is under way at most: pieces of at most so many bytes.
const PIECES: usize = 4096;
const PIECE_BYTES: usize = 16 * 1024;

/// How late everything is, one way: by `by`, up to `jitter` less or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    pub by: Duration,
    pub jitter: Duration,
}

impl Late {
    /// A number decides, so that nobody has to carry a source of chance around.
    fn of(self, number: u64) -> Duration {
        let range = self.jitter.as_micros() as u64 * 2 + 1;
        // The mixing step of splitmix64.
        let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (self.by + Duration::from_micros((mixed >> 11) % range)).saturating_sub(self.jitter)
    }
}

/// Ends, and cuts all that goes through it, when it is dropped.
#[derive(Debug)]
pub(crate) struct Delay {
    pub(crate) address: SocketAddr,
    carried: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Delay {
    /// In the network of the calling thread, at this address.
    pub(crate) fn begin(at: Ipv4Addr, late: Late) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((at, 0))).expect("the address is free");
        let address = listener.local_addr().expect("it was bound");
        let carried = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = oneshot::channel();
        let count = Arc::clone(&carried);
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, late, count) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = Some(std::thread::spawn(serve));
        Self { address, carried, stop: Some(stop), thread }
    }

    /// How many pieces have passed.
    pub(crate) fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, late: Late, carried: Arc<AtomicU64>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                tokio::spawn(relay(stream, from.ip(), late, Arc::clone(&carried)));
            }
            Err(error) => panic!("the relay cannot accept: {error}"),
        }
    }
}

/// Both ends see the address of the other; whoever cannot be reached is like one that closes at once.
async fn relay(from: TcpStream, source: IpAddr, late: Late, carried: Arc<AtomicU64>) {
    let Ok(to) = rustix::net::sockopt::ip_original_dst(&from) else { return };
    let connect = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        socket.connect(SocketAddr::V4(to)).await
    };
    let Ok(to) = connect.await else { return };
    if from.set_nodelay(true).is_err() || to.set_nodelay(true).is_err() {
        return;
    }
    let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
    let there = carry(from_read, to_write, late, Arc::clone(&carried));
    let back = carry(to_read, from_write, late, carried);
    tokio::join!(there, back);
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, late: Late, carried: Arc<AtomicU64>) {
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let read = async move {
        let mut due = Instant::now();
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let ended = !matches!(from.read_buf(&mut piece).await, Ok(length) if length > 0);
            // Never before what came before it.
            due = due.max(Instant::now() + late.of(carried.fetch_add(1, Ordering::Relaxed)));
            if ended || send.send((due, piece)).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = receive.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // The other end may have gone before.
        let _gone = to.shutdown().await;
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_is_late_within_its_bounds() {
        let late = Late { by: Duration::from_millis(200), jitter: Duration::from_millis(100) };
        let all: Vec<Duration> = (0..1000).map(|number| late.of(number)).collect();
        let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
        assert!(*least >= Duration::from_millis(100) && *least < Duration::from_millis(120), "{least:?}");
        assert!(*most <= Duration::from_millis(300) && *most > Duration::from_millis(280), "{most:?}");
    }
}
