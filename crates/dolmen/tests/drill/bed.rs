//! One cluster under writers, and each line of the drill played on it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{Cut, Late, Machines, Part, SmallDisk, Writers, ask, signal, until};

use super::mix;
use super::scenario::{Expect, Line, Step, What, Who};
use super::table::{Row, Table};

/// The read-write address of every gate, and the name of the database and its owner where the site file gives none.
const GATE: u16 = 6432;
const OWNER: &str = "app";

const POSTGRES: u16 = 5432;

/// How long the site may take to be whole again after a line.
const WHOLE: Duration = Duration::from_secs(120);

/// A small disk's room for more: enough for what a server that was away has to get.
const ROOM: u64 = 512 << 20;

/// How often the site is asked whether it is whole. Asking costs it work.
const LOOK: Duration = Duration::from_millis(150);

/// Its backend never looks for a signal while it is at it.
const BUSY: &str = "DO $$ BEGIN LOOP INSERT INTO busy VALUES (1); COMMIT; END LOOP; END $$";

/// Four files of PostgreSQL's log, and no more in the table afterwards than before.
const BULK: &str = "DO $$ BEGIN FOR i IN 1..10 LOOP INSERT INTO busy SELECT generate_series(1, 100000); COMMIT; \
    TRUNCATE busy; COMMIT; END LOOP; END $$";

/// How long everything is left alone before the first step of a line.
const CALM: Duration = Duration::from_millis(700);

pub struct Bed {
    /// Taken away before the folder that it lies on.
    disk: Option<SmallDisk>,
    machines: Machines,
    writers: Writers,
    /// Which database server each machine has.
    servers: BTreeMap<String, String>,
    table: Table,
    clients: Vec<Child>,
    slack: f32,
    checked: Instant,
    /// What was not as it must be. The lines after it are played as well, so that one run shows all.
    wrong: Vec<String>,
}

/// What clients of machines that were not struck saw of a line.
struct Seen {
    outage: Duration,
    acknowledged: usize,
    /// While nothing could be.
    meanwhile: usize,
    errors: Vec<String>,
}

/// Who is what when a line begins.
#[derive(Clone, Debug)]
struct Cast {
    primary: String,
    replica: String,
    other: String,
    leader: String,
}

impl Cast {
    fn is(&self, who: Who) -> &str {
        match who {
            Who::Primary => &self.primary,
            Who::Replica => &self.replica,
            Who::Other => &self.other,
            Who::Leader => &self.leader,
        }
    }
}

impl Bed {
    /// `slack`: how many times as long as a line's bound everything may take to come back.
    pub fn up(dolmen: &str, block: u8, text: &str, slack: f32) -> Self {
        let machines = Machines::up(dolmen, block, text);
        let status = machines.site.status();
        let servers = on_machines(&status, "database").collect();
        let hosts: Vec<String> = machines.names().iter().map(|name| machines.address(name)).collect();
        let writers = Writers::begin(&hosts, GATE, OWNER, &machines.secret("app-password"));
        let bed = Self {
            disk: None,
            machines,
            writers,
            servers,
            table: Table::default(),
            clients: Vec::new(),
            slack,
            checked: Instant::now(),
            wrong: Vec::new(),
        };
        bed.until_whole();
        bed
    }

    /// All of them, or those that are named.
    pub fn play(&mut self, lines: &[Line], names: Option<&str>) {
        for line in lines.iter().filter(|line| names.is_none_or(|names| line.is_named(names))) {
            self.one(line);
        }
    }

    fn one(&mut self, line: &Line) {
        let cast = self.cast();
        let calm = Instant::now();
        std::thread::sleep(CALM);
        let struck = Instant::now();
        eprintln!("--- {} {}: {cast:?}", line.fault, line.what);
        let mut last_step = struck;
        for step in line.steps {
            last_step = Instant::now();
            self.step(*step, &cast);
        }
        let mended = Instant::now();
        // What the site says of itself may be from before the last step.
        self.until_written();
        self.until_whole();
        let rejoin = mended.elapsed();
        self.end_clients();
        let now = self.cast();
        let seen = self.measure(line, &cast, [calm, struck, last_step, Instant::now()]);
        let lost = self.lost(self.checked);
        self.checked = calm;
        self.table.add(Row {
            fault: line.fault,
            what: line.what,
            outage: seen.outage,
            from: cast.primary.clone(),
            to: now.primary.clone(),
            acknowledged: seen.acknowledged,
            errors: seen.errors.len(),
            rejoin,
            lost: lost.len(),
        });
        println!("{}", self.table.last());
        self.judge(line, &seen, cast.primary == now.primary);
        if !lost.is_empty() {
            self.is_wrong(line, format!("acknowledged and lost: {:?}", &lost[..lost.len().min(20)]));
        }
        for violation in self.writers.ledger.take_violations() {
            self.is_wrong(line, violation);
        }
    }

