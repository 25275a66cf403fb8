//! The table, made at the start in numbered steps.
//!
//! Workers on several machines start at once, and the database may come up after them: each tries until it is
//! done, one at a time under an advisory lock (PostgreSQL manual, 13.3.5), in one transaction, so that a step
//! is done wholly and once. A step that was ever released is never changed; a new one is added below it.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;

use crate::pool::{DatabaseError, Pool, told};
use crate::server::Guestbook;
use crate::store::Store;

/// In order; the number of a step is its place, from 1.
const STEPS: [&str; 1] = [include_str!("../migrations/1-entries.sql")];
const DONE: &str = "select coalesce(max(number), 0) from schema_steps";
/// Any number that nothing else in this database locks.
const LOCK: i64 = 0x6775_6573_7462_6f6f;
const BACK_OFF: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1500),
];

#[derive(Debug, thiserror::Error)]
enum SchemaError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("making the table failed: {}", told(.0))]
    Step(#[from] tokio_postgres::Error),
}

/// Ends when the tables are there and the worker is ready.
pub(crate) async fn keep_trying(guestbook: Arc<Guestbook>) {
    let mut said = String::new();
    for attempt in 0_usize.. {
        let reason = match make(&guestbook.store).await {
            Ok(how) => {
                println!("guestbook: ready: {how}");
                return guestbook.health.ready();
            }
            Err(error) => error.to_string(),
        };
        if reason != said {
            eprintln!("guestbook: not ready: {reason}; trying again");
            said.clone_from(&reason);
        }
        guestbook.health.waits(reason);
        tokio::time::sleep(BACK_OFF[attempt.min(BACK_OFF.len() - 1)]).await;
    }
}

/// Without a primary a worker can still show the entries, if a replica has the tables of this version.
async fn make(store: &Store) -> Result<String, SchemaError> {
    match migrate(&store.primary).await {
        Ok(0) => Ok("the table was there".to_owned()),
        Ok(steps) => Ok(format!("the table was made ({steps} of {} steps were new)", STEPS.len())),
        Err(error) => match &store.replica {
            Some(replica) if is_current(replica).await => Ok(format!("for reading only, since {error}")),
            _ => Err(error),
        },
    }
}

/// How many steps were new.
async fn migrate(primary: &Pool) -> Result<usize, SchemaError> {
    let mut connection = primary.connection().await?;
    let done = take_missing_steps(&mut connection).await;
    if done.is_err() {
        drop(Object::take(connection));
    }
    Ok(done?)
}

async fn take_missing_steps(connection: &mut Object) -> Result<usize, tokio_postgres::Error> {
    let transaction = connection.transaction().await?;
    transaction.execute("select pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let table = "create table if not exists schema_steps \
                 (number int primary key, at timestamptz not null default clock_timestamp())";
    transaction.batch_execute(table).await?;
    let done: i32 = transaction.query_one(DONE, &[]).await?.try_get(0)?;
    let missing = (1..).zip(STEPS).skip(usize::try_from(done).unwrap_or(0));
    let mut new = 0;
    for (number, step) in missing {
        transaction.batch_execute(step).await?;
        transaction.execute("insert into schema_steps (number) values ($1)", &[&number]).await?;
        new += 1;
    }
    transaction.commit().await?;
    Ok(new)
}

async fn is_current(replica: &Pool) -> bool {
    let done = replica
        .run(BACK_OFF[4], async |connection| connection.query_one(DONE, &[]).await?.try_get::<_, i32>(0));
    done.await.is_ok_and(|done| usize::try_from(done).is_ok_and(|done| done >= STEPS.len()))
}
