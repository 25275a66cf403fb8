//! One machine of a bed: its processes live and die together, its files stay.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{Holder, KERNEL, ending_with_us};
use crate::site::Ran;
use crate::until;

/// What the first process of a machine does: it collects those whose parents have ended.
const INIT: &str = "while :; do sleep 3600 & wait $!; done";

/// How a machine starts a service again, as systemd would with `Restart=always`.
const SERVICE: &str = "log=$1; shift; while :; do \"$@\" >>\"$log\" 2>&1 </dev/null; sleep 0.2; done";

/// What of a system belongs to each machine alone.
const OWN: [(&str, &str); 2] = [("etc", "/etc"), ("lib", "/var/lib/dolmen")];

#[derive(Debug)]
pub struct Machine {
    pub name: String,
    pub address: IpAddr,
    /// A folder for the test's own files, the same inside and outside.
    pub folder: PathBuf,
    pub(super) holder: Holder,
    /// The processes of the machine, while it has power.
    running: Option<Running>,
    /// The commands that a boot starts.
    services: Vec<Vec<String>>,
}

/// A process namespace: all in it end with its first process.
#[derive(Debug)]
struct Running {
    unshare: Child,
    first: Pid,
}

impl Machine {
    pub(super) fn new(name: &str, address: IpAddr, folder: &Path) -> Self {
        let holder = Holder::new();
        let site = folder.join("site");
        std::fs::create_dir_all(folder.join("lib")).expect("a folder can be made");
        std::fs::create_dir_all(&site).expect("a folder can be made");
        // Accounts that one machine makes are not another's.
        holder.run(&format!("cp -a /etc {}", folder.join("etc").display())).fine();
        for (own, place) in OWN {
            let own = folder.join(own);
            holder.run(&format!("mkdir -p {place} && mount --bind {} {place}", own.display())).fine();
        }
        holder
            .run("nft 'add table inet bed; add chain inet bed in { type filter hook input priority 0; }'")
            .fine();
        let (name, services) = (name.to_owned(), Vec::new());
        Self { name, address, folder: site, holder, running: None, services }
    }

    /// Gives the machine its first process, and starts its services.
    pub(super) fn boot(&mut self) {
        let holder = self.holder.0.id().to_string();
        let mut command = ending_with_us();
        command.args(["nsenter", "--net", "--mount", "--target", &holder]);
        command.args(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", INIT]);
        // Its own words about its end are no part of any test.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let unshare = command.spawn().expect("unshare can be run (util-linux)");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let first = until("the first process of a machine", KERNEL, || {
            let child = std::fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse().ok()?;
            // Its program is the shell once /proc is mounted.
            let program = std::fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            (program.trim() == "sh").then_some(child)
        });
        self.running = Some(Running { unshare, first: Pid::from_raw(first).expect("no process is 0") });
        for service in self.services.clone() {
            self.start(&service);
        }
    }

    /// Ends all processes of the machine at once.
    pub fn kill(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        if let Err(errno) = kill_process(running.first, Signal::KILL) {
            eprintln!("{} had lost its first process: {errno}", self.name);
        }
        running.unshare.wait().expect("a process that was killed ends");
    }

    #[track_caller]
    fn first(&self) -> Pid {
        self.running.as_ref().expect("the machine is running").first
    }

    /// A command that runs on this machine, in its folder.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        let first = self.first().as_raw_nonzero().to_string();
        command.args(["--net", "--mount", "--pid", "--target", &first]);
        command.args(["sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(&self.folder);
        command.args(arguments).env("NO_COLOR", "1");
        command
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).output().expect("nsenter can be run (util-linux)").into()
    }

    /// Has a command run now and after each boot, and again whenever it ends.
    pub fn serve(&mut self, arguments: &[&str]) {
        let service: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self.start(&service);
        self.services.push(service);
    }

    fn start(&self, service: &[String]) {
        let log = self.service_log().display().to_string();
        let mut arguments = vec!["sh", "-c", SERVICE, "service", &log];
        arguments.extend(service.iter().map(String::as_str));
        // Detached: its parent is the first process, with which it ends.
        let mut detached = self.command(&["setsid", "--fork"]);
        detached.args(&arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(detached.status().expect("setsid can be run (util-linux)").success());
    }

    fn service_log(&self) -> PathBuf {
        self.folder.with_file_name("service.log")
    }

    /// The state folders of the sites on this machine.
    pub fn state(&self) -> PathBuf {
        self.folder.with_file_name("lib")
    }

    #[allow(clippy::disallowed_methods, reason = "a test file need not survive a crash")]
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).expect("a file can be written");
    }

    /// The disk is replaced by an empty one; the machine must be without power.
    pub fn wipe(&self) {
        assert!(self.running.is_none(), "a disk is replaced while the machine is off");
        for entry in std::fs::read_dir(self.state()).expect("there is a disk").flatten() {
            let path = entry.path();
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            removed.expect("root may remove it");
        }
    }

    /// All its processes stop where they are, and go on with [`Machine::thaw`].
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        for pid in self.processes().into_iter().filter_map(Pid::from_raw) {
            match kill_process(pid, signal) {
                // It may have just ended.
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(errno) => panic!("cannot signal a process of {}: {errno}", self.name),
            }
        }
    }

    /// The processes of this machine but for its first one, by their ids outside.
    pub fn processes(&self) -> Vec<i32> {
        let space = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let (first, entries) = (self.first().as_raw_nonzero().get(), std::fs::read_dir("/proc"));
        let ours = space(first);
        let pids = entries.expect("there is a /proc").flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| *pid != first && space(*pid) == ours).collect()
    }

    /// Nothing that this address sends is heard here.
    pub(super) fn refuse(&self, address: IpAddr) {
        self.holder.run(&format!("nft add rule inet bed in ip saddr {address} drop")).fine();
    }

    /// Of what arrives here, this many packets of a hundred are lost.
    pub fn lose_packets(&self, percent: u8) {
        let which = if percent < 100 { format!("numgen random mod 100 < {percent}") } else { String::new() };
        self.holder.run(&format!("nft 'add rule inet bed in {which} drop'")).fine();
    }

    pub(super) fn hear_all(&self) {
        self.holder.run("nft flush chain inet bed in").fine();
    }

    /// The last lines of its logs, for a test that fails.
    pub fn logs(&self) -> String {
        let mut text = crate::site::last_lines(&self.service_log());
        for site in std::fs::read_dir(self.state()).into_iter().flatten().flatten() {
            text.push_str(&crate::site::logs(&site.path()));
        }
        text
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}
