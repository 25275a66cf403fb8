//! Looking at the world: the data directory and our postgres.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::control_data;
use crate::failover::{Answer, AsPrimary, AsReplica, Data, Names, Progress, Replica};
use crate::find::Postgres;
use crate::group::Lsn;
use crate::heard::{Heard, Line};
use crate::session::{Session, SessionError};
use crate::settings::slot;
use crate::{timeline, tool};

/// Looks at a data directory on which no postgres runs.
pub(crate) async fn data(folder: &Path, installed: &[Postgres]) -> Data {
    match look(folder, installed).await {
        Ok(data) => data,
        Err(error) => Data::Unreadable(error),
    }
}

async fn look(data: &Path, installed: &[Postgres]) -> Result<Data, String> {
    let version = match std::fs::read_to_string(data.join("PG_VERSION")) {
        Ok(version) => version,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !data.exists() => return Ok(Data::Absent),
        Err(error) => return Err(format!("{} is not a data directory ({error})", data.display())),
    };
    let major =
        version.trim().parse().map_err(|_| format!("{} has no readable PG_VERSION", data.display()))?;
    let Some(postgres) = installed.iter().find(|postgres| postgres.version.major == major) else {
        return Ok(Data::OtherVersion(major));
    };
    let mut command = tool::command(&postgres.bin, "pg_controldata");
    command.arg("-D").arg(data);
    let text = tool::run(command, crate::act::QUICK_TOOL, |_| ()).await;
    let text = text.map_err(|error| format!("{} cannot be read: {error}", data.display()))?;
    let control = control_data::parse(&text)
        .ok_or_else(|| format!("pg_controldata says nothing useful of {}", data.display()))?;
    Ok(Data::Present {
        major,
        system_identifier: control.system_identifier,
        timeline: control.timeline,
        closed: control.closed,
        standby: data.join("standby.signal").exists(),
    })
}

/// What only the manager knows of its postgres, and puts into the answer.
#[derive(Debug)]
pub(crate) struct Own<'a> {
    pub(crate) data: &'a Path,
    /// Every other server of the plan.
    pub(crate) others: &'a [String],
    pub(crate) follows: Option<String>,
    /// How long it has been told to follow that.
    pub(crate) following_for: Duration,
    pub(crate) names_since: Option<(Names, Lsn)>,
    pub(crate) committed_epoch: Option<u64>,
    pub(crate) committing: Option<u64>,
    pub(crate) set_up: bool,
    pub(crate) checkpointing: bool,
    pub(crate) heard: Arc<Heard>,
}

/// Asks our postgres.
pub(crate) async fn answer(session: &Session, own: &Own<'_>) -> Result<Answer, SessionError> {
    let recovery = session.ask(session.client.query_one("SELECT pg_is_in_recovery()", &[])).await?;
    if recovery.get(0) {
        Ok(Answer::Replica(replica(session, own).await?))
    } else {
        Ok(Answer::Primary(primary(session, own).await?))
    }
}

/// The last column: the last checkpoint was made on the timeline that is written now.
const OF_PRIMARY: &str = "SELECT system_identifier, \
    ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int, \
    pg_current_wal_flush_lsn()::text, current_setting('synchronous_standby_names'), \
    timeline_id = ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int \
    FROM pg_control_system(), pg_control_checkpoint()";

const OF_REPLICAS: &str = "SELECT application_name, state, coalesce(flush_lsn, '0/0')::text, \
    greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0)::bigint, pid, coalesce(reply_time::text, '') \
    FROM pg_stat_replication WHERE state IS NOT NULL";

/// What each slot keeps, and whether it was given up because that was too much: then it has to be made anew.
const OF_SLOTS: &str = "SELECT slot_name::text, \
    greatest(coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0), 0)::bigint, \
    coalesce(wal_status = 'lost', false) AND NOT active \
    FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary";

