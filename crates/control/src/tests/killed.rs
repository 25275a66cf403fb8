//! The leader killed again and again, as a process, under clients that check every acknowledged change.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use link::api::{Answer, Ask, call};
use link::control::wire::{ControlAnswer, ControlAsk};
use link::control::{ABSENT, Control, ControlError};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::stage::{DEADLINE, Stage};

const BLOCK: u8 = 148;
const MACHINES: usize = 3;

/// Enough for a test run; `DOLMEN_KILLS=50` is the drill.
const KILLS: u64 = 5;

const CHILD: &str = "DOLMEN_TEST_CONTROL";

/// Not a test: the control server of the tests below, in a process of its own that ends with its parent.
#[tokio::test]
async fn server_process() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let [block, machines, number, folder] = what.splitn(4, ' ').collect::<Vec<_>>()[..] else {
        panic!("{what}")
    };
    let stage = Stage::again(block.parse().unwrap(), machines.parse().unwrap(), Path::new(folder));
    let mut running = stage.start(number.parse().unwrap()).await;
    // A thread, since the runtime would wait for a blocking task.
    let (sender, gone) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || sender.send(std::io::copy(&mut std::io::stdin(), &mut std::io::sink())));
    tokio::select! {
        _ = gone => {}
        because = &mut running.keeping => println!("{because:?}"),
    }
}

pub fn spawn(stage: &Stage, number: usize) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tests::killed::server_process", "--nocapture"]);
    let machines = stage.plan.role(plan::Role::Control).count();
    command.env(CHILD, format!("{} {machines} {number} {}", stage.block, stage.folder.display()));
    let output = stage.folder.join(format!("control-{number}.out"));
    let output = std::fs::File::options().create(true).append(true).open(output).unwrap();
    command.stdin(Stdio::piped()).stdout(output).spawn().unwrap()
}

pub struct Children(pub Vec<Child>);

impl Children {
    pub fn kill(&mut self, index: usize) {
        self.0[index].kill().unwrap();
        self.0[index].wait().unwrap();
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        (0..self.0.len()).for_each(|index| self.kill(index));
    }
}

/// The number of the server that says that it leads.
pub async fn leader(stage: &Stage) -> usize {
    let end = Instant::now() + DEADLINE;
    loop {
        for number in 1..=MACHINES {
            let machine = stage.machine(number);
            let identity = stage.identity(&machine);
            let asked = async {
                let mut conversation =
                    call(&identity, &stage.plan.site, &machine, stage.address(number)).await.ok()?;
                conversation.ask(&Ask::Control(ControlAsk::Members)).await.ok()?;
                conversation.answer().await.ok()
            };
            let answer = timeout(Duration::from_secs(1), asked).await.ok().flatten();
            if let Some(Answer::Control(ControlAnswer::Members(report))) = answer
                && report.leads()
            {
                return number;
            }
        }
        assert!(Instant::now() < end, "there is no leader");
    }
}

/// Who made each version, and when the latest acknowledgement was.
#[derive(Default)]
struct Book {
    made: BTreeMap<u64, usize>,
    last: Option<Instant>,
    outage: Duration,
}

impl Book {
    /// Notes an acknowledged change: it must be newer than all that were acknowledged before it was proposed.
    fn note(&mut self, version: u64, by: usize, known_before: u64) {
        assert!(version > known_before, "version {version} came after {known_before} was acknowledged");
        assert_eq!(self.made.insert(version, by), None, "version {version} was acknowledged twice");
        let now = Instant::now();
        self.outage = self.outage.max(self.last.map_or(Duration::ZERO, |last| now - last));
        self.last = Some(now);
    }

    fn known(&self) -> u64 {
        self.made.keys().next_back().copied().unwrap_or_default()
    }
}

/// Adds one again and again, as one of several, through the control server of its own machine first.
async fn count(client: impl Control, me: usize, book: Arc<Mutex<Book>>) {
    let mut version = ABSENT;
    loop {
        let known = book.lock().unwrap().known();
        let value = json!({ "by": me, "version": version + 1 });
        match client.propose("count", version, value, Duration::from_secs(3)).await {
            Ok(made) => {
                assert_eq!(made, version + 1);
                book.lock().unwrap().note(made, me, known);
                version = made;
            }
            Err(ControlError::Changed(current)) => version = current.map_or(ABSENT, |record| record.version),
            Err(ControlError::Refused(because)) => panic!("{because}"),
            Err(ControlError::Unavailable(_) | ControlError::Unknown(_)) => {
                let known = book.lock().unwrap().known();
                if let Ok(record) = client.read("count", Duration::from_secs(3)).await {
                    version = record.map_or(ABSENT, |record| record.version);
                    assert!(version >= known, "a read gave {version} after {known} was acknowledged");
                }
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_or_made_twice_while_leaders_are_killed() {
    let kills = std::env::var("DOLMEN_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let stage = Stage::new(BLOCK, MACHINES);
    let mut children = Children((1..=MACHINES).map(|number| spawn(&stage, number)).collect());
    leader(&stage).await;
    let book = Arc::new(Mutex::new(Book::default()));
    let mut seen = stage.client(1).watch("count");
    let counters: Vec<_> = (1..=MACHINES)
        .map(|number| tokio::spawn(count(stage.client(number), number, Arc::clone(&book))))
        .collect();
    let mut outages = Vec::new();
    for _ in 0..kills {
        let number = leader(&stage).await;
        let before = {
            let mut book = book.lock().unwrap();
            book.outage = Duration::ZERO;
            book.known()
        };
        children.kill(number - 1);
        let end = Instant::now() + DEADLINE;
        while book.lock().unwrap().known() < before + 20 {
            assert!(Instant::now() < end, "no change is taken after the leader was killed");
            assert!(counters.iter().all(|counter| !counter.is_finished()), "a counter failed");
            sleep(Duration::from_millis(10)).await;
        }
        outages.push(book.lock().unwrap().outage.as_millis());
        children.0[number - 1] = spawn(&stage, number);
    }
    counters.iter().for_each(|counter| counter.abort());
    let known = book.lock().unwrap().known();
    let record = stage.client(2).read("count", DEADLINE).await.unwrap().unwrap();
    assert!(record.version >= known);
    assert_eq!(record.value["version"], record.version);
    seen.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.record.version >= known)).await.unwrap();
    outages.sort_unstable();
    println!("{kills} kills, {known} changes, outages in ms: {outages:?}");
}
