//! The web server: a file under the root is served, anything else is the application's.
//!
//! ```text
//! request ── place (which file would that be) ── file (open, beneath the root) ── answer (304, 206, 200)
//!              │ no such file, or another method
//!              └ apps (which app server, or straight which worker) ── relay (there and back)
//! ```
//!
//! Nothing outside the root can be named, whatever a path says or a link points to, and no dotfile is ever served.

mod answer;
mod apps;
mod file;
mod kind;
mod place;
mod range;
mod say;
mod serve;

use std::sync::Arc;
use std::time::Duration;

use link::board::{Board, Column};
use link::report::State;
use plan::Place;
use relay::{AccessLog, Alarm, Fleet, Serving, Settings, Stop};

use apps::Apps;
use file::Root;
use serve::Web;

/// How often counters are published.
const COUNT_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the plan has no [web] section for {0}")]
    NotPlanned(String),
    #[error("{0} was given no socket to listen on")]
    NoSocket(String),
    #[error("cannot open the folder of static files {folder}: {error}")]
    Root { folder: String, error: std::io::Error },
    #[error("a thread of the web server ended; see the log before this line")]
    Broken,
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
}

/// Serves until the agent says stop, then lets requests finish.
pub fn run(mut start: link::Start) -> Result<(), Error> {
    let Some(planned) = start.plan.web.clone() else { return Err(Error::NotPlanned(start.me.name)) };
    let listeners = start.sockets.tcp("http");
    if listeners.is_empty() {
        return Err(Error::NoSocket(start.me.name));
    }
    let root = match &planned.root {
        None => None,
        Some(root) => {
            let folder = start.files.join(root);
            let failed = |error| Error::Root { folder: folder.display().to_string(), error };
            Some(Arc::new(Root::open(&folder).map_err(failed)?))
        }
    };
    if let Some(board) = &start.board {
        board.reset(Column::Web);
    }
    relay::raise_descriptor_limit();
    let source = matches!(start.plan.place, Place::Up { .. }).then_some(start.me.address);
    let alarm = Alarm::default();
    let fleet = Arc::new(Fleet::new(planned.app, planned.check, source).alarming(alarm.clone()));
    let apps = Apps::new(&start.plan, &start.me, Arc::clone(&fleet), start.board.clone());
    let web = Web::new(root, apps);
    let stop = Stop::default();
    let access_log = match &planned.access_log {
        Some(planned) => Some(AccessLog::begin(planned, &start.me.name, &start.folder, listeners.len())?),
        None => None,
    };
    let settings =
        Settings::new(planned.timeouts).admitted(start.line.admission()).alarmed(alarm).logged(access_log);
    let serving = relay::serve(listeners, settings, stop.clone(), move |_| web.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let within = runtime.block_on(attend(&start, &fleet, &serving))?;
    start.line.report(State::Draining, format!("finishing requests within {} s", within.as_secs()));
    stop.drain(within);
    serving.wait();
    Ok(())
}

/// Watches the app servers and the workers, and says how things are, until the order to stop; then within what
/// time.
async fn attend(start: &link::Start, fleet: &Arc<Fleet>, serving: &Serving) -> Result<Duration, Error> {
    let mut checks = tokio::spawn(Arc::clone(fleet).watch());
    let mut ticks = tokio::time::interval(COUNT_EVERY);
    let mut seen = 0;
    let say = || {
        let (state, because) = say::state(start, fleet, start.board.as_ref().map_or(0, Board::ready));
        start.line.report(state, because);
    };
    let stopped = start.line.stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            within = &mut stopped => return Ok(within),
            () = fleet.changed(&mut seen) => say(),
            _ = ticks.tick() => {
                start.line.count(serving.totals());
                // Workers come and go without a word to us: the board is looked at.
                say();
                if serving.is_broken() {
                    return Err(Error::Broken);
                }
            }
            ended = &mut checks => {
                tracing::error!("the checks ended: {ended:?}");
                return Err(Error::Broken);
            }
        }
    }
}
