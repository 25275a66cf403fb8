//! What the primary must have: the application's role and database, the replicas' role, a slot for each replica.
//!
//! Every step may have been done before, by us or by an earlier manager that was killed in the middle.

use link::Secrets;
use tokio_postgres::GenericClient;

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
    replicas: &[String],
    secrets: &Secrets,
) -> Result<(), SetupError> {
    let app = verifier(secrets, "app-password")?;
    let replication = verifier(secrets, "replication-password")?;
    role(session, database, "NOSUPERUSER", &app).await?;
    role(session, REPLICATOR, "NOSUPERUSER REPLICATION", &replication).await?;
    own_database(session, database).await?;
    slots(session, replicas).await
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
/// of servers that left the plan, which would keep it for nobody.
async fn slots(session: &Session, replicas: &[String]) -> Result<(), SetupError> {
    let wanted: Vec<String> = replicas.iter().map(|name| slot(name)).collect();
    let make = "SELECT pg_create_physical_replication_slot(wanted, true) FROM unnest($1::text[]) AS wanted \
                WHERE NOT EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_name = wanted)";
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_type = 'physical' \
                AND NOT active AND NOT temporary AND slot_name ~ '^database_[0-9]+$' AND slot_name <> ALL ($1::text[])";
    for statement in [make, drop] {
        session.ask(session.client.query(statement, &[&wanted])).await?;
    }
    Ok(())
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