    /// `times`: the line began, the first step, the last step, whole again.
    fn measure(&self, line: &Line, cast: &Cast, times: [Instant; 4]) -> Seen {
        let [calm, struck, last_step, until] = times;
        let names = self.machines.names();
        let hit: Vec<&str> =
            line.steps.iter().flat_map(|step| step.strikes()).map(|who| cast.is(who)).collect();
        let well: Vec<usize> = (0..names.len()).filter(|at| !hit.contains(&names[*at].as_str())).collect();
        let ledger = &self.writers.ledger;
        let (from, halt) = match line.expect {
            Expect::Halts { by, .. } => (last_step, struck + Duration::from_secs_f32(by)..last_step),
            _ => (calm, last_step..last_step),
        };
        let outage = well.iter().map(|writer| ledger.outage(*writer, from, until).0).max();
        let told = ledger.since(calm);
        let mut errors = ledger.errors_since(calm);
        errors.retain(|(_, client, _)| well.contains(client));
        Seen {
            outage: outage.unwrap_or_default(),
            acknowledged: told.len(),
            meanwhile: told.iter().filter(|one| halt.contains(&one.at)).count(),
            errors: errors.into_iter().map(|(.., error)| error).collect(),
        }
    }

    fn judge(&mut self, line: &Line, seen: &Seen, same_primary: bool) {
        let limit = match line.expect {
            Expect::Moves(limit) | Expect::Stays(limit) | Expect::Goes(limit) => limit,
            Expect::Halts { back, .. } => back,
        };
        match line.expect {
            Expect::Moves(_) if same_primary => self.is_wrong(line, "nobody took over".into()),
            Expect::Stays(_) if !same_primary => self.is_wrong(line, "the primary was not kept".into()),
            _ => {}
        }
        if seen.meanwhile > 0 {
            self.is_wrong(line, format!("{} writes were acknowledged meanwhile", seen.meanwhile));
        }
        if seen.outage.as_secs_f32() > limit * self.slack {
            let (outage, errors) = (seen.outage, &seen.errors);
            self.is_wrong(line, format!("no write for {outage:?}, more than {limit} s; errors: {errors:?}"));
        }
    }

    fn is_wrong(&mut self, line: &Line, text: String) {
        let text = format!("{} {}: {text}", line.fault, line.what);
        eprintln!("WRONG: {text}");
        self.wrong.push(text);
    }

    fn step(&mut self, step: Step, cast: &Cast) {
        let name = |who| cast.is(who);
        match step {
            Step::Kill(who, What::Machine) => self.machines.kill(name(who)),
            Step::Stop(who, What::Machine) => self.machines.freeze(name(who)),
            Step::Kill(who, what) => self.hit(name(who), what, rustix::process::Signal::KILL),
            Step::Stop(who, what) => self.hit(name(who), what, rustix::process::Signal::STOP),
            Step::Continue(who) => self.machines.thaw(name(who)),
            Step::Start(who) => self.machines.start(name(who)),
            Step::CutOff(who) => self.machines.network.cut_off(name(who)),
            Step::Cut(one, two) => {
                let (one, two) = (name(one), name(two));
                self.machines.network.cut([Cut::all(one, two), Cut::all(two, one)]);
            }
            Step::Mute(who) => self.one_way(name(who), Cut::all),
            Step::Deafen(who) => self.one_way(name(who), |one, other| Cut::all(other, one)),
            Step::CutPort(who, port) => {
                let one = name(who);
                let others = self.machines.network.others(one);
                let both = others.iter().flat_map(|other| [Cut::all(one, other), Cut::all(other, one)]);
                let cuts: Vec<Cut> = both.map(|cut| Cut { port: Some(port), ..cut }).collect();
                self.machines.network.cut(cuts);
            }
            Step::CutReplication(who) => {
                let to = name(who);
                let cut = |other: String| Cut {
                    port: Some(POSTGRES),
                    account: Some("dolmen-db"),
                    ..Cut::all(&other, to)
                };
                let others = self.machines.network.others(to);
                self.machines.network.cut(others.into_iter().map(cut));
            }
            Step::Lose(percent) => self.machines.network.lose(percent),
            Step::Heal => {
                assert!(self.machines.network.met() > 0, "nothing was ever sent into the cut");
                self.machines.network.heal();
            }
            Step::Delay(by, jitter) => {
                let ms = |number: u32| Duration::from_millis(number.into());
                self.machines.network.delay(Late { by: ms(by), jitter: ms(jitter) });
            }
            Step::SmallDisk(who, what) => {
                let server = self.server(name(who), what);
                let folder = self.machines.folder(name(who), &server);
                self.disk = Some(SmallDisk::below(&folder, ROOM));
            }
            Step::LargeDisk => self.disk.take().expect("a small disk").away(),
            Step::Fill => self.disk.as_ref().expect("a small disk").fill(),
            Step::MakeRoom => self.disk.as_ref().expect("a small disk").make_room(),
            Step::Switchover => self.switch_over(&["switchover"]),
            Step::SwitchoverTo(who) => self.switch_over(&["switchover", &self.servers[name(who)]]),
            Step::SwitchoverBegun => {
                let mut command = self.machines.site.command(&["switchover"]);
                command.stdout(Stdio::null()).stderr(Stdio::null());
                self.clients.push(command.spawn().unwrap());
            }
            Step::BusyBackend => self.client(&cast.other, BUSY),
            Step::Bulk => self.client(&cast.other, BULK),
            Step::Burn(threads, seconds) => burn(threads, Duration::from_secs_f32(seconds)),
            Step::PromoteByHand(who) => self.promote_by_hand(name(who)),
            Step::Upgrade(who) => self.hit(name(who), What::Manager, rustix::process::Signal::USR2),
            Step::Hold(seconds) => std::thread::sleep(Duration::from_secs_f32(seconds)),
            Step::UntilWritten => self.until_written(),
            Step::UntilWhole => self.until_whole(),
            Step::Mix(turns) => mix::play(&mut self.machines, turns),
        }
    }

