//! Looking at the world: the data directory, our postgres, the primary.

use std::io;

use link::report::ReplicaReport;

use crate::find::Postgres;
use crate::folder::Folder;
use crate::seen::{Answer, Data};
use crate::session::{Session, SessionError};
use crate::{control_data, tool};

/// Looks at a data directory on which no postgres runs.
pub(crate) async fn data(folder: &Folder, installed: &[Postgres]) -> Data {
    match look(folder, installed).await {
        Ok(data) => data,
        Err(error) => Data::Unreadable(error),
    }
}

async fn look(folder: &Folder, installed: &[Postgres]) -> Result<Data, String> {
    let data = folder.data();
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
    command.arg("-D").arg(&data);
    let text = tool::run(command, crate::act::QUICK_TOOL, |_| ()).await;
    let text = text.map_err(|error| format!("{} cannot be read: {error}", data.display()))?;
    let control = control_data::parse(&text)
        .ok_or_else(|| format!("pg_controldata says nothing useful of {}", data.display()))?;
    Ok(Data::Present {
        major,
        system_identifier: control.system_identifier,
        timeline: control.timeline,
        standby: data.join("standby.signal").exists(),
    })
}

/// Asks our postgres. `planned` are the replicas that a primary should have.
pub(crate) async fn answer(
    session: &Session,
    planned: &[String],
    set_up: bool,
) -> Result<Answer, SessionError> {
    let client = &session.client;
    let recovery = session.ask(client.query_one("SELECT pg_is_in_recovery()", &[])).await?;
    if recovery.get(0) { replica(session).await } else { primary(session, planned, set_up).await }
}

async fn primary(session: &Session, planned: &[String], set_up: bool) -> Result<Answer, SessionError> {
    let of_self = "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int, \
                   current_setting('synchronous_standby_names')";
    let of_replicas = "SELECT application_name, state, sync_state IN ('sync', 'quorum'), \
                       greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0)::bigint \
                       FROM pg_stat_replication WHERE state IS NOT NULL";
    let row = session.ask(session.client.query_one(of_self, &[])).await?;
    let rows = session.ask(session.client.query(of_replicas, &[])).await?;
    let connected: Vec<ReplicaReport> = rows
        .iter()
        .map(|row| ReplicaReport {
            name: row.get(0),
            state: row.get(1),
            synchronous: row.get(2),
            lag_bytes: row.get::<_, Option<i64>>(3).unwrap_or_default() as u64,
        })
        .collect();
    Ok(Answer::Primary {
        timeline: row.get::<_, i32>(0) as u32,
        replicas: planned.iter().map(|name| of_plan(name, &connected)).collect(),
        synchronous_names: row.get(1),
        set_up,
    })
}

/// A replica of the plan: as it streams, else as it is being copied, else away.
fn of_plan(name: &str, connected: &[ReplicaReport]) -> ReplicaReport {
    let own = connected.iter().filter(|replica| replica.name == name);
    if let Some(replica) = own.max_by_key(|replica| replica.state == "streaming") {
        return replica.clone();
    }
    let copy = copy_name(name);
    let copying = connected.iter().any(|replica| replica.name == copy);
    let state = if copying { "backup" } else { "disconnected" };
    ReplicaReport { name: name.to_owned(), state: state.to_owned(), synchronous: false, lag_bytes: 0 }
}

/// What a copy under way calls itself: never the server's own name, or it could count as the synchronous one.
pub(crate) fn copy_name(server: &str) -> String {
    format!("{server}-copy")
}

async fn replica(session: &Session) -> Result<Answer, SessionError> {
    let statement = "SELECT coalesce(received_tli, (SELECT timeline_id FROM pg_control_checkpoint())), \
                     coalesce(status = 'streaming', false), \
                     greatest(pg_wal_lsn_diff(latest_end_lsn, pg_last_wal_replay_lsn()), 0)::bigint \
                     FROM (SELECT) AS one LEFT JOIN pg_stat_wal_receiver ON true";
    let row = session.ask(session.client.query_one(statement, &[])).await?;
    Ok(Answer::Replica {
        timeline: row.get::<_, i32>(0) as u32,
        streaming: row.get(1),
        lag_bytes: row.get::<_, Option<i64>>(2).unwrap_or_default() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, state: &str) -> ReplicaReport {
        ReplicaReport { name: name.into(), state: state.into(), synchronous: false, lag_bytes: 0 }
    }

    #[test]
    fn each_replica_of_the_plan_is_told_once() {
        let connected = [
            seen("database-2", "catchup"),
            seen("database-2", "streaming"),
            seen("database-3-copy", "backup"),
            seen("stranger", "streaming"),
        ];
        let state = |name: &str| of_plan(name, &connected).state;
        assert_eq!(state("database-2"), "streaming");
        assert_eq!(state("database-3"), "backup");
        assert_eq!(state("database-4"), "disconnected");
    }
}
