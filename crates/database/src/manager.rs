//! The manager of one database server: look, decide, say, act, over and over, until nothing is left to do.
//!
//! It may be killed at any instruction: its guard ends postgres, and the next manager goes on from what it finds.
//! Only the lease is renewed elsewhere ([`crate::holder`]), since an action here may take long.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use link::api::Identity;
use link::control::{Client, Control};
use link::report::{DatabaseReport, State};
use link::{Given, Plans, Start};
use plan::Role;
use rustix::fs::FlockOperation;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::access;
use crate::act::{self, EpochCommit, Wanted};
use crate::failover::lease::Timings;
use crate::failover::{Action, Data, Decision, Names, Orders, Postgres as Process, Seen, Standing, decide};
use crate::find::{self, NotFound, Postgres};
use crate::folder::Folder;
use crate::group::{Lsn, Mode};
use crate::guard::{self, Fence, Guard};
use crate::heard::Heard;
use crate::holder::{self, Holder, Reach, Tenant};
use crate::inherit::{self, Legacy};
use crate::look::cut_off;
use crate::record::View;
use crate::rest::Rest;
use crate::session::Session;
use crate::stamp::Kept;
use crate::upstream::Asker;
use crate::{RefusedSetting, check_settings};

/// How long until the next look: after an action; while an election or a promotion is under way; while something
/// else is about to change; while somebody else is waited for; while all is well.
const AT_ONCE: Duration = Duration::from_millis(5);
const CLOSE: Duration = Duration::from_millis(10);
const BUSY: Duration = Duration::from_millis(50);
const WAITING: Duration = Duration::from_millis(100);
const CALM: Duration = Duration::from_secs(1);

/// A postgres that has run for this long has its earlier ends forgiven.
const SETTLED: Duration = Duration::from_secs(10);

/// The order to become the program that lies on disk now.
const UPGRADE: SignalKind = SignalKind::user_defined2();

