//! The manager of one database server: look, decide, say, act, over and over, until it is told to stop.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use link::Start;
use link::report::{DatabaseReport, ReplicaReport, State};
use plan::Role;
use rustix::fs::FlockOperation;

use crate::decide::{Action, Sentence, decide};
use crate::find::{NotFound, Postgres};
use crate::folder::Folder;
use crate::guard::{self, Fence, Guard};
use crate::rest::Rest;
use crate::seen::{Answer, Data, Duty, Memory, Process, Seen, Upstream};
use crate::session::{QUESTION, Session};
use crate::{RefusedSetting, act, check_settings, find, leftover, log_file, observe, upstream};

/// How often the world is looked at while something is about to change, and while all is well.
const BUSY: Duration = Duration::from_millis(50);
const CALM: Duration = Duration::from_secs(1);

/// A replica that waits for its primary, which may be away for long.
const WAITING: Duration = Duration::from_millis(100);

/// While something is amiss that may mend itself at any moment.
const WATCHFUL: Duration = Duration::from_millis(250);

/// A postgres that has run for this long has its earlier ends forgiven.
const SETTLED: Duration = Duration::from_secs(10);

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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { Manager::new(start).await?.serve().await })
}

/// See the head of this file.
pub(crate) struct Manager {
    pub(crate) start: Start,
    pub(crate) place: Place,
    pub(crate) folder: Folder,
    /// Held while this process lives, so that nobody else touches the folder.
    _lock: File,
    pub(crate) installed: Vec<Postgres>,
    /// The name of the account that we run under.
    pub(crate) account: String,
    pub(crate) memory: Memory,
    /// What is on disk, looked at once and again after every change of ours.
    pub(crate) data: Option<Data>,
    pub(crate) postgres: Option<Running>,
    /// The best fence that a guard may use; it says itself which it could.
    pub(crate) fence: Fence,
    session: Option<Session>,
    /// Whether roles, database and slots were made since this postgres started.
    pub(crate) set_up: bool,
    rest: Rest,
}

/// What the plan says of this server.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) listen: SocketAddr,
    /// The name and address of the primary, when that is another server.
    pub(crate) primary: Option<(String, SocketAddr)>,
    /// On the primary: the names of all replicas.
    pub(crate) replicas: Vec<String>,
    pub(crate) synchronous: bool,
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
        let first = plan.role(Role::Database).next().ok_or(Error::NoDatabase)?;
        let i_am_first = first.name == start.me.name;
        let others = plan.role(Role::Database).skip(1).map(|server| server.name.clone());
        Ok(Self {
            listen: address(&start.me)?,
            primary: if i_am_first { None } else { Some((first.name.clone(), address(first)?)) },
            replicas: if i_am_first { others.collect() } else { Vec::new() },
            synchronous: database.synchronous,
            database: database.name.clone(),
            settings: database.settings.clone(),
        })
    }
}

impl Manager {
    async fn new(start: Start) -> Result<Self, Error> {
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
        let lock = lock(&folder)?;
        let memory = link::disk::read_json(&folder.memory()).map_err(failed)?.unwrap_or_default();
        let account = act::account().await.map_err(|error| Error::Account(error.to_string()))?;
        Ok(Self {
            start,
            place,
            folder,
            _lock: lock,
            installed,
            account,
            memory,
            data: None,
            postgres: None,
            fence: guard::best(),
            session: None,
            set_up: false,
            rest: Rest::default(),
        })
    }

    /// The whole life.
    async fn serve(mut self) -> Result<(), Error> {
        let line = self.start.line.clone();
        let within = tokio::select! {
            within = line.stopped() => within,
            never = self.turns() => match never {},
        };
        line.report(State::Draining, format!("{}, stopping postgres", self.duty_name()));
        self.session = None;
        act::stop(&mut self, within).await;
        Ok(())
    }

