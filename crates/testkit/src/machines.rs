//! The machines of a site on one computer, each a control group with its agent and all that this started: to be
//! killed and frozen as a whole or in parts, cut from each other, and started again.
//!
//! No `dolmen up` runs: the test does what systemd does on real machines, so that a machine stays dead for as long as it should.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::network::{Network, leave_for_a_network_of_its_own};
use crate::{Ran, Site, until};

/// How long a whole site may take to be healthy.
const HEALTHY: Duration = Duration::from_secs(60);

/// What a process of a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Agent,
    Control,
    Gate,
    /// The manager of a database server.
    Manager,
    Guard,
    Postmaster,
    /// Any other process of postgres.
    Backend,
    Other,
}

#[derive(Debug)]
struct Machine {
    group: PathBuf,
    agent: Option<Child>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Machines {
    pub site: Site,
    pub network: Network,
    state: PathBuf,
    machines: BTreeMap<String, Machine>,
}

impl Machines {
    /// Whether this process may make them; a test that runs as root must not be left out.
    pub fn possible() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            eprintln!("left out: namespaces and control groups need root");
        }
        root
    }

    /// A site of machines that are all healthy, in a network of its own.
    pub fn up(dolmen: &str, block: u8, text: &str) -> Self {
        leave_for_a_network_of_its_own();
        let site = Site::new(dolmen, block, text);
        // Makes the state; every agent after that is ours.
        site.up();
        let state = site.state();
        let addresses = addresses(&site);
        site.run(&["stop"]).fine();
        let root = hierarchy();
        let groups: Vec<(String, String, String)> = addresses
            .into_iter()
            .map(|(name, address)| {
                let group = format!("dolmen-{}-{name}", std::process::id());
                (name, address, group)
            })
            .collect();
        let machine = |(name, _, group): &(String, String, String)| {
            let group = root.join(group);
            std::fs::create_dir(&group).expect("root may make control groups");
            (name.clone(), Machine { group, agent: None })
        };
        let machines = groups.iter().map(machine).collect();
        let mut all = Self { site, network: Network::new(&root, &groups), state, machines };
        for name in all.names() {
            all.start(&name);
        }
        until("a healthy site", HEALTHY, || all.is_healthy().then_some(()));
        all
    }

    pub fn names(&self) -> Vec<String> {
        self.machines.keys().cloned().collect()
    }

    pub fn is_healthy(&self) -> bool {
        self.site.run(&["status"]).code == 0
    }

    /// Starts the agent of a machine, or its successor.
    pub fn start(&mut self, name: &str) {
        let dolmen = self.site.program().to_owned();
        let mut options = File::options();
        options.append(true).create(true).mode(0o600);
        let log = options.open(self.site.folder.join(format!("agent-{name}.log"))).expect("a log file");
        let machine = self.machines.get_mut(name).expect("a machine of the site");
        if let Some(mut old) = machine.agent.take() {
            old.wait().expect("the old agent has ended");
        }
        // In its group before it opens its first socket.
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&machine.group);
        command.arg(dolmen).args(["agent", name, "--state"]).arg(&self.state);
        command.stdout(log.try_clone().expect("a log file")).stderr(log);
        machine.agent = Some(command.spawn().expect("sh can be run"));
    }

    /// Ends everything of a machine at one moment, as a loss of power would.
    pub fn kill(&self, name: &str) {
        let group = &self.machines[name].group;
        write(&group.join("cgroup.kill"), "1");
        until("the end of a machine's processes", Duration::from_secs(10), || {
            self.processes(name).is_empty().then_some(())
        });
    }

    /// Stops everything of a machine. What is started meanwhile is stopped too.
    pub fn freeze(&self, name: &str) {
        let mut before = Vec::new();
        loop {
            let now: Vec<u32> = self.processes(name).into_iter().map(|(pid, _)| pid).collect();
            now.iter().for_each(|pid| signal(*pid, Signal::STOP));
            if now == before {
                return;
            }
            before = now;
        }
    }

    pub fn thaw(&self, name: &str) {
        for (pid, _) in self.processes(name) {
            signal(pid, Signal::CONT);
        }
    }

    /// Sends a signal to every process of these parts, the manager first, so that it cannot see the others go.
    pub fn signal(&self, name: &str, parts: &[Part], to_send: Signal) -> usize {
        let mut chosen = self.processes(name);
        chosen.retain(|(_, part)| parts.contains(part));
        chosen.sort_by_key(|(_, part)| *part);
        for (pid, _) in &chosen {
            signal(*pid, to_send);
        }
        chosen.len()
    }

    /// Everything that a machine runs.
    pub fn processes(&self, name: &str) -> Vec<(u32, Part)> {
        let group = &self.machines[name].group;
        let list = std::fs::read_to_string(group.join("cgroup.procs")).expect("the group is there");
        let mut pids: Vec<u32> = list.lines().filter_map(|line| line.parse().ok()).collect();
        pids.sort_unstable();
        pids.into_iter().filter_map(|pid| Some((pid, part(pid)?))).collect()
    }

    /// The folder of one of its servers.
    pub fn folder(&self, machine: &str, server: &str) -> PathBuf {
        self.state.join("machines").join(machine).join("servers").join(server)
    }

    pub fn secret(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.state.join("secrets.json")).expect("the site's secrets");
        let secrets: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        secrets[name].as_str().expect("the secret").to_owned()
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.site.run(arguments)
    }

    pub fn address(&self, name: &str) -> String {
        let number = self.names().iter().position(|other| other == name).expect("a machine") + 1;
        self.site.address(number as u8, 0).ip().to_string()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.site.logs());
        }
        self.network.heal();
        for (name, machine) in &mut self.machines {
            write(&machine.group.join("cgroup.kill"), "1");
            if let Some(agent) = &mut machine.agent {
                let _ended = agent.wait();
            }
            // The kernel lets go of a group a moment after its last process.
            let gone = (0..500).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                std::fs::remove_dir(&machine.group).is_ok()
            });
            if !gone {
                eprintln!("the control group of {name} cannot be removed");
            }
        }
    }
}

/// The one hierarchy of control groups, version 2.
fn hierarchy() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("there is a /proc");
    let found = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2" && path.starts_with("/sys/fs/cgroup")).then(|| PathBuf::from(path))
    });
    found.expect("control groups, version 2, below /sys/fs/cgroup")
}

fn addresses(site: &Site) -> Vec<(String, String)> {
    let status = site.status();
    let machines = status["machines"].as_array().expect("there are machines");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    machines.iter().map(|machine| (text(&machine["name"]), text(&machine["address"]))).collect()
}

#[allow(clippy::disallowed_methods, reason = "a switch of the kernel, not a file")]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// It may have ended meanwhile.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _gone = kill_process(pid, signal);
    }
}

/// None: it has ended, and only waits to be collected.
fn part(pid: u32) -> Option<Part> {
    let folder = Path::new("/proc").join(pid.to_string());
    let command = std::fs::read(folder.join("cmdline")).ok().filter(|command| !command.is_empty())?;
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let mut words = command.split_whitespace();
    let (program, verb, server) = (words.next()?, words.next().unwrap_or_default(), words.next());
    let server = server.unwrap_or_default();
    Some(match verb {
        _ if program == "postgres:" => Part::Backend,
        "-D" if program.ends_with("/postgres") => Part::Postmaster,
        "agent" => Part::Agent,
        "guard" => Part::Guard,
        "server" if server.starts_with("control-") => Part::Control,
        "server" if server.starts_with("gate-") => Part::Gate,
        "server" if server.starts_with("database-") => Part::Manager,
        _ => Part::Other,
    })
}
