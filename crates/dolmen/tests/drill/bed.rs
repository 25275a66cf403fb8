//! One cluster under writers, and each line of the drill played on it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{Cut, Machines, Part, Writers, ask, signal, until};

use super::scenario::{Expect, Line, Step, What, Who};
use super::table::{Row, Table};

/// The read-write address of every gate, and the name of the database and its owner where the site file gives none.
const GATE: u16 = 6432;
const OWNER: &str = "app";

const POSTGRES: u16 = 5432;

/// How long the site may take to be whole again after a line.
const WHOLE: Duration = Duration::from_secs(120);

/// A line's bounds are for a machine of its own; the one that runs the tests has other work, so that the time in which
/// everything must come back is this many times as long. What must never happen is judged as strictly.
const SLACK: f32 = 4.0;

/// How long everything is left alone before the first step of a line.
const CALM: Duration = Duration::from_millis(700);

pub struct Bed {
    machines: Machines,
    writers: Writers,
    /// Which database server each machine has.
    servers: BTreeMap<String, String>,
    table: Table,
    clients: Vec<Child>,
    checked: Instant,
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
    pub fn up(dolmen: &str, block: u8, text: &str) -> Self {
        let machines = Machines::up(dolmen, block, text);
        let status = machines.site.status();
        let servers = on_machines(&status, "database").collect();
        let hosts: Vec<String> = machines.names().iter().map(|name| machines.address(name)).collect();
        let writers = Writers::begin(&hosts, GATE, OWNER, &machines.secret("app-password"));
        let bed = Self {
            machines,
            writers,
            servers,
            table: Table::default(),
            clients: Vec::new(),
            checked: Instant::now(),
        };
        bed.until_whole();
        bed
    }

    pub fn play(&mut self, lines: &[Line]) {
        for line in lines {
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
        self.until_whole();
        let rejoin = mended.elapsed();
        self.end_clients();
        let now = self.cast();
        let until = Instant::now();
        let row = self.judge(line, &cast, &now, [calm, struck, last_step, until]);
        let lost = self.lost(self.checked);
        self.checked = calm;
        self.table.add(Row { rejoin, lost: lost.len(), ..row });
        println!("{}", self.table.last());
        assert!(lost.is_empty(), "{}: acknowledged and lost: {:?}", line.what, &lost[..lost.len().min(20)]);
        let violations = self.writers.ledger.violations();
        assert!(violations.is_empty(), "{}: {violations:?}", line.what);
    }

    /// `times`: the line began, the first step, the last step, whole again.
    fn judge(&self, line: &Line, cast: &Cast, now: &Cast, times: [Instant; 4]) -> Row {
        let [calm, struck, last_step, until] = times;
        let names = self.machines.names();
        let hit: Vec<&str> =
            line.steps.iter().filter_map(|step| step.strikes()).map(|who| cast.is(who)).collect();
        let well: Vec<usize> = (0..names.len()).filter(|at| !hit.contains(&names[*at].as_str())).collect();
        let ledger = &self.writers.ledger;
        let outage = |from| well.iter().map(|writer| ledger.outage(*writer, from, until).0).max();
        let outage_all = outage(calm).unwrap_or_default();
        let (limit, measured) = match line.expect {
            Expect::Moves(limit) | Expect::Stays(limit) | Expect::Goes(limit) => (limit, outage_all),
            Expect::Halts { back, .. } => (back, outage(last_step).unwrap_or_default()),
        };
        let told = ledger.since(calm);
        let errors = ledger.errors_since(calm);
        let at_well = errors.iter().filter(|(_, client, _)| well.contains(client)).count();
        match line.expect {
            Expect::Moves(_) => assert_ne!(cast.primary, now.primary, "{}: nobody took over", line.what),
            Expect::Stays(_) => assert_eq!(cast.primary, now.primary, "{}: it was not kept", line.what),
            Expect::Goes(_) => {}
            Expect::Halts { by, .. } => {
                let from = struck + Duration::from_secs_f32(by);
                let wrong: Vec<_> = told.iter().filter(|one| one.at > from && one.at < last_step).collect();
                assert!(wrong.is_empty(), "{}: acknowledged meanwhile: {wrong:?}", line.what);
            }
        }
        assert!(
            measured.as_secs_f32() <= limit * SLACK,
            "{}: no write for {measured:?}, more than {limit} s; errors: {errors:?}",
            line.what
        );
        Row {
            fault: line.fault,
            what: line.what,
            outage: measured,
            from: cast.primary.clone(),
            to: now.primary.clone(),
            acknowledged: told.len(),
            errors: at_well,
            rejoin: Duration::ZERO,
            lost: 0,
        }
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
            Step::CutOneWay(from, to) => self.machines.network.cut([Cut::all(name(from), name(to))]),
            Step::CutPort(who, port) => {
                let one = name(who);
                let others = self.machines.network.others(one);
                let both = others.iter().flat_map(|other| [Cut::all(one, other), Cut::all(other, one)]);
                let cuts: Vec<Cut> = both.map(|cut| Cut { port: Some(port), ..cut }).collect();
                self.machines.network.cut(cuts);
            }
            Step::Lose(percent) => self.machines.network.lose(percent),
            Step::Heal => {
                let dropped = self.machines.network.dropped();
                assert!(dropped > 0, "nothing was ever sent into the cut");
                self.machines.network.heal();
            }
            Step::Switchover => {
                let ran = self.machines.run(&["switchover"]);
                assert_eq!(ran.code, 0, "{ran:?}");
                eprintln!("{}", ran.out);
            }
            Step::SwitchoverBegun => {
                let mut command = self.machines.site.command(&["switchover"]);
                command.stdout(Stdio::null()).stderr(Stdio::null());
                self.clients.push(command.spawn().unwrap());
            }
            Step::BusyBackend => self.busy(&cast.other),
            Step::PromoteByHand(who) => self.promote_by_hand(name(who)),
            Step::Upgrade(who) => self.hit(name(who), What::Manager, rustix::process::Signal::USR2),
            Step::Hold(seconds) => std::thread::sleep(Duration::from_secs_f32(seconds)),
            Step::UntilWritten => self.until_written(),
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
        };
        assert!(self.machines.signal(machine, parts, to_send) > 0, "{machine} runs no {what:?}");
    }

    fn until_written(&self) {
        let since = Instant::now();
        until("a write that is acknowledged", WHOLE, || {
            self.writers.ledger.since(since).iter().any(|one| one.sent > since).then_some(())
        });
    }

    /// Its backend never looks for a signal while it is at it.
    fn busy(&mut self, at: &str) {
        let text = "CREATE TABLE IF NOT EXISTS busy (n int)";
        let loops = "DO $$ BEGIN LOOP INSERT INTO busy VALUES (1); COMMIT; END LOOP; END $$";
        let mut command = Command::new("psql");
        command.args(["-XAtq", "-c", text, "-c", loops]).args([
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
            let text = self.machines.run(&["psql", "--", "-XAtqc", &query]).fine().out;
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