    /// Looks, decides, says and acts for ever. May be dropped at any await: tools that run are killed.
    async fn turns(&mut self) -> std::convert::Infallible {
        loop {
            let seen = self.look().await;
            let (action, sentence) = decide(&seen);
            self.say(&seen, &sentence);
            if sentence.state == State::Healthy && seen.settled() {
                self.rest.went_well();
            }
            if action != Action::Wait
                && let Err(error) = act::act(self, action).await
            {
                tracing::warn!("{error}");
                self.data = None;
                self.rest.failed(error.to_string(), Instant::now());
            }
            self.pause(pace(&seen, action, sentence.state)).await;
            if self.postgres.is_none() {
                // Somebody may have put right what we wait for.
                self.data = None;
            }
        }
    }

    /// Until it is time to look again: when the time is over or postgres ends.
    async fn pause(&mut self, time: Duration) {
        let ended = async {
            match &mut self.postgres {
                Some(running) => drop(running.guard.wait().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ended => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    async fn look(&mut self) -> Seen {
        self.notice_end();
        let process = self.look_at_process().await;
        if self.data.is_none() {
            self.data = Some(observe::data(&self.folder, &self.installed).await);
        }
        Seen {
            duty: self.duty(&process).await,
            memory: self.memory.clone(),
            installed: self.installed.iter().map(|postgres| postgres.version.major).collect(),
            process,
            data: self.data.clone().unwrap_or(Data::Absent),
            trouble: self.rest.trouble(Instant::now()),
            free_bytes: free_bytes(&self.folder),
        }
    }

    /// A postgres that has ended is a failure, whatever ended it: only [`act::stop`] ends it on purpose.
    fn notice_end(&mut self) {
        let Some(running) = &mut self.postgres else { return };
        if running.guard.silent_for() > guard::SILENCE {
            tracing::warn!("the guard of postgres does not look at its deadline: both are killed");
            running.guard.kill();
        }
        let (how, killed) = match running.guard.try_wait() {
            Ok(None) => return,
            Ok(Some(end)) => (end.how, end.killed),
            Err(error) => (error.to_string(), false),
        };
        // What is killed has no time to say why: its last error is about something else.
        let said = if killed { None } else { log_file::last_error(&self.folder.log(), running.log_from) };
        let said = said.map(|said| format!(": {said}")).unwrap_or_default();
        let what = format!("postgres ended ({how}){said}");
        tracing::warn!("{what}");
        self.forget_postgres();
        self.rest.failed(what, Instant::now());
    }

    pub(crate) fn forget_postgres(&mut self) {
        self.postgres = None;
        self.session = None;
        self.set_up = false;
        self.data = None;
    }

    async fn look_at_process(&mut self) -> Process {
        let Some(running) = &self.postgres else {
            // What cannot be looked at is looked at again by the action that needs it, which then fails aloud.
            let leftovers = leftover::on(&self.folder.data()).map_or(0, |found| found.len());
            return Process::Stopped { leftovers };
        };
        if let Err(error) = log_file::shorten(&self.folder.log()) {
            tracing::debug!("the log of postgres cannot be shortened: {error}");
        }
        let (since, answered) = (running.since.elapsed(), running.answered);
        let last_error = log_file::last_error(&self.folder.log(), running.log_from);
        let answer = self.ask_postgres().await;
        if let (Some(running), Ok(_)) = (&mut self.postgres, &answer) {
            running.answered = true;
        }
        Process::Running { since, answered, answer, last_error }
    }

    async fn ask_postgres(&mut self) -> Result<Answer, String> {
        let session = match self.session.take() {
            Some(session) => session,
            None => {
                let port = self.place.listen.port();
                Session::open(&self.folder, port, QUESTION).await.map_err(|error| error.to_string())?
            }
        };
        let answer = observe::answer(&session, &self.place.replicas, self.set_up).await;
        // A session that failed is dropped: the next one begins with a clean connection.
        if answer.is_ok() {
            self.session = Some(session);
        }
        answer.map_err(|error| error.to_string())
    }

    async fn duty(&self, process: &Process) -> Duty {
        let Some((primary, address)) = &self.place.primary else {
            return Duty::Primary {
                replicas: self.place.replicas.clone(),
                synchronous: self.place.synchronous,
            };
        };
        let streams =
            matches!(process, Process::Running { answer: Ok(Answer::Replica { streaming: true, .. }), .. });
        let upstream = match self.start.secrets.get("replication-password") {
            Some(password) if !streams => {
                upstream::ask(&self.start.me.name, self.place.listen.ip(), *address, password).await
            }
            _ => Upstream::Unasked,
        };
        Duty::Replica { primary: primary.clone(), address: address.to_string(), upstream }
    }

    fn say(&self, seen: &Seen, sentence: &Sentence) {
        self.start.line.report_database(sentence.state, sentence.text.clone(), self.report(seen));
    }

    /// Progress of a long action, in the same words and with the same report as any other sentence.
    pub(crate) fn say_progress(&self, text: String) {
        let report = DatabaseReport { primary: self.place.primary.is_none(), ..DatabaseReport::default() };
        self.start.line.report_database(State::Starting, text, report);
    }

    fn report(&self, seen: &Seen) -> DatabaseReport {
        let fence = self.postgres.as_ref().and_then(|running| running.guard.fence());
        let fence = fence.map_or_else(String::new, |fence| fence.name().to_owned());
        DatabaseReport { fence, ..self.report_of_postgres(seen) }
    }

    fn report_of_postgres(&self, seen: &Seen) -> DatabaseReport {
        let primary = self.place.primary.is_none();
        match &seen.process {
            Process::Running { answer: Ok(Answer::Primary { timeline, replicas, .. }), .. } => {
                DatabaseReport {
                    primary,
                    timeline: *timeline,
                    replicas: replicas.clone(),
                    ..Default::default()
                }
            }
            Process::Running { answer: Ok(Answer::Replica { timeline, streaming, lag_bytes }), .. } => {
                let (timeline, streaming, lag_bytes) = (*timeline, *streaming, *lag_bytes);
                DatabaseReport { primary, timeline, streaming, lag_bytes, ..Default::default() }
            }
            _ => {
                let timeline = if let Data::Present { timeline, .. } = seen.data { timeline } else { 0 };
                let away = |name: &String| ReplicaReport {
                    name: name.clone(),
                    state: "disconnected".into(),
                    synchronous: false,
                    lag_bytes: 0,
                };
                let replicas = self.place.replicas.iter().map(away).collect();
                DatabaseReport { primary, timeline, replicas, ..Default::default() }
            }
        }
    }

    fn duty_name(&self) -> String {
        match &self.place.primary {
            None => "primary".into(),
            Some((primary, _)) => format!("replica of {primary}"),
        }
    }
}

fn pace(seen: &Seen, action: Action, state: State) -> Duration {
    match state {
        _ if action != Action::Wait => BUSY,
        State::Healthy if seen.complete() => CALM,
        State::Starting if matches!(seen.process, Process::Stopped { .. }) => WAITING,
        State::Starting => BUSY,
        _ if matches!(seen.process, Process::Stopped { .. }) => CALM,
        _ => WATCHFUL,
    }
}

impl Seen {
    /// Whether every replica of the plan streams.
    fn complete(&self) -> bool {
        match &self.process {
            Process::Running { answer: Ok(Answer::Primary { replicas, .. }), .. } => {
                replicas.iter().all(|replica| replica.state == "streaming")
            }
            _ => true,
        }
    }

    fn settled(&self) -> bool {
        matches!(self.process, Process::Running { since, .. } if since > SETTLED)
    }
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

/// Unknown counts as plenty: PostgreSQL itself says when it cannot write.
fn free_bytes(folder: &Folder) -> u64 {
    rustix::fs::statvfs(folder.root()).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}
