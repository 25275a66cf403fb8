//! What goes wrong besides processes and networks: full disks, damaged data, tools that are killed. Each ends with a
//! sentence that says what is the matter, with the data kept, and by itself once the cause is gone.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use database::group::Command;
use link::report::State;
use rustix::process::Signal;
use testkit::SmallDisk;

use super::failover::{kill_if_there, signal_if_there};
use super::site::{Running, Site, until};
use super::{below, kill, reads, start_all, table};

#[tokio::test]
async fn a_full_disk_of_a_replica_stops_nobody_else() {
    let site = Site::new("replica-full", 131, "");
    let Some(disk) = SmallDisk::where_allowed(&site.folder("database-2"), 256 << 20) else { return };
    let _servers = start_all(&site);
    let writer = table(&site).await;
    assert_eq!(site.settled().1, "database-2");
    disk.fill();
    writer.batch_execute("ALTER TABLE entry ALTER message SET STORAGE EXTERNAL").await.unwrap();
    // More than fits into what it had ready. The commits wait until it is known that it is of no use, and no longer.
    for _ in 0..4 {
        let text = "INSERT INTO entry SELECT repeat(md5(i::text), 100) FROM generate_series(1, 2500) AS i";
        writer.batch_execute(text).await.unwrap();
    }
    site.wait("database-2", |report| {
        report.state == State::Unhealthy && report.because.contains("left on the disk of the data, make room")
    });
    until("the primary goes on alone", || site.group().synchronous.members.is_empty());
    writer.execute("INSERT INTO entry VALUES ('alone')", &[]).await.unwrap();
    disk.make_room();
    site.settled();
    reads(&site, 10_002).await;
}

#[tokio::test]
async fn a_replica_that_was_away_for_too_long_does_not_fill_the_disk_and_is_copied() {
    let site = Site::new("slot", 141, "");
    let [_one, two, _gate] = start_all(&site);
    let writer = table(&site).await;
    assert_eq!(site.settled().1, "database-2");
    let limit = site.sql("database-1", "SELECT current_setting('max_slot_wal_keep_size')");
    assert_eq!(limit, "10GB", "bounded, whatever happens to a replica");
    two.stop();
    // The same with a limit that a test can reach.
    for statement in [
        "ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'",
        "ALTER SYSTEM SET wal_keep_size = 0",
        "SELECT pg_reload_conf()",
        "CREATE TABLE large AS SELECT md5(i::text) FROM generate_series(1, 600000) AS i",
        "SELECT pg_switch_wal()",
        "CHECKPOINT",
    ] {
        site.sql("database-1", statement);
    }
    // Given up, so that the disk does not fill, and made anew, so that a copy can begin.
    let status = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'database_2'";
    until("a new slot", || site.sql("database-1", status) == "reserved");
    writer.execute("INSERT INTO entry VALUES ('without it')", &[]).await.unwrap();
    let _two = site.start("database-2");
    site.wait("database-2", |report| report.because.contains("cannot follow the primary's log"));
    site.settled();
    reads(&site, 2).await;
}

#[tokio::test]
async fn a_damaged_source_makes_no_copy_and_is_told() {
    let site = Site::new("damaged", 151, "");
    let _servers = start_all(&site);
    table(&site).await.close().await;
    let (primary, replica) = site.settled();
    site.sql(&primary, "CHECKPOINT");
    let path = site.sql(&primary, "SELECT pg_relation_filepath('entry')");
    let path = site.folder(&primary).join("data").join(path);
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut sound = [0; 8];
    file.read_exact_at(&mut sound, 4000).unwrap();
    file.write_all_at(b"damaged!", 4000).unwrap();
    site.change(&Command::Reinit { server: replica.clone() }).await;
    site.wait(&replica, |report| report.state == State::Unhealthy && report.because.contains("checksum"));
    // It is still what it was.
    assert!(site.folder(&replica).join("data/PG_VERSION").exists());
    file.write_all_at(&sound, 4000).unwrap();
    until("a whole copy", || !site.group().reinit.contains(&replica));
    site.settled();
    reads(&site, 1).await;
}

/// The pg_rewind of this server.
fn rewinding(site: &Site, server: &str) -> Option<u32> {
    let data = site.folder(server).join("data");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.split('\0').next().is_some_and(|program| program.ends_with("/pg_rewind"))
            && line.contains(data.to_str().unwrap())
    })
}

fn receiver(site: &Site, replica: &str) -> u32 {
    let is_receiver = |pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("walreceiver")
    };
    below(site, replica).into_iter().find(is_receiver).expect("a replica that streams")
}

#[tokio::test]
async fn a_rewind_that_is_killed_half_way_ends_in_a_copy() {
    let site = Site::new("rewind-killed", 161, "");
    let [one, _two, _gate] = start_all(&site);
    table(&site).await.close().await;
    let (primary, replica) = site.settled();
    assert_eq!(primary, "database-1");
    let receiver = receiver(&site, &replica);
    // What only the primary has, and nobody was told of.
    signal_if_there(receiver, Signal::STOP);
    let rows = "INSERT INTO entry SELECT md5(i::text) FROM generate_series(1, 20000) AS i";
    site.sql(&primary, &format!("BEGIN; {rows}; SELECT pg_switch_wal(); ROLLBACK"));
    let machine = [vec![one.process.id()], below(&site, &primary)].concat();
    machine.iter().for_each(|pid| signal_if_there(*pid, Signal::STOP));
    machine.iter().for_each(|pid| kill_if_there(*pid));
    // It ends before it reads what is on its way.
    signal_if_there(receiver, Signal::TERM);
    signal_if_there(receiver, Signal::CONT);
    until("the replica takes over", || site.group().holder == replica && site.group().is_open());
    drop::<Running>(one);
    let _one = site.start(&primary);
    let deadline = Instant::now() + Duration::from_secs(30);
    let rewinding = loop {
        if let Some(pid) = rewinding(&site, &primary) {
            break pid;
        }
        assert!(Instant::now() < deadline, "no rewind was seen");
        std::thread::sleep(Duration::from_millis(1));
    };
    kill(rewinding);
    site.wait(&primary, |report| report.because.contains("a rewind of its data was not finished"));
    assert_eq!(site.settled().0, replica);
    reads(&site, 1).await;
}

#[tokio::test]
async fn a_long_transaction_does_not_hold_up_a_switchover() {
    let site = Site::new("long", 171, "");
    let _servers = start_all(&site);
    let writer = table(&site).await;
    let (primary, replica) = site.settled();
    let idle = site.client("gate-1", "read-write").await.unwrap();
    idle.batch_execute("BEGIN; INSERT INTO entry VALUES ('never committed'); LOCK TABLE entry")
        .await
        .unwrap();
    let runs = site.client("gate-1", "read-write").await.unwrap();
    let (ran, began) = tokio::join!(runs.batch_execute("SELECT pg_sleep(600)"), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let began = Instant::now();
        site.change(&Command::AskHandover { to: None }).await;
        began
    });
    assert!(ran.is_err(), "it is ended, and its client knows");
    until("the other one is the primary", || site.group().holder == replica && site.group().is_open());
    println!("from {primary} to {replica} within {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(idle.batch_execute("COMMIT").await.is_err());
    drop(writer);
    site.settled();
    reads(&site, 1).await;
}
