//! A connection of the manager to its own postgres, over the Unix socket, as the superuser.
//!
//! Nothing here may hold up the manager: connecting does not block, every question has a time limit here and
//! in PostgreSQL, and its own commits never wait for a replica, so that it can work while all replicas are away.

use std::future::{Future, poll_fn};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};

use crate::access::SUPERUSER;
use crate::folder::Folder;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);

/// How long one question may take.
pub(crate) const QUESTION: Duration = Duration::from_secs(3);

/// How long one step of the setup may take: `CREATE DATABASE` copies files.
pub(crate) const STEP: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("it does not accept connections yet ({0})")]
    Socket(std::io::Error),
    #[error("it warned that the commit may not be on any replica")]
    Warned,
    #[error("it ended meanwhile")]
    Ended,
    #[error("it did not answer within {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("{}", said(.0))]
    Postgres(#[from] tokio_postgres::Error),
}

/// What the server said, without the client library's words around it.
pub(crate) fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => error.message().to_owned(),
        None => match std::error::Error::source(error) {
            Some(source) => source.to_string(),
            None => error.to_string(),
        },
    }
}

/// See the head of this file. Dropping it ends the connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    connection: JoinHandle<()>,
    limit: Duration,
    warned: Arc<AtomicBool>,
}

impl Session {
    /// `limit` bounds each question. Nothing is worth a long wait for a lock that some client holds.
    pub(crate) async fn open(folder: &Folder, port: u16, limit: Duration) -> Result<Self, SessionError> {
        let options = format!(
            "-c statement_timeout={} -c lock_timeout={} -c synchronous_commit=local -c client_min_messages=error",
            limit.as_millis(),
            limit.min(QUESTION).as_millis()
        );
        within(CONNECT, Self::connect(folder, port, limit, &options)).await
    }

    /// One whose commits wait for replicas, however long that takes.
    pub(crate) async fn open_patient(folder: &Folder, port: u16) -> Result<Self, SessionError> {
        let options = "-c statement_timeout=0 -c synchronous_commit=on -c client_min_messages=warning";
        within(CONNECT, Self::connect(folder, port, Duration::MAX / 2, options)).await
    }

    /// Whether postgres has warned of anything on this session.
    pub(crate) fn warned(&self) -> bool {
        self.warned.load(Ordering::Acquire)
    }

    async fn connect(
        folder: &Folder,
        port: u16,
        limit: Duration,
        options: &str,
    ) -> Result<Self, SessionError> {
        // Through the open folder, because the path of a socket has at most 107 bytes.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let sockets = rustix::fs::open(folder.socket_folder(), flags, Mode::empty())
            .map_err(|errno| SessionError::Socket(errno.into()))?;
        let path = format!("/proc/self/fd/{}/.s.PGSQL.{port}", sockets.as_raw_fd());
        let stream = UnixStream::connect(path).await.map_err(SessionError::Socket)?;
        let mut config = tokio_postgres::Config::new();
        config.user(SUPERUSER).dbname("postgres").application_name("dolmen").options(options);
        let (client, connection) = config.connect_raw(stream, NoTls).await?;
        let warned = Arc::new(AtomicBool::new(false));
        let connection = tokio::spawn(drive(connection, Arc::clone(&warned)));
        Ok(Self { client, connection, limit, warned })
    }

    /// Waits for an answer of this session, but not for longer than its limit.
    pub(crate) async fn ask<T, E>(
        &self,
        question: impl Future<Output = Result<T, E>>,
    ) -> Result<T, SessionError>
    where
        SessionError: From<E>,
    {
        // A little longer than PostgreSQL's own limit, so that its answer comes first if there is one.
        within(self.limit + QUESTION / 3, question).await
    }
}

/// Until the connection ends; notes warnings on the way.
async fn drive(mut connection: Connection<UnixStream, NoTlsStream>, warned: Arc<AtomicBool>) {
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) if notice.severity() == "WARNING" => {
                tracing::warn!("postgres warns: {}", notice.message());
                warned.store(true, Ordering::Release);
            }
            Ok(_) => {}
            Err(error) => return tracing::debug!("the connection to our postgres ended: {error}"),
        }
    }
}

/// Ends what takes longer than the limit.
pub(crate) async fn within<T, E>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, SessionError>
where
    SessionError: From<E>,
{
    match tokio::time::timeout(limit, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(SessionError::Silent(limit)),
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
