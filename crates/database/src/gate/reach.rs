//! Getting a client's first message answered by a server, however long that takes up to the gate's limit.
//!
//! While the primary restarts, a new connection is held and tried again rather than refused: an application
//! with a reconnecting pool sees a pause and not an error. A server that answers "not now" (57P03: starting,
//! recovering, stopping) is tried again too, which is safe because nothing was done for that client yet.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::busy::Counted;
use super::refuse::{Code, message, sqlstate};
use super::serve::Kind;
use super::targets::{Route, Targets};
use super::wire::Opening;
use super::{Gate, sockets};

/// Between two tries of all held connections together.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// How long a server may take over a reader before the next one is tried.
const READER: Duration = Duration::from_secs(2);

/// The largest first answer that is read whole: an error message.
const ANSWER_BYTES: usize = 16 * 1024;

/// A server that has answered.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) server: TcpStream,
    pub(crate) route: Route,
    /// The beginning of its answer, which the client has not got yet.
    pub(crate) answer: Vec<u8>,
    /// Counts the connection while it lives.
    pub(crate) counted: Counted,
}

/// Why a client is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
}

/// Sends the opening to a server of this kind and waits for the beginning of its answer. `kept` is the server
/// that answered an earlier opening of this client, the first one to be tried.
pub(crate) async fn reach(
    gate: &Gate,
    kind: Kind,
    opening: &Opening,
    kept: Option<Reached>,
) -> Result<Reached, Refusal> {
    let deadline = Instant::now() + gate.limits.hold;
    let first = async {
        if let Some(kept) = kept {
            let route = kept.route.clone();
            if let Ok(reached) = while_allowed(gate, &route, exchange(kept, opening)).await {
                return Ok(reached);
            }
        }
        round(gate, kind, opening).await
    };
    let why = match tokio::time::timeout_at(deadline, first).await {
        Ok(Ok(reached)) => return Ok(reached),
        Ok(Err(why)) => why,
        Err(_) => return Err(too_long(&silent(gate), gate)),
    };
    let Ok(_held) = gate.held.try_acquire() else {
        let held = gate.limits.held;
        let message = format!("{why}, and {held} connections wait already");
        return Err(Refusal { code: Code::CannotConnectNow, message });
    };
    gate.counters.held.add();
    let mut last = why;
    let reached = tokio::time::timeout_at(deadline, hold(gate, kind, opening, &mut last)).await;
    reached.map_err(|_| too_long(&last, gate))
}

/// Tries again for ever, but not while there is nobody to try. `last` is why the last try failed.
async fn hold(gate: &Gate, kind: Kind, opening: &Opening, last: &mut String) -> Reached {
    let mut targets = gate.targets.clone();
    loop {
        let somebody = |targets: &Arc<Targets>| match kind {
            Kind::ReadWrite => targets.primary.is_ok(),
            Kind::ReadOnly => targets.all().next().is_some(),
        };
        if targets.wait_for(somebody).await.is_err() {
            return std::future::pending().await;
        }
        let _turn = gate.turns.acquire().await;
        match round(gate, kind, opening).await {
            Ok(reached) => return reached,
            Err(why) => *last = why,
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

fn silent(gate: &Gate) -> String {
    match &gate.targets().primary {
        Ok(primary) => format!("{primary} does not answer"),
        Err(why) => why.clone(),
    }
}

fn too_long(why: &str, gate: &Gate) -> Refusal {
    let message = format!("{why}; waited {} s", gate.limits.hold.as_secs());
    Refusal { code: Code::CannotConnectNow, message }
}

/// Tries every server that may take it once. The error is that of the last one.
async fn round(gate: &Gate, kind: Kind, opening: &Opening) -> Result<Reached, String> {
    let targets = gate.targets();
    if kind == Kind::ReadWrite {
        let primary = targets.primary.clone()?;
        return attempt(gate, &Route::Primary(primary), opening).await;
    }
    let mut failed = Vec::new();
    let mut why = String::from("no database server takes reads");
    for routes in targets.for_reads() {
        while let Some(route) = gate.busy.least(&routes, &failed) {
            match tokio::time::timeout(READER, attempt(gate, route, opening)).await {
                Ok(Ok(reached)) => return Ok(reached),
                Ok(Err(error)) => why = error,
                Err(_) => why = format!("{} does not answer", route.target().name),
            }
            tracing::debug!("a reader tries the next server: {why}");
            failed.push(route.target().name.clone());
        }
    }
    Err(why)
}

async fn attempt(gate: &Gate, route: &Route, opening: &Opening) -> Result<Reached, String> {
    let target = route.target();
    let connected = async {
        let counted = gate.busy.count(&target.name);
        let server = sockets::connect(&target.address, gate.from).await?;
        let reached = Reached { server, route: route.clone(), answer: Vec::new(), counted };
        exchange(reached, opening).await
    };
    let result = while_allowed(gate, route, connected).await;
    let result = result.map_err(|error| format!("{target} cannot be reached: {error}"));
    if let Route::Primary(_) = route {
        *gate.reached() = Some(result.as_ref().map(drop).map_err(String::clone));
    }
    result
}

/// A frozen server takes connections and says nothing: nobody waits for it once it is not the one to talk to.
async fn while_allowed(
    gate: &Gate,
    route: &Route,
    reached: impl Future<Output = io::Result<Reached>>,
) -> io::Result<Reached> {
    let mut targets = gate.targets.clone();
    tokio::select! {
        reached = reached => reached,
        _ = targets.wait_for(|targets| !targets.allow(route)) => {
            Err(io::Error::other("it takes no connections of this kind any more"))
        }
    }
}

/// Sends the opening and reads the beginning of the answer.
async fn exchange(mut reached: Reached, opening: &Opening) -> io::Result<Reached> {
    let server = &mut reached.server;
    server.write_all(opening.bytes()).await?;
    reached.answer = match opening {
        Opening::Startup(_) => first_answer(server).await?,
        Opening::Encrypt(_) => vec![server.read_u8().await?],
        Opening::Cancel(_) | Opening::Other(_) => Vec::new(),
    };
    Ok(reached)
}

/// The head of the first message after start-up; the whole message when it is an error.
async fn first_answer(server: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; 5];
    server.read_exact(&mut answer).await?;
    let length = u32::from_be_bytes([answer[1], answer[2], answer[3], answer[4]]) as usize;
    if answer[0] == b'E' && (4..=ANSWER_BYTES).contains(&length) {
        answer.resize(1 + length, 0);
        server.read_exact(&mut answer[5..]).await?;
        if sqlstate(&answer[5..]) == Some("57P03") {
            let said = message(&answer[5..]).unwrap_or("not now").to_owned();
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, said));
        }
    }
    Ok(answer)
}
