//! A replica's questions to the primary before it copies or follows it: which cluster, which version, and
//! whether the slot is there.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use link::Secret;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use crate::failover::Upstream;
use crate::session::{SessionError, within};
use crate::settings::{REPLICATOR, slot};

const LIMIT: Duration = Duration::from_secs(2);

/// For how long an answer counts.
const FRESH: Duration = Duration::from_millis(250);

/// Asks in the background, since a frozen primary takes a connection and never answers, and an election does not
/// wait for that.
#[derive(Debug, Default)]
pub(crate) struct Asker {
    of: Option<SocketAddr>,
    asked: Option<oneshot::Receiver<Upstream>>,
    last: Option<(Upstream, Instant)>,
}

impl Asker {
    /// The newest answer, and a new question when that is no longer fresh.
    pub(crate) fn answer<F>(&mut self, of: SocketAddr, ask: impl FnOnce() -> F) -> Upstream
    where
        F: Future<Output = Upstream> + Send + 'static,
    {
        if self.of != Some(of) {
            self.forget();
            self.of = Some(of);
        }
        if let Some(Ok(answer)) = self.asked.as_mut().map(oneshot::Receiver::try_recv) {
            (self.asked, self.last) = (None, Some((answer, Instant::now())));
        }
        let fresh = self.last.as_ref().is_some_and(|(_, at)| at.elapsed() < FRESH);
        if !fresh && self.asked.is_none() {
            let (sender, asked) = oneshot::channel();
            let question = ask();
            // Bounded by its limit; nobody may want its answer any more.
            tokio::spawn(async move { drop(sender.send(question.await)) });
            self.asked = Some(asked);
        }
        self.last.as_ref().map_or(Upstream::Unasked, |(answer, _)| answer.clone())
    }

    pub(crate) fn forget(&mut self) -> Upstream {
        *self = Self::default();
        Upstream::Unasked
    }
}

/// Asks from our own machine's address.
pub(crate) async fn ask(server: String, from: IpAddr, primary: SocketAddr, password: Secret) -> Upstream {
    match within(LIMIT, question(&server, from, primary, &password)).await {
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
                     EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_name = $1), \
                     CASE WHEN pg_is_in_recovery() THEN false ELSE timeline_id = \
                     ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END \
                     FROM pg_control_system(), pg_control_checkpoint()";
    // The connection must be driven while the question is under way.
    let question: &[&(dyn ToSql + Sync)] = &[&slot];
    tokio::select! {
        row = client.query_one(statement, question) => {
            let row = row?;
            Ok(Upstream::Reached {
                system_identifier: row.get::<_, i64>(0) as u64,
                major: row.get::<_, i32>(1) as u32,
                slot: row.get(2),
                checkpointed: row.get(3),
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
