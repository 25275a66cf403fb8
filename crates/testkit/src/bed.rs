//! A bed for tests of several machines: each machine is a network namespace with an address of its own, with its
//! own processes, `/etc` and `/var/lib/dolmen`, and all of them meet at a bridge.
//!
//! The thread that makes a bed stands outside: it is moved to one more namespace at the same bridge, and so are
//! the threads and commands that it starts from then on. No namespace has a name, and what holds it ends with
//! that thread, however it ends (PDEATHSIG, prctl(2)), so that nothing is left behind. Needs root.

mod machine;

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::site::Ran;
use crate::until;
pub use machine::Machine;

/// Of the addresses 10.77.0.N: machines count from 1.
const OUTSIDER: u8 = 100;

/// How long the kernel may take for a namespace or the end of its processes.
const KERNEL: Duration = Duration::from_secs(10);

/// Beds of one process.
static BEDS: AtomicU32 = AtomicU32::new(0);

/// Machines that are joined by a bridge.
#[derive(Debug)]
pub struct Bed {
    folder: PathBuf,
    /// Where the calling thread came from.
    home: File,
    switch: Holder,
    outsider: Holder,
    machines: Vec<Machine>,
}

impl Bed {
    /// A bed with machines of these names, running and without any server, at 10.77.0.1, 10.77.0.2, …
    pub fn new(names: &[&str]) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "namespaces need root; a test that skips tests nothing"
        );
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("dolmen-bed-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let home = File::open("/proc/thread-self/ns/net").expect("there is a /proc");
        let (switch, outsider) = (Holder::new(), Holder::new());
        switch.run("ip link add bridge type bridge && ip link set bridge up && ip link set lo up").fine();
        switch.plug("outsider", &outsider, address(OUTSIDER));
        let mut bed = Self { folder, home, switch, outsider, machines: Vec::new() };
        for name in names {
            bed.add(name);
        }
        enter(&File::open(bed.outsider.namespace("net")).expect("the outsider has a network"));
        bed
    }

    /// One more machine.
    pub fn add(&mut self, name: &str) -> &Machine {
        let number = u8::try_from(self.machines.len() + 1).expect("a bed has few machines");
        let machine = Machine::new(name, address(number), &self.folder.join(name));
        self.switch.plug(name, &machine.holder, machine.address);
        self.machines.push(machine);
        self.machine_mut(name).boot();
        self.machine(name)
    }

    #[track_caller]
    pub fn machine(&self, name: &str) -> &Machine {
        self.machines.iter().find(|machine| machine.name == name).expect("the bed has this machine")
    }

    #[track_caller]
    pub fn machine_mut(&mut self, name: &str) -> &mut Machine {
        self.machines.iter_mut().find(|machine| machine.name == name).expect("the bed has this machine")
    }

    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter()
    }

    /// An address on this machine.
    #[track_caller]
    pub fn address(&self, name: &str, port: u16) -> SocketAddr {
        SocketAddr::new(self.machine(name).address, port)
    }

    /// Pulls the machine's cable: nothing arrives any more, no FIN and no RST either.
    pub fn cut(&self, name: &str) {
        self.switch.run(&format!("ip link set {name} down")).fine();
    }

    pub fn plug(&self, name: &str) {
        self.switch.run(&format!("ip link set {name} up")).fine();
    }

    /// From now on these two machines hear nothing of each other.
    pub fn part(&self, one: &str, other: &str) {
        self.machine(one).refuse(self.machine(other).address);
        self.machine(other).refuse(self.machine(one).address);
    }

    /// Ends all partitions and losses between machines; pulled cables stay pulled.
    pub fn heal(&self) {
        self.machines.iter().for_each(Machine::hear_all);
    }

    /// The power of the machine fails: nothing is said to anybody.
    pub fn lose(&mut self, name: &str) {
        self.cut(name);
        self.machine_mut(name).kill();
    }

    /// The power is back. What the machine starts by itself starts again.
    pub fn bring_back(&mut self, name: &str) {
        self.machine_mut(name).boot();
        self.plug(name);
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.machines.iter().for_each(|machine| eprintln!("{}", machine.logs()));
        }
        enter(&self.home);
        self.machines.clear();
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

/// 10.77.0.N.
fn address(number: u8) -> IpAddr {
    IpAddr::from([10, 77, 0, number])
}

/// Moves this thread into a network namespace.
fn enter(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("root may enter a namespace");
}

/// A process that does nothing but to keep a network and a mount namespace in being.
#[derive(Debug)]
struct Holder(Child);

impl Holder {
    fn new() -> Self {
        let mut command = ending_with_us();
        command.args(["unshare", "--net", "--mount", "sleep", "infinity"]);
        let holder = Self(command.stdin(Stdio::null()).spawn().expect("unshare can be run (util-linux)"));
        let ours = std::fs::read_link("/proc/thread-self/ns/net").expect("there is a /proc");
        until("a namespace", KERNEL, || {
            let theirs = std::fs::read_link(holder.namespace("net")).ok()?;
            let mounts = std::fs::read_link(holder.namespace("mnt")).ok()?;
            let own = std::fs::read_link("/proc/self/ns/mnt").ok()?;
            (theirs != ours && mounts != own).then_some(())
        });
        holder
    }

    fn namespace(&self, kind: &str) -> PathBuf {
        Path::new("/proc").join(self.0.id().to_string()).join("ns").join(kind)
    }

    /// A line of shell in these namespaces.
    fn run(&self, line: &str) -> Ran {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--target", &self.0.id().to_string(), "sh", "-ec", line]);
        command.output().expect("nsenter can be run (util-linux)").into()
    }

    /// Lays a cable from a port of the bridge here, named like its machine, to the machine.
    fn plug(&self, port: &str, machine: &Holder, address: IpAddr) {
        let pid = machine.0.id();
        self.run(&format!("ip link add {port} type veth peer name eth0 netns {pid}")).fine();
        self.run(&format!("ip link set {port} master bridge up")).fine();
        machine.run(&format!("ip address add {address}/24 dev eth0 && ip link set eth0 up")).fine();
        machine.run("ip link set lo up").fine();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It has no state to save.
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("a namespace is not given up: {error}");
        }
    }
}

/// A command whose program the kernel kills when the calling thread ends.
fn ending_with_us() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    command
}
