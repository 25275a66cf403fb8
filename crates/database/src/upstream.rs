//! A replica's questions to the primary before it copies or follows it: which cluster, which version, and
//! whether the slot is there.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use link::Secret;
use tokio::net::{TcpSocket, TcpStream};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use crate::seen::Upstream;
use crate::session::{SessionError, within};
use crate::settings::{REPLICATOR, slot};

const LIMIT: Duration = Duration::from_secs(2);

/// Asks from our own machine's address.
pub(crate) async fn ask(server: &str, from: IpAddr, primary: SocketAddr, password: &Secret) -> Upstream {
    match within(LIMIT, question(server, from, primary, password)).await {
        Ok(upstream) => upstream,
        Err(error) => Upstream::Unreachable(why(&error)),
    }
}

/// A primary that is being set up refuses a role that it has not made yet as if the password were wrong.
fn why(error: &SessionError) -> String {
    match error {
        SessionError::Postgres(error) if error.code() == Some(&SqlState::INVALID_PASSWORD) => {
            format!("it has not made the role {REPLICATOR} yet, or with another password")
        }
        other => other.to_string(),
    }
}

async fn question(
    server: &str,
    from: IpAddr,
    primary: SocketAddr,
    password: &Secret,
) -> Result<Upstream, SessionError> {
    let stream = connect(from, primary).await.map_err(SessionError::Socket)?;
    let mut config = tokio_postgres::Config::new();
    // Revealed to the one server that has its verifier; SCRAM does not send it.
    config.user(REPLICATOR).dbname("postgres").password(password.reveal()).application_name(server);
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    let slot = slot(server);
    let statement = "SELECT system_identifier, current_setting('server_version_num')::int / 10000, \
                     EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_name = $1) FROM pg_control_system()";
    // The connection must be driven while the question is under way.
    let question: &[&(dyn ToSql + Sync)] = &[&slot];
    tokio::select! {
        row = client.query_one(statement, question) => {
            let row = row?;
            Ok(Upstream::Reached {
                system_identifier: row.get::<_, i64>(0) as u64,
                major: row.get::<_, i32>(1) as u32,
                slot: row.get(2),
            })
        }
        ended = connection => match ended {
            Err(error) => Err(error.into()),
            Ok(()) => Err(SessionError::Socket(std::io::ErrorKind::ConnectionAborted.into())),
        },
    }
}

async fn connect(from: IpAddr, primary: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if primary.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(primary).await
}
