//! A few connections to one database address, and what can go wrong on them.
//!
//! Every connection is tried before it is used again, every step has a limit, and a connection on which
//! anything but an ordinary answer came is thrown away. An error says whether anything was sent: that alone
//! decides whether the caller may try again.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, PoolError, RecyclingMethod, Runtime};
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

/// Connections of one worker to one address. Workers are many, and PostgreSQL pays for each connection.
const CONNECTIONS: usize = 4;
/// For a free connection, when all are in use.
const WAIT_WITHIN: Duration = Duration::from_secs(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// For connecting and being let in.
const ADMIT_WITHIN: Duration = Duration::from_secs(2);
/// For an old connection to show that it still works.
const TRIAL_WITHIN: Duration = Duration::from_millis(500);
/// For the other end to confirm bytes, before the kernel calls the connection dead.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);
/// In PostgreSQL, and only while a statement runs: it never cuts short a commit that waits for the replica.
const STATEMENT_LIMITS: &str = "-c statement_timeout=5s -c idle_in_transaction_session_timeout=10s";

#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    /// Nothing was sent, or what was sent certainly had no effect.
    #[error("the database cannot be reached: {0}")]
    Away(String),
    /// It is not known whether what was sent had an effect.
    #[error("the connection to the database broke: {0}")]
    Broken(String),
    #[error("the database did not answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// This database does not have the tables yet: a replica that is behind.
    #[error("the database does not have the table yet")]
    Behind,
    #[error("the database refused: {0}")]
    Refused(String),
}

#[derive(Clone)]
pub(crate) struct Pool(deadpool_postgres::Pool);

impl Pool {
    /// Connections to whoever takes writes.
    pub(crate) fn of_primary(address: &Config) -> Self {
        Self::new(address.clone(), TargetSessionAttrs::ReadWrite)
    }

    /// Connections to whoever answers reads.
    pub(crate) fn of_replica(address: &Config) -> Self {
        Self::new(address.clone(), TargetSessionAttrs::Any)
    }

    fn new(mut address: Config, attributes: TargetSessionAttrs) -> Self {
        address
            .application_name("guestbook")
            .target_session_attrs(attributes)
            .connect_timeout(CONNECT_WITHIN)
            .tcp_user_timeout(CONFIRM_WITHIN);
        if address.get_options().is_none() {
            address.options(STATEMENT_LIMITS);
        }
        let tried = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        let pool = deadpool_postgres::Pool::builder(Manager::from_config(address, NoTls, tried))
            .max_size(CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT_WITHIN))
            .create_timeout(Some(ADMIT_WITHIN))
            .recycle_timeout(Some(TRIAL_WITHIN))
            .build()
            .expect("a pool with time limits has a runtime");
        Self(pool)
    }

    pub(crate) async fn connection(&self) -> Result<Object, DatabaseError> {
        self.0.get().await.map_err(|error| DatabaseError::Away(why(&error)))
    }

    /// Runs `work` on a connection, within a time limit, and throws the connection away unless all was well.
    pub(crate) async fn run<T>(
        &self,
        within: Duration,
        work: impl AsyncFnOnce(&Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, DatabaseError> {
        let connection = self.connection().await?;
        match tokio::time::timeout(within, work(&connection)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                drop(Object::take(connection));
                Err(judged(&error))
            }
            Err(_) => {
                drop(Object::take(connection));
                Err(DatabaseError::Slow(within))
            }
        }
    }
}

/// What an error on a running statement means for whoever sent it.
fn judged(error: &tokio_postgres::Error) -> DatabaseError {
    let Some(refusal) = error.as_db_error() else { return DatabaseError::Broken(told(error)) };
    let code = refusal.code();
    if *code == SqlState::UNDEFINED_TABLE {
        DatabaseError::Behind
    } else if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        DatabaseError::Away("it takes no writes: it is no longer the primary".to_owned())
    } else if code.code().starts_with("57") || code.code().starts_with("08") {
        DatabaseError::Broken(told(error))
    } else {
        DatabaseError::Refused(told(error))
    }
}

fn why(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) => told(error),
        PoolError::Timeout(_) => "no connection in time".to_owned(),
        other => other.to_string(),
    }
}

/// The error with its causes, since "db error" alone says nothing.
pub(crate) fn told(error: &tokio_postgres::Error) -> String {
    if let Some(refusal) = error.as_db_error() {
        return refusal.message().to_owned();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        if !text.contains(&deeper.to_string()) {
            text = format!("{text}: {deeper}");
        }
        cause = deeper.source();
    }
    text
}