    fn hit(&self, machine: &str, what: What, to_send: rustix::process::Signal) {
        let parts: &[Part] = match what {
            What::Machine => return,
            What::Agent => &[Part::Agent],
            What::Control => &[Part::Control],
            What::Gate => &[Part::Gate],
            What::Manager => &[Part::Manager],
            What::Guard => &[Part::Guard],
            What::ManagerAndGuard => &[Part::Manager, Part::Guard],
            What::Postgres => &[Part::Postmaster, Part::Backend],
            What::Postmaster => &[Part::Postmaster],
            What::Backend => {
                // The youngest process of postgres serves a client: all others are there from its beginning.
                let all = self.machines.processes(machine);
                let youngest = all.into_iter().rfind(|(_, part)| *part == Part::Backend);
                return signal(youngest.expect("a backend").0, to_send);
            }
        };
        assert!(self.machines.signal(machine, parts, to_send) > 0, "{machine} runs no {what:?}");
    }

    fn one_way(&mut self, one: &str, cut: impl Fn(&str, &str) -> Cut) {
        let others = self.machines.network.others(one);
        self.machines.network.cut(others.iter().map(|other| cut(one, other)));
    }

    /// The server of a machine that has this part.
    fn server(&self, machine: &str, what: What) -> String {
        let role = if what == What::Control { "control" } else { "database" };
        let status = self.machines.site.status();
        let server = on_machines(&status, role).find(|(on, _)| on == machine);
        server.expect("the machine has such a server").1
    }

    fn switch_over(&self, words: &[&str]) {
        let ran = self.machines.run(words);
        assert_eq!(ran.code, 0, "{ran:?}");
        eprintln!("{}", ran.out);
    }

    fn until_written(&self) {
        let since = Instant::now();
        until("a write that is acknowledged", WHOLE, || {
            self.writers.ledger.since(since).iter().any(|one| one.sent > since).then_some(())
        });
    }

