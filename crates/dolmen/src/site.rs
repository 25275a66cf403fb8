//! The state folder of a site: what is in it, who may use it, and at whose accounts servers run.
//!
//! ```text
//! .dolmen/                      beside the site file; for root a link to /var/lib/dolmen/SITE
//!   lock                        held by `up`
//!   up.json                     the process of `up`
//!   stop                        there while `dolmen stop` ends the site
//!   reload                      held by `reload`, `drain`, `ready` and `upgrade`
//!   site.json                   format, whose state this is, block
//!   plan.json                   what is in force: the plan, and the release of the application files
//!   secrets.json                generated passwords; the owner's alone
//!   tokens.json  applied.json   on real machines: tokens that were given; the site file that was applied here last
//!   revoked.json                the keys of machines that have left
//!   authority/  operator/       the internal authority, and the identity that commands show
//!   releases/                   copies of the application files, when servers run under other accounts
//!   machines/beta/              agent.json, link.sock, certificate, logs/, servers/web-1/
//! ```

mod account;
mod folder;
mod home;
mod release;
mod secret_store;

pub use account::Account;
pub use folder::MachineFolder;
pub use home::{Home, OpenError};
pub use release::{Release, ReleaseStore, beside_binary};
pub use secret_store::{for_role as secrets_needed, variables as secret_variables};

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use link::Secrets;
use link::api::Fingerprint;
use link::disk::{self, Access};
use plan::{Plan, Role};
use serde::{Deserialize, Serialize};

/// The shape of the state folder. A folder of another format is left alone, with a message.
pub const FORMAT: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("another dolmen holds {}", .0.display())]
    Locked(PathBuf),
    #[error("cannot make the account {name}: {because}")]
    Account { name: String, because: String },
    #[error("cannot copy {} as a release: {error}", path.display())]
    Release { path: PathBuf, error: io::Error },
    #[error("the secret {name} is not there: {because}")]
    Secret { name: String, because: String },
    #[error("the state folder has no plan; `dolmen up` makes one")]
    NoPlan,
    #[error("the plan in the state folder has format {0}, this dolmen reads {format}", format = plan::FORMAT)]
    PlanFormat(u32),
    #[error(transparent)]
    Authority(#[from] link::api::AuthorityError),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// `site.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    pub format: u32,
    pub site: String,
    /// The folder of the site file that this state belongs to.
    pub home: PathBuf,
    /// N of the addresses 127.0.N.1, …
    pub block: u8,
    /// The machine that this computer is; None on `up`, where it is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Whether the site began on this machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub founder: bool,
}

/// `applied.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Applied {
    generation: u64,
}

/// `plan.json`: all that servers work by, in one file, so that whoever is killed at whatever moment finds a plan
/// together with the files that it is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InForce {
    #[serde(flatten)]
    pub plan: Plan,
    /// Absent in the files of earlier versions, which then look changed.
    #[serde(default)]
    pub release: Release,
}

impl InForce {
    /// Whether servers would do the same by both.
    pub fn is_same_as(&self, other: &InForce) -> bool {
        self.release == other.release && plan::same_meaning(&self.plan, &other.plan)
    }
}

/// An open state folder.
#[derive(Clone, Debug)]
pub struct State {
    root: PathBuf,
    about: About,
}

impl State {
    /// Reads the state folder at this path.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        let path = root.join("site.json");
        let about: Option<About> =
            disk::read_json(&path).map_err(|error| StateError::File { path: path.clone(), error })?;
        let absent = || StateError::File { path, error: io::ErrorKind::NotFound.into() };
        Ok(Self { root: root.to_owned(), about: about.ok_or_else(absent)? })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn about(&self) -> &About {
        &self.about
    }

    pub fn plan(&self) -> Result<Plan, StateError> {
        Ok(self.in_force()?.plan)
    }

    pub fn in_force(&self) -> Result<InForce, StateError> {
        let path = self.root.join("plan.json");
        let found: Option<InForce> =
            disk::read_json(&path).map_err(|error| StateError::File { path, error })?;
        let found = found.ok_or(StateError::NoPlan)?;
        if found.plan.format == plan::FORMAT {
            Ok(found)
        } else {
            Err(StateError::PlanFormat(found.plan.format))
        }
    }

