//! Who hears whom among the machines of a site on one computer: each machine is a control group, whose
//! sockets nftables knows, whatever address they use. A cut is by both ends and lets neither FIN nor RST out, as a cable that was pulled.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::delay::{Delay, Late};

/// The last number of the address at which a relay stands that delays, in the site's block.
const RELAY: u8 = 250;

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
    /// Of that service only what processes of this account ask, so that others reach it.
    pub account: Option<&'static str>,
    /// Of a hundred packets.
    pub percent: u32,
}

impl Cut {
    pub fn all(from: &str, to: &str) -> Self {
        Self { from: from.into(), to: to.into(), port: None, account: None, percent: 100 }
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
    delay: Option<Delay>,
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
        let network = Self { nodes: groups.iter().map(node).collect(), cuts: Vec::new(), delay: None };
        network.begin();
        network
    }

    /// Every packet is marked with the machine that sends it.
    fn begin(&self) {
        let mut script = String::from(
            "table inet machines {\n chain marks { type filter hook output priority 0; }\n chain asked { type filter hook \
             output priority 1; }\n chain late { type nat hook output priority -100; }\n chain cuts { type filter hook input priority 0; }\n}\n",
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

    /// Everything between any two arrives so late. Connections that there are end: they are not led through the relay.
    pub fn delay(&mut self, late: Late) {
        let first: Ipv4Addr = self.nodes[0].address.parse().expect("an address");
        let [a, b, c, _] = first.octets();
        let delay = Delay::begin(Ipv4Addr::new(a, b, c, RELAY), late);
        let mut script = String::new();
        for from in &self.nodes {
            for to in self.nodes.iter().filter(|to| to.name != from.name) {
                let Node { group, level, .. } = from;
                let _ = writeln!(
                    script,
                    "add rule inet machines late socket cgroupv2 level {level} \"{group}\" ip daddr {} meta l4proto tcp \
                     dnat ip to {}",
                    to.address, delay.address
                );
            }
        }
        nft(&script);
        self.delay = Some(delay);
    }

    /// No cut is in force any more, and no delay.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.apply();
        if self.delay.is_some() {
            nft("flush chain inet machines late\n");
            self.delay = None;
        }
    }

    /// How many packets were lost to the cuts that are in force, and how many pieces came late.
    pub fn met(&self) -> u64 {
        self.dropped() + self.delay.as_ref().map_or(0, Delay::carried)
    }

    fn dropped(&self) -> u64 {
        let output = Command::new("nft").args(["list", "table", "inet", "machines"]).output();
        let output = output.expect("nft is installed");
        let text = String::from_utf8_lossy(&output.stdout);
        text.split("packets ").skip(1).filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// As one change.
    fn apply(&self) {
        let mut script = String::from("flush chain inet machines cuts\nflush chain inet machines asked\n");
        self.cuts.iter().for_each(|cut| self.rules(cut, &mut script));
        nft(&script);
    }

    fn rules(&self, cut: &Cut, script: &mut String) {
        let (mark, _) = self.node(&cut.from);
        let (_, Node { group, level, address, .. }) = self.node(&cut.to);
        if let (Some(account), Some(port)) = (cut.account, cut.port) {
            let _ = writeln!(
                script,
                "add rule inet machines asked meta mark {mark} meta skuid \"{account}\" tcp dport {port} ip daddr \
                 {address} counter drop"
            );
            return;
        }
        let share = match cut.percent {
            100 => String::new(),
            percent => format!("numgen random mod 100 < {percent} "),
        };
        let ports = match cut.port {
            None => vec![String::new()],
            Some(port) => vec![format!("tcp dport {port} "), format!("tcp sport {port} ")],
        };
        for port in ports {
            let head = format!("add rule inet machines cuts meta mark {mark} {port}");
            let _ = writeln!(script, "{head}socket cgroupv2 level {level} \"{group}\" {share}counter drop");
            // What finds no socket there would be answered by a reset.
            if cut.percent == 100 {
                let _ = writeln!(script, "{head}ip daddr {address} counter drop");
            }
        }
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
