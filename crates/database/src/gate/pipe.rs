//! A connection that a server has taken: from then on until it ends, or must end.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Gate;
use super::pump::{Ended, Pump};
use super::reach::Reached;
use super::refuse::{self, Code};
use super::serve::Kind;
use super::targets::{Route, Targets};
use super::wire::Conversation;

/// How long the client of a server that has ended the connection may take to end it too.
const LINGER: Duration = Duration::from_secs(2);

/// How long a replica may follow nobody, or lag, before its readers are cut: while its primary is dying, until
/// the lease has run out and the election is over, nobody could serve them better.
const GRACE: Duration = Duration::from_secs(5);

/// A connection counts as left alone when no byte has passed for so long.
const QUIET: Duration = Duration::from_millis(200);

/// Why a connection ends.
enum End {
    Peers(io::Result<Ended>),
    /// The server is not the one to talk to any more.
    Cut,
    /// Nothing is under way, and a replica is there that should have been led to in the first place.
    Moved,
}

pub(crate) async fn pipe(
    gate: &Gate,
    kind: Kind,
    client: TcpStream,
    reached: Reached,
    conversation: Option<Conversation>,
) -> io::Result<()> {
    let Reached { server, route, answer, counted } = reached;
    let keys = Arc::clone(&gate.keys);
    let until = matches!(route, Route::Primary(_)).then_some(&gate.until);
    let keep = |key: &[u8]| keys.keep(key, route.target());
    let mut pump = Pump::new(client, server, conversation, until, answer, keep)?;
    let unwanted = unwanted(gate.targets.clone(), &route);
    let misplaced = misplaced(gate.targets.clone(), kind, &route);
    tokio::pin!(unwanted, misplaced);
    let mut leaving = false;
    let end = loop {
        let moved = pump.moved();
        tokio::select! {
            biased;
            () = &mut unwanted => break End::Cut,
            ended = pump.run() => break End::Peers(ended),
            () = &mut misplaced, if !leaving => leaving = true,
            () = tokio::time::sleep(QUIET), if leaving => {
                if pump.idle() && pump.moved() == moved {
                    break End::Moved;
                }
            }
        }
    };
    drop(counted);
    let name = &route.target().name;
    match end {
        End::Peers(Ok(Ended::ByServer)) => {
            let ended = tokio::time::timeout(LINGER, refuse::end(&mut pump.client)).await;
            return ended.unwrap_or(Ok(()));
        }
        End::Peers(Err(error)) => return Err(error),
        End::Peers(Ok(Ended::Unconfirmed)) => {
            gate.counters.unconfirmed.add();
            tracing::warn!("a wait for the replicas was cancelled on {name}: cut before the success");
            pump.say(&refuse::error_response(Code::OutcomeUnknown, refuse::UNCONFIRMED));
        }
        End::Peers(Ok(Ended::ByStandby)) => {
            gate.counters.refused.add();
            pump.say(&refuse::error_response(Code::CannotConnectNow, refuse::STANDBY));
        }
        End::Cut | End::Peers(Ok(Ended::Overdue)) => {
            gate.counters.cut.add();
            let why = format!("the way to {name} has ended: {}", gate.targets());
            pump.say(&refuse::error_response(Code::Ended, &why));
        }
        End::Moved => {
            gate.counters.moved.add();
            let why = "a replica takes reads again; connect again";
            pump.say(&refuse::error_response(Code::Ended, why));
        }
    }
    Ok(())
}

/// Returns when this route must not be used any more: the one to the primary at once.
async fn unwanted(mut targets: watch::Receiver<Arc<Targets>>, route: &Route) {
    loop {
        if targets.wait_for(|targets| !targets.allow(route)).await.is_err() {
            return pending().await;
        }
        if matches!(route, Route::Primary(_)) {
            return;
        }
        let again = targets.wait_for(|targets| targets.allow(route));
        if tokio::time::timeout(GRACE, again).await.is_err() {
            return;
        }
    }
}

/// Returns when reads went to the primary, but a replica has come back.
async fn misplaced(mut targets: watch::Receiver<Arc<Targets>>, kind: Kind, route: &Route) {
    let is_primary =
        |targets: &Targets| targets.primary.as_ref().is_ok_and(|primary| primary.target == *route.target());
    if kind == Kind::ReadWrite
        || targets.wait_for(|targets| is_primary(targets) && !targets.following.is_empty()).await.is_err()
    {
        pending().await
    }
}
