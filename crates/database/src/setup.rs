//! What the primary must have: the application's role and database, the replicas' role, a slot for each replica.
//!
//! Every step may have been done before, by us or by an earlier manager that was killed in the middle.

use link::Secrets;
use tokio_postgres::GenericClient;

use crate::folder::Folder;
use crate::session::{Session, SessionError};
use crate::settings::{REPLICATOR, slot};

#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the agent gave no secret {0}")]
    NoSecret(&'static str),
}

impl From<tokio_postgres::Error> for SetupError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Session(error.into())
    }
}

/// Does all of it.
pub(crate) async fn run(
    session: &Session,
    database: &str,
    others: &[String],
    secrets: &Secrets,
) -> Result<(), SetupError> {
    let app = verifier(secrets, "app-password")?;
    let replication = verifier(secrets, "replication-password")?;
    role(session, database, "NOSUPERUSER", &app).await?;
    role(session, REPLICATOR, "NOSUPERUSER REPLICATION", &replication).await?;
    own_database(session, database).await?;
    rewinds(session).await?;
    slots(session, others).await
}

/// What pg_rewind asks of its source (manual, pg_rewind, Notes): it reads files below the data directory, which a
/// replica has all the same.
async fn rewinds(session: &Session) -> Result<(), SetupError> {
    const NEEDED: [&str; 4] = [
        "pg_ls_dir(text, boolean, boolean)",
        "pg_stat_file(text, boolean)",
        "pg_read_binary_file(text)",
        "pg_read_binary_file(text, bigint, bigint, boolean)",
    ];
    let to = identifier(REPLICATOR);
    let grants = NEEDED.map(|function| format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {to};"));
    Ok(session.ask(session.client.batch_execute(&grants.concat())).await?)
}

/// Commits the epoch's row as every commit of a client will be committed. Its end proves that all that this
/// primary shows is where it must be. A cancelled wait is a warning, and a failure here.
pub(crate) async fn commit_epoch(
    folder: &Folder,
    port: u16,
    epoch: u64,
    server: &str,
) -> Result<(), SessionError> {
    let session = Session::open_patient(folder, port).await?;
    let statements = format!(
        "CREATE SCHEMA IF NOT EXISTS dolmen; \
         CREATE TABLE IF NOT EXISTS dolmen.heartbeat (one boolean PRIMARY KEY DEFAULT true CHECK (one), \
         at timestamptz NOT NULL) WITH (fillfactor = 10); \
         INSERT INTO dolmen.heartbeat (at) VALUES (now()) ON CONFLICT DO NOTHING; \
         CREATE TABLE IF NOT EXISTS dolmen.epoch (epoch bigint PRIMARY KEY, server text NOT NULL, \
         at timestamptz NOT NULL); \
         INSERT INTO dolmen.epoch VALUES ({epoch}, '{server}', now()) \
         ON CONFLICT (epoch) DO UPDATE SET at = now(), server = excluded.server"
    );
    session.client.batch_execute(&statements).await?;
    if session.warned() { Err(SessionError::Warned) } else { Ok(()) }
}

/// What PostgreSQL stores for a password (RFC 5803), made here so that the password itself stands in no
/// statement, and thereby in no log.
fn verifier(secrets: &Secrets, name: &'static str) -> Result<String, SetupError> {
    let secret = secrets.get(name).ok_or(SetupError::NoSecret(name))?;
    Ok(postgres_protocol::password::scram_sha_256(secret.reveal().as_bytes()))
}

/// Makes the role, or gives it the password that is in force now.
async fn role(session: &Session, name: &str, rights: &str, verifier: &str) -> Result<(), SetupError> {
    let client = session.client.client();
    let known = "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1";
    let exists = session.ask(client.query_opt(known, &[&name])).await?.is_some();
    let verb = if exists { "ALTER" } else { "CREATE" };
    let name = identifier(name);
    let statement = format!("{verb} ROLE {name} LOGIN {rights} PASSWORD '{verifier}'");
    Ok(session.ask(client.batch_execute(&statement)).await?)
}

async fn own_database(session: &Session, name: &str) -> Result<(), SetupError> {
    let client = session.client.client();
    let known = "SELECT 1 FROM pg_catalog.pg_database WHERE datname = $1";
    if session.ask(client.query_opt(known, &[&name])).await?.is_none() {
        let name = identifier(name);
        session.ask(client.batch_execute(&format!("CREATE DATABASE {name} OWNER {name}"))).await?;
    }
    Ok(())
}

/// Makes the missing slots, which keep the log that a replica has not got yet from now on, and drops those
/// of servers that left the plan, which would keep it for nobody, and those that were given up because they had
/// kept too much, which keep nothing any more.
async fn slots(session: &Session, replicas: &[String]) -> Result<(), SetupError> {
    let wanted: Vec<String> = replicas.iter().map(|name| slot(name)).collect();
    let make = "SELECT pg_create_physical_replication_slot(wanted, true) FROM unnest($1::text[]) AS wanted \
                WHERE NOT EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_name = wanted)";
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_type = 'physical' \
                AND NOT active AND NOT temporary AND slot_name ~ '^database_[0-9]+$' \
                AND (slot_name <> ALL ($1::text[]) OR wal_status = 'lost')";
    for statement in [drop, make] {
        session.ask(session.client.query(statement, &[&wanted])).await?;
    }
    Ok(())
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
