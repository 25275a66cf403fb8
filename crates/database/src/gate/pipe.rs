//! Copies bytes both ways until both sides have ended, or the server is no longer the one to talk to.

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;

use super::Gate;
use super::reach::Reached;
use super::serve::Kind;

/// For each direction of each connection. A page of rows fits; a large result takes more turns.
const BUFFER_BYTES: usize = 8 * 1024;

/// An end on one side is passed on to the other, which may still send. An error on either ends both.
pub(crate) async fn pipe(
    gate: &Gate,
    kind: Kind,
    mut client: TcpStream,
    reached: Reached,
) -> std::io::Result<()> {
    let Reached { mut server, target, counted, .. } = reached;
    let mut targets = gate.targets.clone();
    let no_longer_primary = targets.wait_for(|targets| targets.primary.name != target.name);
    let cut = async {
        match kind {
            Kind::ReadWrite => drop(no_longer_primary.await),
            Kind::ReadOnly => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        copied = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER_BYTES, BUFFER_BYTES) => copied.map(drop),
        () = cut => {
            gate.counters.cut.add();
            Ok(())
        }
    };
    drop(counted);
    result
}