    fn client(&mut self, at: &str, does: &str) {
        let table = "CREATE TABLE IF NOT EXISTS busy (n int)";
        let mut command = Command::new("psql");
        command.args(["-XAtq", "-c", table, "-c", does]).args([
            "-U",
            OWNER,
            "-d",
            OWNER,
            "-p",
            &GATE.to_string(),
        ]);
        command.args(["-h", &self.machines.address(at)]);
        command.env("PGPASSWORD", self.machines.secret("app-password"));
        self.clients.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    fn end_clients(&mut self) {
        for mut client in self.clients.drain(..) {
            until("the end of a client", WHOLE, || client.try_wait().unwrap());
        }
    }

    fn promote_by_hand(&self, machine: &str) {
        let data = self.machines.folder(machine, &self.servers[machine]).join("data");
        let file = std::fs::File::create(data.join("promote")).unwrap();
        std::os::unix::fs::fchown(&file, Some(owner(&data)), None).unwrap();
        let postmaster =
            self.machines.processes(machine).into_iter().find(|(_, part)| *part == Part::Postmaster);
        signal(postmaster.unwrap().0, rustix::process::Signal::USR1);
    }

    /// Everybody healthy, every replica streams and has every commit.
    fn until_whole(&self) {
        let mut last = Value::Null;
        let whole = || {
            let status = self.machines.site.status();
            let whole = is_whole(&status, self.servers.len());
            std::thread::sleep(if whole { Duration::ZERO } else { LOOK });
            last = status;
            whole.then_some(())
        };
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until("a whole site", WHOLE, whole)));
        assert!(result.is_ok(), "not whole: {last:#}");
    }

    fn cast(&self) -> Cast {
        let status = self.machines.site.status();
        let server = status["database"]["primary"].as_str().unwrap_or_default();
        let with_data = |machine: &&String| self.servers.contains_key(*machine);
        let primary = self.servers.iter().find(|(_, name)| *name == server).expect("a primary").0.clone();
        let names = self.machines.names();
        let replica =
            names.iter().filter(with_data).find(|name| **name != primary).expect("a replica").clone();
        let other =
            names.iter().rfind(|name| **name != primary && **name != replica).expect("a third").clone();
        let leader = status["control"]["leader"].as_str().unwrap_or_default();
        let leader = on_machines(&status, "control").find(|(_, name)| name == leader).expect("a leader").0;
        Cast { primary, replica, other, leader }
    }

    /// What was acknowledged since then and is not there.
    fn lost(&self, since: Instant) -> Vec<String> {
        let mut lost = Vec::new();
        let told = self.writers.ledger.since(since);
        for writer in 0..self.machines.names().len() {
            let mut ids: Vec<i64> =
                told.iter().filter(|one| one.writer == writer).map(|one| one.id).collect();
            ids.sort_unstable();
            let (Some(first), Some(last)) = (ids.first(), ids.last()) else { continue };
            let query =
                format!("SELECT id FROM kept WHERE writer = {writer} AND id BETWEEN {first} AND {last}");
            // A primary may be lost a moment after the site was whole, on a machine with much to do.
            let text = until("an answer of the database", WHOLE, || {
                let ran = self.machines.run(&["psql", "--", "-XAtqc", &query]);
                (ran.code == 0).then_some(ran.out)
            });
            let there: std::collections::BTreeSet<i64> =
                text.lines().filter_map(|id| id.parse().ok()).collect();
            lost.extend(ids.iter().filter(|id| !there.contains(id)).map(|id| format!("{writer}/{id}")));
        }
        lost
    }

    /// Everything once more, and on every server; then the table.
    pub fn end(mut self) {
        let began = self.table.began();
        self.writers.end();
        let lost = self.lost(began);
        let count = "SELECT concat(count(*), ' ', sum(hashtext(concat(writer, '/', id)))) FROM kept";
        let password = self.machines.secret("app-password");
        let of = |machine: &String| {
            ask(&self.machines.address(machine), POSTGRES, OWNER, &password, count).unwrap()
        };
        // Replicas show the last commits a moment later.
        until("the same on all servers", Duration::from_secs(20), || {
            let all: BTreeSet<Vec<String>> = self.servers.keys().map(of).collect();
            (all.len() == 1).then_some(())
        });
        let (told, reads) = (self.writers.ledger.since(began).len(), self.writers.ledger.reads());
        println!("{}\n{told} writes acknowledged, {} lost, {reads} reads checked", self.table, lost.len());
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
    }
}

/// A run that breaks off shows what it saw until then.
impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}\n{}", self.table, self.wrong.join("\n"));
        }
    }
}

fn owner(path: &std::path::Path) -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path).unwrap())
}

/// The machine and the name of each server of a role.
fn on_machines<'a>(status: &'a Value, role: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
    let servers = status["servers"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    servers
        .filter(move |server| server["role"] == role)
        .map(move |server| (text(&server["machine"]), text(&server["name"])))
}

fn is_whole(status: &Value, servers: usize) -> bool {
    let none = Vec::new();
    let replicas = status["database"]["replicas"].as_array().unwrap_or(&none);
    let good = |replica: &&Value| replica["state"] == "streaming" && replica["synchronous"] == true;
    let agreed = status["database"]["agreed"]["synchronous"].as_array().unwrap_or(&none);
    let at_rest = replicas.iter().filter(good).count() == servers - 1 && agreed.len() == servers - 1;
    status["healthy"] == true && at_rest && status["control"]["leader"].is_string()
}

/// Uses as many processors as there are threads.
fn burn(threads: usize, time: Duration) {
    let until = Instant::now() + time;
    let spin = move || {
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    };
    let all: Vec<_> = (0..threads).map(|_| std::thread::spawn(spin)).collect();
    all.into_iter().for_each(|thread| thread.join().unwrap());
}
