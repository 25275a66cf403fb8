//! The log as openraft sees it: entries in memory for reading, and a thread that makes them durable.
//!
//! The thread writes all that has gathered while it was syncing as one frame, so that many proposals cost one
//! sync, and acknowledges only after it. Openraft asks for one change after another, so the order in the queue
//! is the order of the changes.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::{mpsc, oneshot};

use crate::journal::{Content, Journal, JournalError, Step};
use crate::types::{Entry, LogId, Types, Vote};

/// Changes that wait for the disk; openraft waits when there are more.
const QUEUE: usize = 256;

/// How many syncs are measured at the start.
const MEASURED: usize = 5;

/// The most changes in one frame.
const TOGETHER: usize = 64;

/// Clones share one log.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    content: Arc<Mutex<Content>>,
    writer: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    steps: Vec<Step>,
    /// Whether the steps are the whole content.
    whole: bool,
    done: Done,
}

enum Done {
    Flushed(IOFlushed<Types>),
    Reply(oneshot::Sender<io::Result<()>>),
}

impl Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Done")
    }
}

impl Done {
    fn say(self, result: io::Result<()>) {
        match self {
            Done::Flushed(flushed) => flushed.io_completed(result),
            // Who asked may be gone with the runtime.
            Done::Reply(reply) => drop(reply.send(result)),
        }
    }
}

impl Store {
    /// Opens the log and starts its thread, which ends with the last clone.
    pub(crate) fn open(path: &Path) -> Result<Self, JournalError> {
        let (journal, content) = Journal::open(path)?;
        let (writer, jobs) = mpsc::channel(QUEUE);
        let failed = |error| JournalError::Open { path: path.to_owned(), error };
        let thread = std::thread::Builder::new().name("log".into()).stack_size(256 * 1024);
        thread.spawn(move || write(journal, jobs)).map_err(failed)?;
        Ok(Self { content: Arc::new(Mutex::new(content)), writer })
    }

    /// How long one sync takes, measured by writing the vote again: the middle of a few, since the first finds
    /// much to do.
    pub(crate) async fn measure(&self) -> io::Result<Duration> {
        let vote = self.content().vote;
        let mut took = [Duration::ZERO; MEASURED];
        for took in &mut took {
            let begin = Instant::now();
            self.make(vote.map(Step::Vote).into_iter().collect()).await?;
            *took = begin.elapsed();
        }
        took.sort_unstable();
        Ok(took[MEASURED / 2])
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.content().last()
    }

    /// What is in the log now.
    pub(crate) fn copy(&self) -> Content {
        self.content().clone()
    }

    async fn make(&self, steps: Vec<Step>) -> io::Result<()> {
        self.make_all(steps, false).await
    }

    async fn make_all(&self, steps: Vec<Step>, whole: bool) -> io::Result<()> {
        let (reply, made) = oneshot::channel();
        self.send(Job { steps, whole, done: Done::Reply(reply) }).await?;
        made.await.map_err(io::Error::other)?
    }

    async fn send(&self, job: Job) -> io::Result<()> {
        self.writer.send(job).await.map_err(|_| io::Error::other("the thread of the log has ended"))
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The thread.
fn write(mut journal: Journal, mut jobs: mpsc::Receiver<Job>) {
    let mut next = None;
    while let Some(job) = next.take().or_else(|| jobs.blocking_recv()) {
        if job.whole {
            job.done.say(journal.rewrite(&job.steps));
            continue;
        }
        let (mut steps, mut done) = (job.steps, vec![job.done]);
        while done.len() < TOGETHER
            && let Ok(job) = jobs.try_recv()
        {
            if job.whole {
                next = Some(job);
                break;
            }
            steps.extend(job.steps);
            done.push(job.done);
        }
        let result = journal.write(&steps);
        if let Err(error) = &result {
            tracing::error!("cannot write the log: {error}");
        }
        for done in done {
            done.say(match &result {
                Ok(()) => Ok(()),
                // An io::Error cannot be cloned.
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
    }
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let content = self.content();
        Ok(content.entries.iter().filter(|entry| range.contains(&entry.log_id.index)).cloned().collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.content().vote)
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let content = self.content();
        Ok(LogState { last_purged_log_id: content.purged, last_log_id: content.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.make(vec![Step::Vote(*vote)]).await?;
        self.content().apply(Step::Vote(*vote));
        Ok(())
    }

    /// The entries can be read when this returns; they are durable when the callback is called.
    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let step = Step::Append(entries.into_iter().collect());
        self.content().apply(step.clone());
        self.send(Job { steps: vec![step], whole: false, done: Done::Flushed(callback) }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let step = Step::TruncateAfter(last.map(|last| last.index));
        self.content().apply(step.clone());
        self.make(vec![step]).await
    }

    /// Purging is also when the file is written anew, without what it no longer needs.
    async fn purge(&mut self, last: LogId) -> Result<(), io::Error> {
        let steps = {
            let mut content = self.content();
            content.apply(Step::Purge(last));
            content.steps()
        };
        self.make_all(steps, true).await
    }
}
