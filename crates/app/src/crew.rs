//! The workers of one plan, and how those of a later plan take their places without a gap.

use std::sync::Arc;
use std::time::Duration;

use link::board::SLOTS;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::life::Standing;
use crate::worker::{Leave, Site, Worker};

/// Two crews share the board while one replaces the other, each with a half of it.
pub(crate) const HALF: usize = SLOTS / 2;

/// See the head of this file. Its workers end with it.
pub(crate) struct Crew {
    pub(crate) site: Arc<Site>,
    /// By worker: how it is to leave, once it is.
    ends: Vec<watch::Sender<Option<Leave>>>,
    tasks: JoinSet<()>,
}

impl Crew {
    /// Without any worker yet.
    pub(crate) fn of(site: Site) -> Self {
        Self { site: Arc::new(site), ends: Vec::new(), tasks: JoinSet::new() }
    }

    pub(crate) fn start_all(&mut self) {
        (0..self.site.app.workers).for_each(|_| self.start_next());
    }

    /// Starts the next worker when those before it are ready, so that no more memory is taken at a time than for one
    /// beyond what is wanted.
    pub(crate) fn grow(&mut self) {
        let started = self.ends.len();
        let are_ready =
            self.site.standings.borrow().iter().take(started).all(|standing| *standing == Standing::Ready);
        if started < self.site.app.workers.into() && are_ready {
            self.start_next();
        }
    }

    /// Lets so many workers, the first ones, finish what they have.
    pub(crate) fn retire(&self, count: usize, within: Duration) {
        for end in self.ends.iter().take(count) {
            end.send_if_modified(|end| {
                let is_new = end.is_none();
                *end = end.or(Some(Leave::Retire(within)));
                is_new
            });
        }
    }

    /// Whether this slot of the board is for one of its workers.
    pub(crate) fn has(&self, slot: usize) -> bool {
        (self.site.base..self.site.base + self.ends.len()).contains(&slot)
    }

    fn start_next(&mut self) {
        let (end, ending) = watch::channel(None);
        self.tasks.spawn(Worker::new(Arc::clone(&self.site), self.ends.len(), ending).run());
        self.ends.push(end);
    }

    pub(crate) fn end_all(&self, within: Duration) {
        for end in &self.ends {
            end.send_replace(Some(Leave::Stop(within)));
        }
    }

    /// Whether all that were started have ended.
    pub(crate) fn is_gone(&mut self) -> bool {
        while let Some(ended) = self.tasks.try_join_next() {
            log(ended);
        }
        self.tasks.is_empty()
    }

    /// Waits until all that were started have ended.
    pub(crate) async fn gone(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            log(ended);
        }
    }

    /// Starts one worker after the other; each that is ready takes the place of one of `old`, which then finishes
    /// its requests. When the first does not become ready nothing of `old` was ended. Later ones have their time,
    /// and are tried again like any worker: the plan has shown that it works.
    pub(crate) async fn replace(&mut self, old: &Crew) -> Result<(), String> {
        let stop = Duration::from_millis(old.site.app.stop_ms);
        for number in 0..usize::from(self.site.app.workers) {
            self.start_next();
            let ready = self.ready(number).await;
            if number == 0 {
                ready?;
            } else if let Err(because) = ready {
                tracing::warn!("{because}");
            }
            if let Some(end) = old.ends.get(number) {
                end.send_replace(Some(Leave::Stop(stop)));
            }
        }
        for end in old.ends.iter().skip(self.ends.len()) {
            end.send_replace(Some(Leave::Stop(stop)));
        }
        Ok(())
    }

    /// Waits until this worker is ready, or says why it is not.
    async fn ready(&self, number: usize) -> Result<(), String> {
        let within = Duration::from_millis(self.site.app.start_ms);
        let mut standings = self.site.standings.subscribe();
        let settled = |all: &Vec<Standing>| !matches!(all[number], Standing::Starting);
        let standing = timeout(within, standings.wait_for(settled)).await;
        let standing = standing.ok().and_then(Result::ok).map(|all| all[number].clone());
        match standing {
            Some(Standing::Ready) => Ok(()),
            Some(Standing::Trouble(trouble)) => Err(format!("new worker {} {trouble}", number + 1)),
            Some(Standing::Starting | Standing::Gone) | None => {
                Err(format!("new worker {} was not ready within {} s", number + 1, within.as_secs()))
            }
        }
    }
}

fn log(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!("the task of a worker ended in a panic: {error}");
    }
}
