//! What a server is given when it begins.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plan::{Plan, Role, Server};

use crate::board::Board;
use crate::line::{self, Down, Keeper, Line, Up, VERSION, Welcome};
use crate::{Secrets, frame, short_path};

/// Everything a server knows of the world outside its own process.
#[derive(Debug)]
pub struct Start {
    pub me: Server,
    pub plan: Arc<Plan>,
    /// The server's own folder: it may write there, and finds it again after a restart.
    pub folder: PathBuf,
    /// The application files of the release in force; `[web] root` and `[app] command` are sought here.
    pub files: PathBuf,
    /// Where programs beside the dolmen binary are sought.
    pub programs: PathBuf,
    pub sockets: Sockets,
    /// The ready workers of the app server on this machine, for that server and for the web server.
    pub board: Option<Board>,
    pub secrets: Secrets,
    /// Whether this process takes over from one that still serves, and that goes on with what it began.
    pub succeeds: bool,
    pub line: Line,
}

/// The listening sockets that the agent opened, by the name in the plan.
#[derive(Debug, Default)]
pub struct Sockets(BTreeMap<String, Vec<OwnedFd>>);

impl Sockets {
    /// The listeners of this name, one for each thread; they are non-blocking.
    pub fn tcp(&mut self, name: &str) -> Vec<TcpListener> {
        self.0.remove(name).unwrap_or_default().into_iter().map(TcpListener::from).collect()
    }

    pub fn udp(&mut self, name: &str) -> Vec<UdpSocket> {
        self.0.remove(name).unwrap_or_default().into_iter().map(UdpSocket::from).collect()
    }

    /// For tests that start a server without an agent.
    pub fn insert(&mut self, name: &str, socket: impl Into<OwnedFd>) {
        self.0.entry(name.to_owned()).or_default().push(socket.into());
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot reach the agent at {}: {error}", socket.display())]
    Agent { socket: PathBuf, error: frame::FrameError },
    #[error("the agent answered with something else than a welcome")]
    NoWelcome,
    #[error("the plan has no server {0}")]
    NotInPlan(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Start {
    /// Says hello to the agent and takes what it gives.
    pub fn connect(socket: &Path, server: &str) -> Result<Self, StartError> {
        let agent = |error| StartError::Agent { socket: socket.to_owned(), error };
        let stream = short_path::connect(socket).map_err(|error| agent(error.into()))?;
        let hello =
            Up::Hello { version: VERSION, server: server.to_owned(), again: false, holds: Vec::new() };
        frame::send(&stream, &hello, &[] as &[OwnedFd]).map_err(agent)?;
        let (down, descriptors) = frame::receive::<Down>(&stream).map_err(agent)?;
        let Down::Welcome(welcome) = down else { return Err(StartError::NoWelcome) };
        let holds: Vec<_> = welcome.holds.iter().cloned().zip(descriptors).collect();
        let keeper = Keeper {
            server: server.to_owned(),
            socket: socket.to_owned(),
            adapts: welcome.given.plan.server(server).is_some_and(|me| adapts(me.role)),
            holds: duplicate(&holds)?,
        };
        Self::from_welcome(*welcome, holds, line::keep(keeper, stream)?)
    }

    fn from_welcome(welcome: Welcome, holds: Vec<(String, OwnedFd)>, line: Line) -> Result<Self, StartError> {
        let me = welcome.given.plan.server(&welcome.server).cloned();
        let me = me.ok_or(StartError::NotInPlan(welcome.server))?;
        let mut sockets = Sockets::default();
        let mut board = None;
        for (name, descriptor) in holds {
            if name == Board::NAME {
                board = Some(Board::open(descriptor)?);
            } else {
                sockets.insert(&name, descriptor);
            }
        }
        Ok(Self {
            me,
            plan: Arc::new(welcome.given.plan),
            folder: welcome.folder,
            files: welcome.given.files,
            programs: welcome.given.programs,
            sockets,
            board,
            secrets: welcome.given.secrets,
            succeeds: welcome.succeeds,
            line,
        })
    }
}

/// Whether servers of this role carry out a later plan by themselves. What the others work by is not changed while
/// they run.
fn adapts(role: Role) -> bool {
    matches!(role, Role::Dns | Role::Balancer | Role::Web | Role::App)
}

fn duplicate(holds: &[(String, OwnedFd)]) -> std::io::Result<Vec<(String, OwnedFd)>> {
    holds
        .iter()
        .map(|(name, descriptor)| Ok((name.clone(), descriptor.as_fd().try_clone_to_owned()?)))
        .collect()
}
