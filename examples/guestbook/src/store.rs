//! Entries in the database: written to the primary, read from a replica.
//!
//! A read may be done twice, so it is tried again, and at last on the primary. A write is sent once: only
//! while certainly nothing was sent does it wait for a primary to come (a switchover takes a moment).

use std::time::Duration;

use deadpool_postgres::Object;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, Row};

use crate::entry::{Draft, Entry};
use crate::pool::{DatabaseError, Pool};

const READ_WITHIN: Duration = Duration::from_secs(2);
/// Longer than a read: a commit may wait for a replica to come back.
const WRITE_WITHIN: Duration = Duration::from_secs(8);
/// How long a write waits for a primary that it can be sent to, and how often it looks.
const PRIMARY_WITHIN: Duration = Duration::from_secs(3);
const PRIMARY_EVERY: Duration = Duration::from_millis(100);
/// How long a reader who has just written waits for the replica to have it, and how often we look.
const REPLICA_WITHIN: Duration = Duration::from_millis(400);
const REPLICA_EVERY: Duration = Duration::from_millis(20);

/// `$1`: how many, `$2`: older than this entry.
const LIST: &str = "\
select id, name, message,
       to_char(at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as at,
       to_char(at at time zone 'UTC', 'FMDD FMMonth YYYY, HH24:MI') as day
from entries where id < $2 order by id desc limit $1";
const ADD: &str = "\
insert into entries (name, message) values ($1, $2)
returning id, name, message,
       to_char(at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as at,
       to_char(at at time zone 'UTC', 'FMDD FMMonth YYYY, HH24:MI') as day";
const HAS: &str = "select exists (select from entries where id = $1)";
const IN_RECOVERY: &str = "select pg_is_in_recovery()";

pub(crate) struct Store {
    pub(crate) primary: Pool,
    pub(crate) replica: Option<Pool>,
}

/// Which entries are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) limit: u32,
    /// Only entries older than this one.
    pub(crate) before: Option<i64>,
    /// The reader has just written this entry and must see it.
    pub(crate) after: Option<i64>,
}

/// Entries, newest first, and where they came from.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) entries: Vec<Entry>,
    pub(crate) more: bool,
    pub(crate) from_replica: bool,
}

impl Store {
    pub(crate) fn new(primary: &Config, replica: Option<&Config>) -> Self {
        Self { primary: Pool::of_primary(primary), replica: replica.map(Pool::of_replica) }
    }

    /// Reads from a replica; from the primary when no replica answers or has what the reader wrote.
    pub(crate) async fn list(&self, wanted: Wanted) -> Result<Listing, DatabaseError> {
        if let Some(replica) = &self.replica {
            match read_twice(replica, wanted).await {
                Ok(Some(listing)) => return Ok(listing),
                Ok(None) => {} // the replica is behind the reader
                Err(error) => eprintln!("guestbook: reading from the primary, since on the replica {error}"),
            }
        }
        let wanted = Wanted { after: None, ..wanted };
        let listing = read_twice(&self.primary, wanted).await?;
        Ok(listing.expect("a read that waits for no entry lacks none"))
    }

    /// Returns once the entry is committed. After `Broken` and `Slow` nobody knows whether it was.
    pub(crate) async fn add(&self, draft: &Draft) -> Result<Entry, DatabaseError> {
        let patience = Instant::now() + PRIMARY_WITHIN;
        loop {
            match self.primary.run(WRITE_WITHIN, async |connection| add(connection, draft).await).await {
                Err(DatabaseError::Away(_)) if Instant::now() < patience => {
                    tokio::time::sleep(PRIMARY_EVERY).await;
                }
                done => return done,
            }
        }
    }
}

/// A connection that broke says little about the server behind it, so one more is tried.
async fn read_twice(pool: &Pool, wanted: Wanted) -> Result<Option<Listing>, DatabaseError> {
    match read(pool, wanted).await {
        Err(DatabaseError::Broken(_)) => read(pool, wanted).await,
        done => done,
    }
}

async fn read(pool: &Pool, wanted: Wanted) -> Result<Option<Listing>, DatabaseError> {
    pool.run(READ_WITHIN, async |connection| {
        if let Some(id) = wanted.after
            && !has(connection, id).await?
        {
            return Ok(None);
        }
        list(connection, wanted).await.map(Some)
    })
    .await
}

/// Waits a little for an entry to arrive. On one connection, since another may lead to another replica.
async fn has(connection: &Object, id: i64) -> Result<bool, tokio_postgres::Error> {
    let statement = connection.prepare_cached(HAS).await?;
    let patience = Instant::now() + REPLICA_WITHIN;
    loop {
        let arrived = connection.query_one(&statement, &[&id]).await?.try_get(0)?;
        if arrived || Instant::now() >= patience {
            return Ok(arrived);
        }
        tokio::time::sleep(REPLICA_EVERY).await;
    }
}

async fn list(connection: &Object, wanted: Wanted) -> Result<Listing, tokio_postgres::Error> {
    let statement = connection.prepare_cached(LIST).await?;
    let place = connection.prepare_cached(IN_RECOVERY).await?;
    let one_more = i64::from(wanted.limit) + 1;
    let before = wanted.before.unwrap_or(i64::MAX);
    let which: [&(dyn ToSql + Sync); 2] = [&one_more, &before];
    // Both are sent at once, and so cost one round trip.
    let (rows, place) =
        tokio::try_join!(connection.query(&statement, &which), connection.query_one(&place, &[]))?;
    let limit = wanted.limit as usize;
    let entries = rows.iter().take(limit).map(entry).collect::<Result<_, _>>()?;
    Ok(Listing { entries, more: rows.len() > limit, from_replica: place.try_get(0)? })
}

async fn add(connection: &Object, draft: &Draft) -> Result<Entry, tokio_postgres::Error> {
    let statement = connection.prepare_cached(ADD).await?;
    entry(&connection.query_one(&statement, &[&draft.name, &draft.message]).await?)
}

fn entry(row: &Row) -> Result<Entry, tokio_postgres::Error> {
    Ok(Entry {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        message: row.try_get("message")?,
        at: row.try_get("at")?,
        day: row.try_get("day")?,
    })
}
