//! The life of one client's connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::reach::reach;
use super::refuse::{Code, refuse};
use super::targets::{Route, Target, Targets};
use super::wire::Conversation;
use super::wire::opening::{self, Opening};
use super::{Gate, pipe, sockets};

/// How long a client may take to say what it wants; also for each question about encryption.
const OPENING: Duration = Duration::from_secs(10);

/// Questions about encryption on one connection; libpq asks at most two.
const QUESTIONS: usize = 3;

/// How long a server may take over a cancel request; it answers by closing.
const CANCEL: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ReadWrite,
    ReadOnly,
}

/// Serves it to its end.
pub(crate) async fn serve(gate: &Gate, kind: Kind, client: TcpStream) {
    gate.counters.accepted(kind).add();
    let Ok(_permit) = gate.connections.try_acquire() else {
        gate.counters.refused.add();
        let message = format!("sorry, too many clients already: this gate takes {}", gate.limits.connections);
        return tell(gate, client, None, Code::TooManyConnections, &message).await;
    };
    let mut ending = gate.ending.clone();
    tokio::select! {
        result = admit(gate, kind, client) => {
            if let Err(error) = result {
                tracing::debug!("a connection ended: {error}");
            }
        }
        _ = ending.wait_for(|ending| *ending) => {}
    }
}

async fn admit(gate: &Gate, kind: Kind, mut client: TcpStream) -> std::io::Result<()> {
    sockets::tune_client(&client)?;
    // The server that said "not encrypted": the start-up message goes to it too.
    let mut kept = None;
    for _ in 0..=QUESTIONS {
        let Some(opening) = first_message(&mut client).await? else { return Ok(()) };
        if let Opening::Cancel(request) = &opening {
            cancel(gate, kind, request).await;
            return Ok(());
        }
        let reached = tokio::select! {
            reached = reach(gate, kind, &opening, kept.take()) => reached,
            () = gone(&client) => return Ok(()),
        };
        let reached = match reached {
            Ok(reached) => reached,
            Err(refusal) => {
                gate.counters.refused.add();
                tell(gate, client, Some(opening), refusal.code, &refusal.message).await;
                return Ok(());
            }
        };
        if !(matches!(opening, Opening::Encrypt(_)) && reached.answer == b"N") {
            let conversation = matches!(opening, Opening::Startup(_)).then(|| match &reached.route {
                Route::Primary(primary) if kind == Kind::ReadWrite && primary.target.is_ours() => {
                    Conversation::with_primary()
                }
                Route::Primary(_) | Route::Replica(_) => Conversation::default(),
            });
            return pipe::pipe(gate, kind, client, reached, conversation).await;
        }
        client.write_all(&reached.answer).await?;
        kept = Some(reached);
    }
    Ok(())
}

async fn first_message(client: &mut TcpStream) -> std::io::Result<Option<Opening>> {
    match tokio::time::timeout(OPENING, opening::read(client)).await {
        Ok(opening) => opening,
        Err(_) => Ok(None),
    }
}

/// Returns when the client has gone. One that has sent more already is there.
async fn gone(client: &TcpStream) {
    if let Ok(1..) = client.peek(&mut [0]).await {
        std::future::pending().await
    }
}

/// A cancel goes to the server that made its key. Of an encrypted connection, or one that is with another process
/// of this gate, the key is not known: then to every server that may have made it, and the others ignore it.
async fn cancel(gate: &Gate, kind: Kind, request: &[u8]) {
    gate.counters.cancels.add();
    let servers = match gate.keys.server(opening::cancel_key(request)) {
        Some(server) => vec![server],
        None => may_have_made_it(&gate.targets(), kind),
    };
    for target in &servers {
        let sent = tokio::time::timeout(CANCEL, send_cancel(gate, target, request)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!("{} took no cancel request", target.name);
        }
    }
}

fn may_have_made_it(targets: &Targets, kind: Kind) -> Vec<Target> {
    let primary = targets.primary.iter().map(|primary| &primary.target);
    match kind {
        Kind::ReadWrite => primary.cloned().collect(),
        Kind::ReadOnly => targets.all().cloned().collect(),
    }
}

async fn send_cancel(gate: &Gate, target: &Target, request: &[u8]) -> std::io::Result<()> {
    let mut server = sockets::connect(&target.address, gate.from).await?;
    server.write_all(request).await?;
    // The server closes when it has acted: only then may the client be told so by our own close.
    server.read(&mut [0; 16]).await.map(drop)
}

/// A bounded number of clients hear why; the others are just closed.
async fn tell(gate: &Gate, client: TcpStream, opening: Option<Opening>, code: Code, message: &str) {
    if let Ok(_permit) = gate.refusals.try_acquire() {
        refuse(client, opening, code, message).await;
    }
}
