//! Getting a client's first message answered by a server, however long that takes up to the gate's limit.
//!
//! While the primary restarts, a new connection is held and tried again rather than refused: an application
//! with a reconnecting pool sees a pause and not an error. A server that answers "not now" (57P03: starting,
//! recovering, stopping) is tried again too, which is safe because nothing was done for that client yet.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::opening::Opening;
use super::refuse::{Code, message, sqlstate};
use super::serve::Kind;
use super::targets::{Counted, Target};
use super::{Gate, sockets};

/// Between two tries of all held connections together.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// How long a replica may take to answer before the next one is tried.
const REPLICA: Duration = Duration::from_secs(2);

/// The largest first answer that is read whole: an error message.
const ANSWER_BYTES: usize = 16 * 1024;

/// A server that has answered.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) server: TcpStream,
    pub(crate) target: Target,
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
        if let Some(kept) = kept
            && let Ok(reached) = exchange(kept, opening).await
        {
            return Ok(reached);
        }
        round(gate, kind, opening).await
    };
    let why = match tokio::time::timeout_at(deadline, first).await {
        Ok(Ok(reached)) => return Ok(reached),
        Ok(Err(why)) => why,
        Err(_) => return Err(too_long("it does not answer", gate)),
    };
    let Ok(_held) = gate.held.try_acquire() else {
        return Err(Refusal {
            code: Code::CannotConnectNow,
            message: format!(
                "the database cannot be reached ({why}) and {} connections wait for it already",
                gate.limits.held
            ),
        });
    };
    gate.counters.held.add();
    let mut last = why;
    let held = async {
        loop {
            let _turn = gate.turn.lock().await;
            match round(gate, kind, opening).await {
                Ok(reached) => return reached,
                Err(why) => last = why,
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    };
    let reached = tokio::time::timeout_at(deadline, held).await;
    reached.map_err(|_| too_long(&last, gate))
}

fn too_long(why: &str, gate: &Gate) -> Refusal {
    let primary = &gate.targets().primary;
    let message = format!(
        "{} on {} cannot be reached: {why}; waited {} s for it",
        primary.name,
        primary.address,
        gate.limits.hold.as_secs()
    );
    Refusal { code: Code::CannotConnectNow, message }
}

/// Tries every server that may take it once. The error is that of the last one.
async fn round(gate: &Gate, kind: Kind, opening: &Opening) -> Result<Reached, String> {
    let targets = gate.targets();
    if !targets.ready {
        let says = targets.primary_says.as_ref().map(|says| says.because.clone());
        return Err(says.unwrap_or_else(|| "it has not said that it is ready".into()));
    }
    let mut failed = Vec::new();
    if kind == Kind::ReadOnly {
        while let Some(target) = gate.busy.least(&targets.replicas, &failed) {
            match tokio::time::timeout(REPLICA, attempt(gate, target, opening)).await {
                Ok(Ok(reached)) => return Ok(reached),
                Ok(Err(error)) => tracing::debug!("{} takes no reads: {error}", target.name),
                Err(_) => tracing::debug!("{} does not answer", target.name),
            }
            failed.push(target.name.clone());
        }
    }
    let primary = &targets.primary;
    let result = attempt(gate, primary, opening).await.map_err(|error| error.to_string());
    *gate.reached() = Some(result.as_ref().map(drop).map_err(String::clone));
    result
}

async fn attempt(gate: &Gate, target: &Target, opening: &Opening) -> io::Result<Reached> {
    let counted = gate.busy.count(&target.name);
    let server = sockets::connect(&target.address, gate.from).await?;
    exchange(Reached { server, target: target.clone(), answer: Vec::new(), counted }, opening).await
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
