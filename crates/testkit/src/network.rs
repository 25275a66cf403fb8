//! Who hears whom among the machines of a site on one computer: each machine is a control group, whose
//! sockets nftables knows, whatever address they use. A cut is by both ends and lets neither FIN nor RST out, as a cable that was pulled.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Gives the calling thread, and all that it starts from here on, a network with nothing but a loopback
/// device, and mounts of its own. It needs root: a test that cannot have it fails.
#[allow(unsafe_code)]
pub fn leave_for_a_network_of_its_own() {
    // SAFETY: descriptors stay shared; only names of interfaces and mounts are new, which no other thread's
    // memory depends on.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }.expect("root may make namespaces");
    run(Command::new("mount").args(["--make-rprivate", "/"]));
    run(Command::new("ip").args(["link", "set", "lo", "up"]));
}

/// Runs a tool that must succeed.
#[track_caller]
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What is kept from getting from one machine to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub from: String,
    pub to: String,
    /// Of one service alone, both its questions and its answers.
    pub port: Option<u16>,
    /// Of a hundred packets.
    pub percent: u32,
}

impl Cut {
    pub fn all(from: &str, to: &str) -> Self {
        Self { from: from.into(), to: to.into(), port: None, percent: 100 }
    }
}

/// A machine as the rules know it.
#[derive(Debug)]
struct Node {
    name: String,
    address: String,
    /// Below /sys/fs/cgroup, as nft wants it.
    group: String,
    /// How deep that is in its hierarchy.
    level: usize,
}

#[derive(Debug)]
pub struct Network {
    nodes: Vec<Node>,
    cuts: Vec<Cut>,
}

impl Network {
    /// `groups`: name, address and control group of each machine, relative to the hierarchy at `root`.
    pub(crate) fn new(root: &Path, groups: &[(String, String, String)]) -> Self {
        let below = root.strip_prefix("/sys/fs/cgroup").expect("nft looks for groups there");
        let node = |(name, address, group): &(String, String, String)| Node {
            name: name.clone(),
            address: address.clone(),
            group: below.join(group).display().to_string(),
            level: group.split('/').count(),
        };
        let network = Self { nodes: groups.iter().map(node).collect(), cuts: Vec::new() };
        network.begin();
        network
    }

    /// Every packet is marked with the machine that sends it.
    fn begin(&self) {
        let mut script = String::from(
            "table inet machines {\n chain marks { type filter hook output priority 0; }\n chain cuts { type filter \
             hook input priority 0; }\n}\n",
        );
        for (index, node) in self.nodes.iter().enumerate() {
            let Node { group, level, .. } = node;
            let mark = index + 1;
            let _ = writeln!(
                script,
                "add rule inet machines marks socket cgroupv2 level {level} \"{group}\" meta mark set {mark}"
            );
        }
        nft(&script);
    }

    pub fn cut(&mut self, cuts: impl IntoIterator<Item = Cut>) {
        self.cuts.extend(cuts);
        self.apply();
    }

    /// This machine hears nobody and nobody hears it.
    pub fn cut_off(&mut self, machine: &str) {
        let others: Vec<String> = self.others(machine);
        self.cut(others.iter().flat_map(|other| [Cut::all(machine, other), Cut::all(other, machine)]));
    }

    pub fn others(&self, machine: &str) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).filter(|name| name != machine).collect()
    }

    /// So many packets of a hundred between any two.
    pub fn lose(&mut self, percent: u32) {
        let pairs: Vec<Cut> = self
            .nodes
            .iter()
            .flat_map(|from| self.nodes.iter().map(move |to| (from, to)))
            .filter(|(from, to)| from.name != to.name)
            .map(|(from, to)| Cut { percent, ..Cut::all(&from.name, &to.name) })
            .collect();
        self.cut(pairs);
    }

    pub fn heal(&mut self) {
        self.cuts.clear();
        self.apply();
    }

    /// How many packets were lost to the cuts that are in force.
    pub fn dropped(&self) -> u64 {
        let output = Command::new("nft").args(["list", "chain", "inet", "machines", "cuts"]).output();
        let output = output.expect("nft is installed");
        let text = String::from_utf8_lossy(&output.stdout);
        text.split("packets ").skip(1).filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// As one change.
    fn apply(&self) {
        let mut script = String::from("flush chain inet machines cuts\n");
        for cut in &self.cuts {
            let (mark, _) = self.node(&cut.from);
            let (_, to) = self.node(&cut.to);
            let share = match cut.percent {
                100 => String::new(),
                percent => format!("numgen random mod 100 < {percent} "),
            };
            let ports = match cut.port {
                None => vec![String::new()],
                Some(port) => vec![format!("tcp dport {port} "), format!("tcp sport {port} ")],
            };
            for port in ports {
                let (group, level, address) = (&to.group, to.level, &to.address);
                let head = format!("add rule inet machines cuts meta mark {mark} {port}");
                let _ =
                    writeln!(script, "{head}socket cgroupv2 level {level} \"{group}\" {share}counter drop");
                // What finds no socket there would be answered by a reset.
                if cut.percent == 100 {
                    let _ = writeln!(script, "{head}ip daddr {address} counter drop");
                }
            }
        }
        nft(&script);
    }

    fn node(&self, name: &str) -> (usize, &Node) {
        let index = self.nodes.iter().position(|node| node.name == name);
        let index = index.unwrap_or_else(|| panic!("there is no machine {name}"));
        (index + 1, &self.nodes[index])
    }
}

fn nft(script: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nft is installed (Debian: nftables)");
    let written = child.stdin.take().expect("a pipe").write_all(script.as_bytes());
    let output = child.wait_with_output().expect("nft ends");
    assert!(
        written.is_ok() && output.status.success(),
        "{script}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