    /// From now on this is what agents and servers go by when they start; those that run are to be told.
    pub fn put_in_force(&self, new: &InForce, secrets: &Secrets) -> Result<(), StateError> {
        if self.all_secrets()? != *secrets {
            secret_store::put(&self.root, secrets)?;
        }
        Ok(disk::replace_json(&self.root.join("plan.json"), new, Access::Everyone)?)
    }

    /// When `plan.json` was replaced: another value than before says that it was.
    pub fn stamp(&self) -> io::Result<(u64, i64, i64)> {
        let meta = std::fs::metadata(self.root.join("plan.json"))?;
        Ok((meta.ino(), meta.mtime(), meta.mtime_nsec()))
    }

    /// None while another command changes what is in force.
    pub fn lock_changes(&self) -> io::Result<Option<Lock>> {
        Lock::take(&self.root.join("reload"))
    }

    /// The process of `up`, for `dolmen upgrade`.
    pub fn up_record(&self) -> PathBuf {
        self.root.join("up.json")
    }

    /// While this file is there, `up` starts no agent, and ends when none is left.
    pub fn stop_mark(&self) -> PathBuf {
        self.root.join("stop")
    }

    pub fn machine(&self, name: &str) -> MachineFolder {
        MachineFolder::new(self.root.join("machines").join(name))
    }

    /// The identity that commands show to agents.
    pub fn operator(&self) -> PathBuf {
        self.root.join("operator")
    }

    /// The identity for commands on this computer: the operator's, or on a machine that does not keep the
    /// authority its own, which may look but gives no orders.
    pub fn identity(&self) -> PathBuf {
        match &self.about.machine {
            Some(machine) if !self.operator().join("agent.crt").exists() => {
                self.machine(machine).path().to_owned()
            }
            _ => self.operator(),
        }
    }

    /// Where the authority's key is, on machines that keep it.
    pub fn authority(&self) -> PathBuf {
        self.root.join("authority")
    }

    pub fn make_authority(&self) -> io::Result<PathBuf> {
        folder::private(&self.authority())
    }

    pub fn make_operator(&self) -> io::Result<PathBuf> {
        folder::private(&self.operator())
    }

    pub fn releases(&self) -> ReleaseStore {
        ReleaseStore::new(&self.root)
    }

    /// The state of the site of this name on this computer, if it is a machine of it.
    pub fn of_system(site: &str) -> Result<Option<Self>, OpenError> {
        home::of_system(site)
    }

    /// The state folder of a site that this computer joins.
    pub fn for_joining(site: &str) -> Result<Self, OpenError> {
        home::for_joining(site)
    }

    /// This computer is this machine, once it is written down.
    pub fn become_machine(&mut self, machine: &str, founder: bool) {
        self.about.machine = Some(machine.to_owned());
        self.about.founder = founder;
    }

    /// The same state, with the application files of another folder.
    pub fn with_home(&self, home: &Path) -> Self {
        let about = About { home: home.to_owned(), ..self.about.clone() };
        Self { root: self.root.clone(), about }
    }

    pub fn make_accounts(&self) -> Result<(), StateError> {
        if account::is_root() { account::make_all() } else { Ok(()) }
    }

    /// The lock of whoever runs the site here.
    pub fn lock(&self) -> Result<Lock, StateError> {
        let path = self.root.join("lock");
        Lock::take(&path)?.ok_or(StateError::Locked(path))
    }

    /// The generation of the site file that was last applied on this machine.
    pub fn applied(&self) -> io::Result<Option<u64>> {
        let applied: Option<Applied> = disk::read_json(&self.root.join("applied.json"))?;
        Ok(applied.map(|applied| applied.generation))
    }

    pub fn note_applied(&self, generation: u64) -> Result<(), StateError> {
        Ok(disk::replace_json(&self.root.join("applied.json"), &Applied { generation }, Access::Everyone)?)
    }

