//! A site of a few machines, each with a control server on a loopback address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use link::api::{Authority, Door, Identity, OPERATOR};
use link::control::Client;
use link::control::wire::LISTEN;
use plan::{Disk, Ground, Place, Plan, Role, Site};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::core::Core;
use crate::peers::Peers;
use crate::timing::Timing;

/// The longest wait for anything, on a busy computer.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct Stage {
    pub plan: Plan,
    pub folder: PathBuf,
    pub block: u8,
    owner: bool,
}

impl Stage {
    /// Makes a site of this many machines on 127.0.`block`.1, .2, ….
    pub fn new(block: u8, machines: usize) -> Self {
        let folder = std::env::temp_dir().join(format!("dolmen-control-{block}-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("authority")).unwrap();
        let stage = Self { plan: plan(block, machines), folder, block, owner: true };
        let authority = Authority::open(&stage.folder.join("authority")).unwrap();
        for server in stage.plan.role(Role::Control) {
            std::fs::create_dir_all(stage.folder.join(&server.machine)).unwrap();
            authority.issue(&server.machine, &stage.folder.join(&server.machine)).unwrap();
        }
        stage
    }

    /// The same site, in a process that a test started.
    pub fn again(block: u8, machines: usize, folder: &Path) -> Self {
        Self { plan: plan(block, machines), folder: folder.to_owned(), block, owner: false }
    }

    pub fn identity(&self, machine: &str) -> Identity {
        Identity::open(&self.folder.join(machine)).unwrap()
    }

    pub fn operator(&self) -> Identity {
        let folder = self.folder.join(OPERATOR);
        std::fs::create_dir_all(&folder).unwrap();
        Authority::open(&self.folder.join("authority")).unwrap().issue(OPERATOR, &folder).unwrap();
        Identity::open(&folder).unwrap()
    }

    pub fn machine(&self, number: usize) -> String {
        self.plan.server(&name(number)).unwrap().machine.clone()
    }

    pub fn address(&self, number: usize) -> SocketAddr {
        self.plan.server(&name(number)).unwrap().listens(LISTEN).unwrap()
    }

    pub fn data(&self, number: usize) -> PathBuf {
        self.folder.join(name(number))
    }

    /// A client on the machine of this number.
    pub fn client(&self, number: usize) -> Client {
        let machine = self.machine(number);
        Client::new(self.identity(&machine), &self.plan, &machine)
    }

    /// Starts the control server of this number in this process.
    pub async fn start(&self, number: usize) -> Running {
        let identity = self.identity(&self.machine(number));
        std::fs::create_dir_all(self.data(number)).unwrap();
        let peers = Arc::new(Peers::new(identity.clone(), &self.plan));
        let timing = Timing::for_lease(plan::Lease::of(crate::LEASE_DEFAULT));
        let core = Core::open(&self.data(number), &name(number), peers, timing).await.unwrap();
        let core = Arc::new(core);
        let listener = tokio::net::TcpListener::bind(self.address(number)).await.unwrap();
        let door = Door { listener, identity, site: self.plan.site.clone() };
        let serving = tokio::spawn(crate::serve::serve(door, Arc::clone(&core)));
        let kept = Arc::clone(&core);
        let keeping = tokio::spawn(async move { crate::keeper::keep(&kept, |_, _| {}).await });
        Running { core, serving, keeping }
    }

    pub async fn start_all(&self) -> Vec<Running> {
        let mut all = Vec::new();
        for number in 1..=self.plan.role(Role::Control).count() {
            all.push(self.start(number).await);
        }
        all
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.owner {
            std::fs::remove_dir_all(&self.folder).unwrap();
        }
    }
}

pub fn plan(block: u8, machines: usize) -> Plan {
    let names = ["alpha", "beta", "gamma", "delta", "epsilon"];
    let lines = names[..machines].iter().enumerate();
    let machines: String = lines.map(|(i, name)| format!("{name} = \"10.0.0.{}\"\n", i + 1)).collect();
    let site = Site::from_text(&format!("[machines]\n{machines}[database]\n"));
    let files = Disk { folder: PathBuf::from("/") };
    let ground = Ground { place: Place::Up { block }, generation: 1, folder: "test", files: &files };
    site.plan(&ground).unwrap()
}

pub fn name(number: usize) -> String {
    format!("control-{number}")
}

pub struct Running {
    pub core: Arc<Core>,
    serving: JoinHandle<()>,
    pub keeping: JoinHandle<String>,
}

impl Running {
    pub async fn stop(self) {
        self.serving.abort();
        self.keeping.abort();
        assert!(self.serving.await.unwrap_err().is_cancelled());
        assert!(self.keeping.await.unwrap_err().is_cancelled());
        self.core.raft.shutdown().await.unwrap();
    }
}

/// Waits until `found` gives something.
pub async fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The place of the leader that a majority follows.
pub fn leader(all: &[Running]) -> Option<usize> {
    all.iter().position(|running| running.core.is_leader() && running.core.is_in_contact())
}
