//! The conversations of a control server: who may ask what, one ask after another.

use std::sync::Arc;
use std::time::Duration;

use link::api::{Answer, ApiError, Ask, Caller, Conversation, Door, Fingerprint, Identity};
use link::control::wire::{ControlAnswer, ControlAsk, HEARTBEAT};
use link::control::{ABSENT, REVOKED, is_of_the_operator};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::core::Core;

/// Connections at one time; more wait to be accepted.
const CONNECTIONS: usize = 256;

/// A connection on which nothing was asked for this long is closed; who needs it makes another.
const IDLE: Duration = Duration::from_secs(60);

/// After an error of accept.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a watcher may take to read what it is told.
const WRITE: Duration = Duration::from_secs(5);

/// Answers for as long as it is polled; every conversation ends with it.
pub(crate) async fn serve(door: Door, core: Arc<Core>) {
    let door = Arc::new(door);
    let mut conversations = JoinSet::new();
    loop {
        while conversations.try_join_next().is_some() {}
        if conversations.len() >= CONNECTIONS {
            conversations.join_next().await;
        }
        let (stream, peer) = match door.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let (door, core) = (Arc::clone(&door), Arc::clone(&core));
        conversations.spawn(async move {
            if let Err(error) = talk(&door, &core, stream, peer).await {
                tracing::debug!("a connection from {peer} ended: {error}");
            }
        });
    }
}

async fn talk(
    door: &Door,
    core: &Core,
    stream: TcpStream,
    peer: std::net::SocketAddr,
) -> Result<(), ApiError> {
    let (mut conversation, caller) = door.welcome(stream, peer).await?;
    loop {
        let ask = timeout(IDLE, conversation.asked(link::frame::LIMIT))
            .await
            .map_err(|_| ApiError::Slow(peer))??;
        let answer = match ask {
            Ask::Control(ControlAsk::Watch { key }) => return watch(&mut conversation, core, &key).await,
            Ask::Control(ask) if caller != Caller::Operator && is_order(&ask) => {
                Err("only the operator may do that, and asks for it itself".into())
            }
            Ask::Control(ask) => core.answer(ask).await,
            other => Err(format!("this is a control server, which knows nothing of {other:?}")),
        };
        let answer = match answer {
            Ok(answer) => Answer::Control(answer),
            Err(because) => Answer::Refused { because },
        };
        conversation.say(&answer).await?;
    }
}

/// What no machine does by its own key. A control server shows its machine's when it passes something on.
fn is_order(ask: &ControlAsk) -> bool {
    match ask {
        ControlAsk::Replace { .. } | ControlAsk::Recover | ControlAsk::Forget => true,
        ControlAsk::Propose { change, .. } => is_of_the_operator(&change.key),
        _ => false,
    }
}

/// Keeps the list of revoked keys that this identity goes by as the record has it, for as long as it is polled.
pub(crate) async fn heed_revoked(core: Arc<Core>, identity: Identity, site: String) {
    let mut changes = core.machine.changes();
    loop {
        changes.mark_unchanged();
        if let Some(record) = core.machine.get(REVOKED) {
            match identity.believe::<Vec<Fingerprint>>(&site, REVOKED, record.value) {
                Ok(keys) => identity.revoke(keys),
                Err(error) => tracing::error!("the list of revoked keys is not gone by: {error}"),
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Says every new version of a record, and that there is none, for as long as a leader is known.
async fn watch(conversation: &mut Conversation, core: &Core, key: &str) -> Result<(), ApiError> {
    let mut changes = core.machine.changes();
    let mut told = None;
    loop {
        changes.mark_unchanged();
        let record = core.machine.get(key);
        let version = record.as_ref().map_or(ABSENT, |record| record.version);
        let in_contact = core.is_in_contact();
        let answer = if !in_contact {
            let because = format!("{} knows no leader", core.server);
            ControlAnswer::Unavailable { because, maybe_made: false }
        } else if told.replace(version) == Some(version) {
            ControlAnswer::Alive
        } else {
            ControlAnswer::Record(record)
        };
        let said = timeout(WRITE, conversation.say(&Answer::Control(answer))).await;
        said.map_err(|_| ApiError::Refused("the watcher does not read".into()))??;
        if !in_contact {
            return Ok(());
        }
        changed(core, &mut changes, key, version).await;
    }
}

/// Waits for another version of the record, or until a sign of life is due.
async fn changed(core: &Core, changes: &mut tokio::sync::watch::Receiver<u64>, key: &str, version: u64) {
    let other = async {
        while changes.changed().await.is_ok() {
            if core.machine.get(key).map_or(ABSENT, |record| record.version) != version {
                return;
            }
        }
    };
    drop(timeout(HEARTBEAT, other).await);
}
