//! Datagrams: one plain thread for each socket, which answers inline and does nothing else.
//!
//! No runtime stands between the kernel and the answer: receive a batch, answer each query into one buffer,
//! send the batch. The thread never allocates once it is warm, and never waits for anything but queries.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::answer::{Transport, Verdict, answer};
use crate::batch::{Batch, Reply, SIZE};
use crate::count::{self, Counts};
use crate::snapshot::Snapshot;

/// How long a thread waits for a query before it looks whether it should end.
const LOOK: Duration = Duration::from_millis(250);
/// Passing troubles of the socket in a row (no memory for a moment) until the thread gives up.
const TROUBLES: u32 = 100;

/// Serves until `stop` is set. Ends with an error only when the socket is of no more use.
pub(crate) fn serve(
    socket: &UdpSocket,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    counts: &Counts,
    stop: &AtomicBool,
) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(LOOK))?;
    let mut batch = Batch::new();
    let mut buffer = Vec::new();
    let mut replies = Vec::with_capacity(SIZE);
    let mut snapshot = snapshots.borrow_and_update().clone();
    let (mut turn, mut troubles) = (0usize, 0);
    while !stop.load(Ordering::Relaxed) {
        let count = match batch.receive(socket) {
            Ok(count) => count,
            Err(error) if is_silence(&error) => continue,
            Err(error) if troubles >= TROUBLES => return Err(error),
            Err(_) => {
                troubles += 1;
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
        };
        troubles = 0;
        if snapshots.has_changed().unwrap_or(false) {
            snapshot = snapshots.borrow_and_update().clone();
        }
        buffer.clear();
        replies.clear();
        for query in 0..count {
            let begin = buffer.len();
            let verdict = answer(&snapshot, batch.query(query), Transport::Udp, turn, &mut buffer);
            turn = turn.wrapping_add(1);
            counts.add(verdict);
            if verdict != Verdict::Dropped {
                replies.push(Reply { query, bytes: begin..buffer.len() });
            }
        }
        for _ in 0..batch.send(socket, &buffer, &replies) {
            count::one(&counts.unsent);
        }
    }
    Ok(())
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