    /// The keys of machines that have left, as far as this machine has heard; it never forgets one.
    pub fn revoked(&self) -> io::Result<Vec<Fingerprint>> {
        Ok(disk::read_json(&self.root.join("revoked.json"))?.unwrap_or_default())
    }

    /// Remembers these keys too; false when all of them were known.
    pub fn note_revoked(&self, keys: &[Fingerprint]) -> io::Result<bool> {
        let mut all = self.revoked()?;
        let known = all.len();
        all.extend(keys);
        all.sort_unstable();
        all.dedup();
        if all.len() == known {
            return Ok(false);
        }
        disk::replace_json(&self.root.join("revoked.json"), &all, Access::Everyone)?;
        Ok(true)
    }

    /// The secrets that this machine knows, which are those of the plan in force.
    pub fn all_secrets(&self) -> io::Result<Secrets> {
        secret_store::all(&self.root)
    }

    /// The account that servers of this role run under; none when we are not root, and all are ours.
    pub fn account(&self, role: Role) -> Option<Account> {
        account::of(role)
    }

    /// Lets all accounts connect to the link. Who they are, its other end finds out from the kernel.
    pub fn open_link(&self, socket: &Path) -> io::Result<()> {
        let mode = if account::is_root() { 0o666 } else { 0o600 };
        std::fs::set_permissions(socket, Permissions::from_mode(mode))
    }

    /// What servers of this role need to know, and no more.
    pub fn secrets_for(&self, role: Role) -> io::Result<Secrets> {
        Ok(secret_store::for_role(&self.all_secrets()?, role))
    }

    /// Makes everything that the plan's servers need before they start: accounts, the application files
    /// within their reach, certificates, folders. What is there is kept. The secrets are for [`State::put_in_force`].
    /// `old`: what is in force. `runs`: whether that runs now, with values that whoever calls this need not have.
    pub fn prepare(
        &self,
        plan: &Plan,
        old: Option<&InForce>,
        runs: bool,
    ) -> Result<(Release, Secrets), StateError> {
        let release = if account::is_root() {
            account::make_all()?;
            release::make(&self.root, &self.about.home, plan, old.map(|old| &old.release))?
        } else {
            let programs = release::beside_binary()?;
            Release { number: None, files: self.about.home.clone(), programs }
        };
        if self.about.machine.is_none() {
            self.write_about()?;
        }
        let running = old.filter(|_| runs).map(|old| &old.plan);
        let secrets = secret_store::make(&self.root, &self.about.home, plan, running)?;
        self.identify(plan)?;
        Ok((release, secrets))
    }

    /// Makes identities: on `up` those of all machines. A real machine makes only its own, once, where the
    /// authority is; all others make a key themselves, and join.
    fn identify(&self, plan: &Plan) -> Result<(), StateError> {
        let Some(me) = &self.about.machine else {
            let authority = link::api::Authority::open(&self.make_authority()?)?;
            authority.issue(link::api::OPERATOR, &self.make_operator()?)?;
            for machine in &plan.machines {
                let folder = self.machine(&machine.name);
                folder.make()?;
                authority.issue(&machine.name, folder.path())?;
            }
            return Ok(());
        };
        let folder = self.machine(me);
        folder.make()?;
        if self.about.founder && !self.operator().join("agent.crt").exists() {
            let authority = link::api::Authority::open(&self.make_authority()?)?;
            authority.issue(me, folder.path())?;
            authority.issue_beside(link::api::OPERATOR, folder.path(), &self.make_operator()?)?;
        }
        Ok(())
    }

    pub fn write_about(&self) -> Result<(), StateError> {
        Ok(disk::replace_json(&self.root.join("site.json"), &self.about, Access::Everyone)?)
    }
}

/// An exclusive lock that ends with the process, however it ends.
#[derive(Debug)]
pub struct Lock(File);

impl From<Lock> for OwnedFd {
    fn from(lock: Lock) -> Self {
        lock.0.into()
    }
}

impl Lock {
    /// None when another process holds it.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        // Whoever may open it may lock it.
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}