/// The part of the time for an end that is given to an orderly one.
const ORDERLY: f32 = 0.8;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the plan has no [database]")]
    NoDatabase,
    #[error("{0} has no address named postgres in the plan")]
    NoAddress(String),
    #[error("the agent gave no secret {0}")]
    NoSecret(&'static str),
    #[error("{}", list(.0))]
    Settings(Vec<RefusedSetting>),
    #[error(transparent)]
    NotFound(#[from] NotFound),
    #[error("another manager holds {}", .0.display())]
    Locked(PathBuf),
    #[error("PostgreSQL refuses to run as root: the agent must start this server under another account")]
    Root,
    #[error("cannot use the folder {}: {error}", folder.display())]
    Folder { folder: PathBuf, error: std::io::Error },
    #[error("{0}")]
    Upgrade(String),
    #[error("cannot reach control: {0}")]
    Control(String),
    #[error("cannot find the name of our account: {0}")]
    Account(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn list(refused: &[RefusedSetting]) -> String {
    refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Runs a database server until the agent orders its stop. Call it on the thread that lives as long as the
/// process: the kernel kills postgres when that thread ends.
pub fn run(start: Start) -> Result<(), Error> {
    let (plan, machine) = (Arc::clone(&start.plan), start.me.machine.clone());
    let identity = Identity::given(&start.secrets).map_err(|error| error.to_string());
    identity.iter().for_each(|identity| start.line.renews(identity));
    let line = start.line.clone();
    let reach = move || {
        let client = Client::new(identity.clone()?, &plan, &machine);
        let known = client.clone();
        line.heeds(move |given| known.follow(&given.plan));
        Ok(Arc::new(client) as Arc<dyn Control>)
    };
    run_with(start, Arc::new(reach))
}

/// The same with another way to control. It is made once for each runtime that uses it.
pub fn run_with(start: Start, reach: Arc<Reach>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { Manager::new(start, reach).await?.serve().await })
}

/// See the head of this file.
pub(crate) struct Manager {
    pub(crate) start: Start,
    plans: Plans,
    /// Machines that were just taken out of the plan.
    pub(crate) going: Vec<IpAddr>,
    pub(crate) place: Place,
    pub(crate) folder: Folder,
    /// Held while this process lives, so that nobody else touches the folder.
    lock: File,
    pub(crate) installed: Vec<Postgres>,
    /// The name of the account that we run under.
    pub(crate) account: String,
    /// This life of the manager.
    pub(crate) boot: String,
    pub(crate) view: View,
    pub(crate) holder: Arc<Holder>,
    pub(crate) kept: Kept,
    /// What is on disk, looked at once and again after every change of ours.
    pub(crate) data: Option<Data>,
    pub(crate) postgres: Option<Running>,
    /// The best fence that a guard may use; it says itself which it could.
    pub(crate) fence: Fence,
    pub(crate) session: Option<Session>,
    pub(crate) rest: Rest,
    pub(crate) orders: Orders,
    pub(crate) asker: Asker,
}

/// What the plan says of the database servers.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) me: String,
    pub(crate) listen: SocketAddr,
    /// All of them, in the file's order.
    pub(crate) servers: Vec<(String, SocketAddr)>,
    pub(crate) mode: Mode,
    pub(crate) timings: Timings,
    /// The application's database and its owner.
    pub(crate) database: String,
    pub(crate) settings: BTreeMap<String, String>,
}

/// A postgres below its guard.
pub(crate) struct Running {
    pub(crate) guard: Guard,
    pub(crate) since: Instant,
    /// Whether it has answered a question yet.
    pub(crate) answered: bool,
    /// The length of the log when it started: what stands before is not about it.
    pub(crate) log_from: u64,
    /// What its settings say.
    pub(crate) wanted: Wanted,
    /// Since where the log is covered by these names.
    pub(crate) names_since: Option<(Names, Lsn)>,
    pub(crate) epoch_commit: EpochCommit,
    /// Whether roles, database and slots were made since it was promoted.
    pub(crate) set_up: bool,
    pub(crate) checkpoint: Option<JoinHandle<()>>,
    /// Since when another server has not been streaming from it.
    pub(crate) away: BTreeMap<String, Instant>,
    pub(crate) heard: Arc<Heard>,
}

impl Running {
    /// `others`: every other server of the plan.
    pub(crate) fn new(guard: Guard, log_from: u64, wanted: Wanted, others: Vec<String>) -> Self {
        Self {
            guard,
            since: Instant::now(),
            answered: false,
            log_from,
            wanted,
            names_since: None,
            epoch_commit: EpochCommit::default(),
            set_up: false,
            checkpoint: None,
            away: BTreeMap::new(),
            heard: Heard::of(others),
        }
    }
}

impl Place {
    fn of(start: &Start) -> Result<Self, Error> {
        let plan = &start.plan;
        let database = plan.database.as_ref().ok_or(Error::NoDatabase)?;
        let address = |server: &plan::Server| {
            server.listens("postgres").ok_or_else(|| Error::NoAddress(server.name.clone()))
        };
        let refused = check_settings(&database.settings);
        if !refused.is_empty() {
            return Err(Error::Settings(refused));
        }
        let servers = plan.role(Role::Database).map(|server| Ok((server.name.clone(), address(server)?)));
        Ok(Self {
            me: start.me.name.clone(),
            listen: address(&start.me)?,
            servers: servers.collect::<Result<_, Error>>()?,
            mode: mode(database),
            timings: Timings::new(database.lease().length),
            database: database.name.clone(),
            settings: database.settings.clone(),
        })
    }

    /// Every server but this one.
    pub(crate) fn others(&self) -> Vec<String> {
        let others = self.servers.iter().filter(|(name, _)| *name != self.me);
        others.map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn address(&self, server: &str) -> Option<SocketAddr> {
        self.servers.iter().find(|(name, _)| name == server).map(|(_, address)| *address)
    }
}

/// A replica further behind than this is not promoted where commits wait for nobody.
const MAX_LAG_BYTES: u64 = 16 << 20;

fn mode(database: &plan::Database) -> Mode {
    match (database.synchronous, database.strict) {
        (true, true) => Mode::Strict,
        (true, false) => Mode::Synchronous,
        (false, _) => Mode::Asynchronous { max_lag_bytes: MAX_LAG_BYTES },
    }
}

impl Manager {
    async fn new(start: Start, reach: Arc<Reach>) -> Result<Self, Error> {
        if rustix::process::geteuid().is_root() {
            return Err(Error::Root);
        }
        let place = Place::of(&start)?;
        for name in ["app-password", "replication-password"] {
            start.secrets.get(name).ok_or(Error::NoSecret(name))?;
        }
        let installed = find::installed()?;
        let failed = |error| Error::Folder { folder: start.folder.clone(), error };
        let folder = Folder::prepare(&start.folder).map_err(failed)?;
        let (mut legacy, lock) = match Legacy::take()? {
            Some((legacy, lock)) => (Some(legacy), lock),
            None => (None, lock(&folder)?),
        };
        let kept = Kept::read(&folder).map_err(failed)?;
        let account = act::account().await.map_err(|error| Error::Account(error.to_string()))?;
        let boot = legacy.as_ref().map_or_else(random, |legacy| Ok(legacy.boot.clone()))?;
        let holder = Holder::new(place.timings);
        let port = place.listen.port();
        let tenant = Tenant { me: place.me.clone(), boot: boot.clone(), folder: folder.clone(), port };
        holder::keep(Arc::clone(&holder), tenant, Arc::clone(&reach))?;
        let postgres =
            legacy.as_mut().map(|legacy| legacy.restore_postgres(place.others())).transpose()?.flatten();
        if let Some(lease) = legacy.and_then(|legacy| legacy.lease) {
            holder.resume(lease, postgres.as_ref().map(|running| running.guard.page()));
        }
        if let Some(running) = &postgres {
            running.guard.become_program(&link::program::path()?);
        }
        Ok(Self {
            view: View::new(reach().map_err(Error::Control)?),
            plans: start.line.plans(),
            going: Vec::new(),
            start,
            place,
            folder,
            lock,
            installed,
            account,
            boot,
            holder,
            kept,
            data: None,
            postgres,
            fence: guard::best(),
            session: None,
            rest: Rest::default(),
            orders: Orders::default(),
            asker: Asker::default(),
        })
    }

    /// The whole life.
    async fn serve(mut self) -> Result<(), Error> {
        let line = self.start.line.clone();
        let mut upgrade = signal(UPGRADE)?;
        // An earlier program may have been given up before it had done that.
        self.let_in();
        let within = loop {
            tokio::select! {
                within = line.stopped() => break within,
                () = self.turns() => break Duration::ZERO,
                _ = upgrade.recv() => self.upgrade().await,
            }
        };
        self.orders.stop = true;
        line.report(State::Draining, "stopping postgres");
        // What hands over or ends in order gets most of the time; the rest ends what did not.
        if tokio::time::timeout(within.mul_f32(ORDERLY), self.turns()).await.is_err() {
            tracing::warn!("the orderly end took too long");
        }
        self.holder.give_up();
        act::stop(&mut self, within.mul_f32(1.0 - ORDERLY)).await;
        Ok(())
    }

    /// Goes on by a later plan: machines may have come and gone. All else that it works by has stayed. The same plan
    /// again is a word about keys: those that have left are let in no more.
    fn follow(&mut self, given: &Given) {
        self.going = access::going(&self.start.plan, &given.plan);
        self.start.plan = Arc::new(given.plan.clone());
        self.let_in();
    }

    /// Has a postgres that runs let in who comes from the machines of the plan, and nobody else.
    fn let_in(&mut self) {
        let rules = access::rules(&self.start.plan, &self.going, &self.place.database);
        let read = std::fs::read_to_string(self.folder.access());
        if self.postgres.is_none() || read.is_ok_and(|read| read == rules) {
            return;
        }
        match act::read_again(self) {
            Ok(()) => tracing::info!("lets in the machines of generation {}", self.start.plan.generation),
            Err(error) => tracing::error!("machines that have come are not let in: {error}"),
        }
    }

    /// Becomes the program that lies on disk now, in this very process; postgres, its guard and the lease go on.
    /// Returns when that cannot be done.
    async fn upgrade(&mut self) {
        let because = match self.try_upgrade().await {
            Ok(error) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!("this manager goes on as it is: the newer program cannot take over: {because}");
    }

    async fn try_upgrade(&mut self) -> Result<std::io::Error, Error> {
        let program = link::program::path()?;
        inherit::try_out(&program).await.map_err(|error| Error::Upgrade(error.to_string()))?;
        let legacy = Legacy::new(&self.boot, &self.lock, self.postgres.as_ref(), self.holder.legacy());
        tracing::info!("becoming {}", program.display());
        Ok(legacy.leave_to(&program))
    }

    /// Looks, decides, says and acts until there is nothing left to do. May be dropped at any await: tools that
    /// run are killed.
    async fn turns(&mut self) {
        loop {
            if let Some(given) = self.plans.newest() {
                self.follow(&given);
            }
            let seen = self.look().await;
            let decision = decide(&seen);
            self.say(&seen, &decision);
            if decision.action == Action::End {
                return;
            }
            if decision.state == State::Healthy && settled(&seen) {
                self.rest.went_well();
            }
            let pace = self.pace(&seen, &decision);
            if decision.action != Action::Wait {
                self.act(decision.action).await;
            }
            self.pause(pace).await;
            if self.postgres.is_none() {
                // Somebody may have put right what we wait for.
                self.data = None;
            }
        }
    }

    /// Never waits for a postgres that has ended: the next look says what became of it.
    async fn act(&mut self, action: Action) {
        let acted = if action.needs_postgres() {
            cut_off(self.end_of_postgres(), act::act(self, action)).await.unwrap_or(Ok(()))
        } else {
            act::act(self, action).await
        };
        if let Err(error) = acted {
            tracing::warn!("{error}");
            self.data = None;
            self.rest.failed(error.to_string(), Instant::now());
        }
    }

    /// Until it is time to look again: when the time is over, the record has changed, postgres has ended or a
    /// replica of it has come or gone.
    async fn pause(&mut self, time: Duration) {
        let at_rest = time >= CALM && self.holder.lease().is_some();
        let heard = self.postgres.as_ref().filter(|_| at_rest).map(|running| Arc::clone(&running.heard));
        let ended = async {
            match &mut self.postgres {
                Some(running) => drop(running.guard.wait().await),
                None => std::future::pending().await,
            }
        };
        let moved = async {
            match (&self.session, heard) {
                (Some(session), Some(heard)) => heard.changes(session).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ended => {}
            () = moved => {}
            () = self.view.changed() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    /// A replica that streams wakes when the holder has been silent for too long.
    fn pace(&self, seen: &Seen, decision: &Decision) -> Duration {
        let time = match decision.standing {
            _ if decision.action != Action::Wait => return AT_ONCE,
            Standing::Primary | Standing::Following if decision.state == State::Healthy => CALM,
            Standing::Failed | Standing::Paused => CALM,
            Standing::Sealed | Standing::Promoting => CLOSE,
            _ if matches!(seen.postgres, Process::Stopped { .. }) => WAITING,
            // Clients wait for a primary that is started again in place.
            Standing::Starting if seen.lease.is_some() => CLOSE,
            _ => BUSY,
        };
        let silence = self.view.silence().unwrap_or_default();
        let timings = &self.place.timings;
        let ends = self.view.group().map(|group| [timings.election_for(group), timings.patience_for(group)]);
        let left = ends.into_iter().flatten().map(|end| end.saturating_sub(silence));
        left.filter(|left| !left.is_zero()).min().map_or(time.min(BUSY), |left| time.min(left))
    }

    fn say(&self, seen: &Seen, decision: &Decision) {
        let report = self.report(seen);
        self.start.line.report_database(decision.state, decision.because.clone(), report);
    }

    /// Progress of a long action, in the same words and with the same report as any other sentence.
    pub(crate) fn say_progress(&self, text: String) {
        self.start.line.report_database(State::Starting, text, DatabaseReport::default());
    }

    pub(crate) fn address(&self, server: &str) -> Result<SocketAddr, act::ActError> {
        self.place.address(server).ok_or_else(|| act::ActError::NoServer(server.to_owned()))
    }
}

fn settled(seen: &Seen) -> bool {
    matches!(seen.postgres, Process::Running { since, .. } if since > SETTLED)
}

/// Two managers on one folder would end each other's postgres.
fn lock(folder: &Folder) -> Result<File, Error> {
    let path = folder.root().join("lock");
    let file = File::options().write(true).create(true).truncate(false).open(&path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked(folder.root().to_owned())),
        Err(errno) => Err(Error::Folder { folder: path, error: errno.into() }),
    }
}

/// No other life of a manager has this.
fn random() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    // The kernel gives so few at once.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
