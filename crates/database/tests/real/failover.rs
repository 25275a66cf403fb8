//! Failover on real PostgreSQL: one fault after another on one cluster, under a writer that checks in the end that
//! everything that was acknowledged to it is there. Outages are printed, not judged: that is the benchmark's work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use database::group::Command;
use link::control::Control;
use rustix::process::Signal;

use super::site::{Running, Site, until};
use super::{alive, below, kill, signal, start_all};

/// How long something stopped stays stopped: longer than any lease.
const STOPPED: Duration = Duration::from_secs(6);

/// What a writer was told.
#[derive(Default)]
struct Told {
    acknowledged: Vec<i64>,
    /// The longest time between two acknowledgements.
    outage: Duration,
    errors: u32,
}

struct Writer {
    go: Arc<AtomicBool>,
    thread: JoinHandle<Told>,
}

impl Writer {
    /// Numbers from `first` on, one every 10 ms, through the gate.
    fn start(site: &'static Site, first: i64) -> Self {
        let go = Arc::new(AtomicBool::new(true));
        let goes = Arc::clone(&go);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(write(site, first, &goes))
        });
        Self { go, thread }
    }

    fn stop(self) -> Told {
        self.go.store(false, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn write(site: &Site, first: i64, goes: &AtomicBool) -> Told {
    let (mut told, mut last, mut client) = (Told::default(), None::<Instant>, None);
    for number in first.. {
        if !goes.load(Ordering::Relaxed) {
            break;
        }
        let open = match client.take() {
            Some(open) => open,
            None => match site.client("gate-1", "read-write").await {
                Ok(open) => open,
                Err(_) => continue,
            },
        };
        match open.execute("INSERT INTO kept VALUES ($1)", &[&number]).await {
            Ok(_) => {
                told.outage = told.outage.max(last.map_or(Duration::ZERO, |last| last.elapsed()));
                last = Some(Instant::now());
                told.acknowledged.push(number);
                client = Some(open);
            }
            Err(_) => told.errors += 1,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    told
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    PostgresKilled,
    MachineKilled,
    ManagerKilled,
    ManagerStopped,
    MachineFrozen,
    GuardStopped,
    Handover,
    ReplicaKilled,
}

const FAULTS: [Fault; 8] = [
    Fault::PostgresKilled,
    Fault::MachineKilled,
    Fault::Handover,
    Fault::ManagerKilled,
    Fault::ManagerStopped,
    Fault::ReplicaKilled,
    Fault::MachineFrozen,
    Fault::GuardStopped,
];

/// The servers as they run now, by name.
struct Cluster {
    site: &'static Site,
    servers: Vec<(String, Running)>,
}

impl Cluster {
    fn manager(&self, server: &str) -> u32 {
        self.servers.iter().find(|(name, _)| name == server).unwrap().1.process.id()
    }

    fn again(&mut self, server: &str) {
        let at = self.servers.iter().position(|(name, _)| name == server).unwrap();
        // The old one is dead; reap it before its successor is there.
        drop(self.servers.swap_remove(at));
        self.servers.push((server.to_owned(), self.site.start(server)));
    }

    /// The manager first, so that it cannot see the rest end.
    fn machine(&self, server: &str) -> Vec<u32> {
        [vec![self.manager(server)], below(self.site, server)].concat()
    }

    async fn strike(&mut self, fault: Fault, primary: &str, replica: &str) {
        match fault {
            Fault::PostgresKilled => below(self.site, primary).into_iter().skip(1).for_each(kill_if_there),
            Fault::MachineKilled => {
                self.machine(primary).into_iter().for_each(|pid| signal_if_there(pid, Signal::STOP));
                self.machine(primary).into_iter().for_each(kill_if_there);
            }
            Fault::ManagerKilled => kill(self.manager(primary)),
            Fault::ManagerStopped => signal(self.manager(primary), Signal::STOP),
            Fault::MachineFrozen => {
                self.machine(primary).into_iter().for_each(|pid| signal_if_there(pid, Signal::STOP));
            }
            Fault::GuardStopped => signal(self.site.guard(primary), Signal::STOP),
            Fault::Handover => self.site.change(&Command::AskHandover { to: None }).await,
            Fault::ReplicaKilled => self.machine(replica).into_iter().for_each(kill_if_there),
        }
    }

    async fn mend(&mut self, fault: Fault, primary: &str, replica: &str, struck: &[u32]) {
        match fault {
            Fault::MachineKilled => self.again(primary),
            Fault::ReplicaKilled => self.again(replica),
            Fault::ManagerStopped => {
                tokio::time::sleep(STOPPED).await;
                let left = struck.iter().skip(1).filter(|pid| alive(**pid)).count();
                assert_eq!(left, 0, "processes of postgres outlive the lease of a stopped manager");
                signal(self.manager(primary), Signal::CONT);
            }
            Fault::MachineFrozen => {
                tokio::time::sleep(STOPPED).await;
                struck.iter().for_each(|pid| signal_if_there(*pid, Signal::CONT));
            }
            Fault::PostgresKilled | Fault::ManagerKilled | Fault::GuardStopped | Fault::Handover => {}
        }
    }
}

pub(crate) fn kill_if_there(pid: u32) {
    signal_if_there(pid, Signal::KILL);
}

/// Its end may have come with that of another, or by itself: postgres has processes that last for a moment only.
pub(crate) fn signal_if_there(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    match rustix::process::kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(errno) => panic!("{pid:?} takes no {signal:?}: {errno}"),
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_whatever_happens_to_whom() {
    let site: &'static Site = Box::leak(Box::new(Site::new("failover", 111, "")));
    let [one, two, _gate] = start_all(site);
    let servers = vec![("database-1".to_owned(), one), ("database-2".to_owned(), two)];
    let mut cluster = Cluster { site, servers };
    let creator = site.client("gate-1", "read-write").await.unwrap();
    creator.batch_execute("CREATE TABLE kept (number bigint PRIMARY KEY)").await.unwrap();
    creator.close().await;
    let mut kept = Vec::new();
    let mut table = String::new();
    for (round, fault) in FAULTS.into_iter().enumerate() {
        let (primary, replica) = site.settled();
        let epoch = site.group().epoch;
        let writer = Writer::start(site, round as i64 * 1_000_000 + 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let struck = cluster.machine(&primary);
        cluster.strike(fault, &primary, &replica).await;
        if fault == Fault::ManagerKilled {
            cluster.again(&primary);
        }
        if fault != Fault::ReplicaKilled {
            until("another takes over", || site.group().epoch > epoch && site.group().is_open());
        }
        cluster.mend(fault, &primary, &replica, &struck).await;
        let begun = Instant::now();
        let (now, _) = site.settled();
        let settled = begun.elapsed();
        let told = writer.stop();
        table += &format!(
            "{fault:?}: outage {:.2} s, {} acknowledged, {} errors, {primary} -> {now}, both there again after {:.1} s\n",
            told.outage.as_secs_f32(),
            told.acknowledged.len(),
            told.errors,
            settled.as_secs_f32()
        );
        kept.extend(told.acknowledged);
        let reader = site.client("gate-1", "read-write").await.unwrap();
        let lost =
            "SELECT count(*) FROM unnest($1::bigint[]) AS told WHERE told NOT IN (SELECT number FROM kept)";
        let lost: i64 = reader.query_one(lost, &[&kept]).await.unwrap().get(0);
        reader.close().await;
        println!("{table}");
        assert_eq!(lost, 0, "{fault:?}: acknowledged and lost");
    }
    drop(cluster);
    // Leaked above, for the writers' sake.
    site.remove();
}

impl Site {
    /// A change of the record by the operator.
    pub(crate) async fn change(&self, command: &Command) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let record = self.control.read(database::group::KEY, Duration::MAX).await.unwrap().unwrap();
            let group: database::group::Group = serde_json::from_value(record.value).unwrap();
            let next = serde_json::to_value(group.apply(command).unwrap()).unwrap();
            let proposed = self.control.propose(database::group::KEY, record.version, next, Duration::MAX);
            if proposed.await.is_ok() {
                return;
            }
            assert!(Instant::now() < deadline, "the record changes too fast");
        }
    }
}

#[tokio::test]
async fn manager_and_guard_become_a_new_binary_and_postgres_does_not_notice() {
    let site: &'static Site = Box::leak(Box::new(Site::new("upgrade", 121, "")));
    let [one, two, _gate] = start_all(site);
    let creator = site.client("gate-1", "read-write").await.unwrap();
    creator.batch_execute("CREATE TABLE kept (number bigint PRIMARY KEY)").await.unwrap();
    creator.close().await;
    let (primary, _) = site.settled();
    let epoch = site.group().epoch;
    let writer = Writer::start(site, 1);
    for (server, manager) in [("database-1", &one), ("database-2", &two)] {
        let (guard, postmaster) = (site.guard(server), site.postmaster(server));
        let begun = Instant::now();
        signal(manager.process.id(), Signal::USR2);
        until("the guard is the new program", || {
            std::fs::read_to_string(format!("/proc/{guard}/cmdline")).unwrap().contains("guard\0again")
        });
        println!("{server}: manager and guard are new after {:?}", begun.elapsed());
        assert_eq!((site.guard(server), site.postmaster(server)), (guard, postmaster));
    }
    // Longer than a lease: it is renewed by the new ones.
    tokio::time::sleep(STOPPED).await;
    assert_eq!(site.settled().0, primary);
    assert_eq!(site.group().epoch, epoch);
    let told = writer.stop();
    println!("{} acknowledged, {} errors, outage {:?}", told.acknowledged.len(), told.errors, told.outage);
    assert_eq!(told.errors, 0);
    // The new guard still ends it, and the new manager notices.
    kill(site.guard(&primary));
    until("the other one takes over", || site.group().holder != primary);
    site.settled();
    drop((one, two));
    site.remove();
}