async fn primary(session: &Session, own: &Own<'_>) -> Result<AsPrimary, SessionError> {
    let row = session.ask(session.client.query_one(OF_PRIMARY, &[])).await?;
    let slots = session.ask(session.client.query(OF_SLOTS, &[])).await?;
    let lost = slots.iter().any(|row| row.get(2));
    let kept = |name: &str| {
        let own = slots.iter().find(|row| row.get::<_, &str>(0) == slot(name));
        own.map_or(0, |row| row.get::<_, i64>(1) as u64)
    };
    let rows = session.ask(session.client.query(OF_REPLICAS, &[])).await?;
    let line = |row: &tokio_postgres::Row| Line { name: row.get(0), pid: row.get(4) };
    let speak = own.heard.note(rows.iter().map(|row| (line(row), row.get(5))));
    let connected: Vec<Connected> = rows
        .iter()
        .map(|row| Connected {
            name: row.get(0),
            speaks: speak.contains(&line(row)),
            state: row.get(1),
            flushed: lsn(row.get(2)),
            lag_bytes: row.get::<_, Option<i64>>(3).unwrap_or_default() as u64,
        })
        .collect();
    let timeline = row.get::<_, i32>(1) as u32;
    let text: &str = row.get(3);
    let names = Names::parse(text).unwrap_or_else(|| foreign(text));
    Ok(AsPrimary {
        system_identifier: row.get::<_, i64>(0) as u64,
        timeline,
        switch: timeline::switch(own.data, timeline).map_err(SessionError::Socket)?,
        written: lsn(row.get(2)),
        names_since: own.names_since.as_ref().filter(|(known, _)| *known == names).map(|(_, since)| *since),
        names,
        replicas: own.others.iter().map(|name| of_plan(name, &connected, kept(name))).collect(),
        committed_epoch: own.committed_epoch,
        committing: own.committing,
        set_up: own.set_up && !lost,
        checkpoint: match (row.get(4), own.checkpointing) {
            (true, _) => Progress::Done,
            (false, true) => Progress::UnderWay,
            (false, false) => Progress::NotBegun,
        },
    })
}

/// Names that somebody else wrote are like no names of ours, so that ours are put into force.
fn foreign(text: &str) -> Names {
    tracing::warn!("synchronous_standby_names is \"{text}\", which dolmen did not write");
    Names { wait_for: u32::MAX, members: [text.to_owned()].into() }
}

fn lsn(text: String) -> Lsn {
    text.parse().unwrap_or_default()
}

#[derive(Clone, Debug)]
struct Connected {
    name: String,
    state: String,
    speaks: bool,
    flushed: Lsn,
    lag_bytes: u64,
}

/// A server of the plan: as it streams, else as it is being copied, else away.
fn of_plan(name: &str, connected: &[Connected], kept_bytes: u64) -> Replica {
    let own = connected.iter().filter(|replica| replica.name == name);
    let best = own.max_by_key(|replica| replica.state == "streaming");
    let copy = copy_name(name);
    Replica {
        name: name.to_owned(),
        streaming: best.is_some_and(|replica| replica.state == "streaming" && replica.speaks),
        copying: connected.iter().any(|replica| replica.name == copy),
        flushed: best.map(|replica| replica.flushed).unwrap_or_default(),
        lag_bytes: best.map(|replica| replica.lag_bytes).unwrap_or_default(),
        away: Duration::ZERO,
        kept_bytes,
    }
}

/// What a copy under way calls itself: never the server's own name, or it could count as the synchronous one.
pub(crate) fn copy_name(server: &str) -> String {
    format!("{server}-copy")
}

/// A standby that waits for more has replayed all that it has.
const OF_STANDBY: &str = "SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')::text, receiver.pid IS NOT NULL, \
    coalesce(receiver.status = 'streaming', false), \
    greatest(pg_wal_lsn_diff(receiver.latest_end_lsn, pg_last_wal_replay_lsn()), 0)::bigint, \
    EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup' \
    AND wait_event IN ('RecoveryRetrieveRetryInterval', 'RecoveryWalStream')), \
    pg_size_bytes(current_setting('wal_segment_size')), (SELECT timeline_id FROM pg_control_checkpoint()) \
    FROM (SELECT) AS one LEFT JOIN pg_stat_wal_receiver AS receiver ON true";

async fn replica(session: &Session, own: &Own<'_>) -> Result<AsReplica, SessionError> {
    let row = session.ask(session.client.query_one(OF_STANDBY, &[])).await?;
    let replayed = lsn(row.get(0));
    let known = row.get::<_, i32>(6) as u32;
    let written =
        timeline::at(own.data, replayed, row.get::<_, i64>(5) as u64).map_err(SessionError::Socket)?;
    let streaming: bool = row.get(2);
    Ok(AsReplica {
        follows: own.follows.clone(),
        receiving: row.get(1),
        streaming,
        not_streaming: if streaming { Duration::ZERO } else { own.following_for },
        replayed_all: row.get(4),
        timeline: written.unwrap_or_default().max(known),
        replayed,
        lag_bytes: row.get::<_, Option<i64>>(3).unwrap_or_default() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, state: &str) -> Connected {
        Connected { name: name.into(), state: state.into(), speaks: true, flushed: Lsn(7), lag_bytes: 0 }
    }

    #[test]
    fn each_server_of_the_plan_is_told_once() {
        let connected = [
            seen("database-2", "catchup"),
            seen("database-2", "streaming"),
            seen("database-3-copy", "backup"),
            seen("stranger", "streaming"),
        ];
        let told = |name: &str| {
            let replica = of_plan(name, &connected, 0);
            (replica.streaming, replica.copying, replica.flushed)
        };
        assert_eq!(told("database-2"), (true, false, Lsn(7)));
        assert_eq!(told("database-3"), (false, true, Lsn(0)));
        assert_eq!(told("database-4"), (false, false, Lsn(0)));
    }
}
