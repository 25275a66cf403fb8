//! Looking: everything that a decision depends on, gathered at one moment, and the report of it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use link::report::{AgreedReport, DatabaseReport, FailoverReport, ReplicaReport};

use crate::failover::{Answer, AsPrimary, Data, Postgres, Record, Replica, Seen, Upstream};
use crate::folder::Folder;
use crate::group::{Group, Lsn};
use crate::manager::{Manager, Running};
use crate::session::{QUESTION, Session, SessionError};
use crate::{leftover, log_file, observe, upstream};

impl Manager {
    pub(super) async fn look(&mut self) -> Seen {
        self.view.refresh().await;
        self.notice_end();
        let postgres = self.look_at_postgres().await;
        if self.data.is_none() {
            self.data = Some(observe::data(&self.folder.data(), &self.installed).await);
        }
        Seen {
            me: self.place.me.clone(),
            boot: self.boot.clone(),
            servers: self.place.servers.iter().map(|(name, _)| name.clone()).collect(),
            mode: self.place.mode,
            timings: self.place.timings,
            record: self.view.record(),
            in_touch: self.view.in_touch() && self.holder.in_touch(),
            lease: self.holder.lease(),
            upstream: self.look_upstream(&postgres),
            postgres,
            data: self.data.clone().unwrap_or(Data::Absent),
            stamp: self.kept.stamp(),
            remembered: self.kept.remembered(),
            installed: self.installed.iter().map(|postgres| postgres.version.major).collect(),
            trouble: self.rest.trouble(Instant::now()),
            free_bytes: free_bytes(&self.folder),
            orders: self.orders,
            failovers: self.view.failovers(),
            wall_ms: wall_ms(),
        }
    }

    /// A postgres that has ended is a failure, whatever ended it, unless we did.
    fn notice_end(&mut self) {
        let Some(running) = &mut self.postgres else { return };
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

    /// Dropping the guard ends what is left.
    pub(crate) fn forget_postgres(&mut self) {
        self.postgres = None;
        self.forget_session();
        self.data = None;
    }

    pub(crate) fn forget_session(&mut self) {
        self.session = None;
    }

    /// The manager's own connection, made when there is none.
    pub(crate) async fn session(&mut self) -> Result<&Session, SessionError> {
        let session = match self.session.take() {
            Some(session) if !session.client.is_closed() => session,
            _ => Session::open(&self.folder, self.place.listen.port(), QUESTION).await?,
        };
        Ok(self.session.insert(session))
    }

    async fn look_at_postgres(&mut self) -> Postgres {
        if self.postgres.is_none() {
            // What cannot be looked at is looked at again by the action that needs it, which then fails aloud.
            let leftovers = leftover::on(&self.folder.data()).map_or(0, |found| found.len());
            return Postgres::Stopped { leftovers };
        }
        if let Err(error) = log_file::shorten(&self.folder.log()) {
            tracing::debug!("the log of postgres cannot be shortened: {error}");
        }
        let answer = cut_off(self.end_of_postgres(), self.ask_postgres()).await;
        let answer = answer.unwrap_or(Err(SessionError::Ended)).map_err(|error| error.to_string());
        if answer.is_err() {
            // The next one begins with a clean connection.
            self.forget_session();
        }
        let Some(running) = &mut self.postgres else { return Postgres::Stopped { leftovers: 0 } };
        running.answered |= answer.is_ok();
        Postgres::Running {
            since: running.since.elapsed(),
            answered: running.answered,
            last_error: log_file::last_error(&self.folder.log(), running.log_from),
            answer,
        }
    }

    /// When our postgres ends, whatever is done with it meanwhile; never, when none runs.
    pub(crate) fn end_of_postgres(&self) -> impl Future<Output = ()> + use<> {
        let end = self.postgres.as_ref().map(|running| running.guard.end());
        async move {
            match end {
                Some(Ok(end)) => end.await,
                Some(Err(error)) => {
                    tracing::warn!("the end of postgres cannot be watched: {error}");
                    std::future::pending().await
                }
                None => std::future::pending().await,
            }
        }
    }

    async fn ask_postgres(&mut self) -> Result<Answer, SessionError> {
        let (data, others) = (self.folder.data(), self.place.others());
        let own = self.postgres.as_ref().map(|running| observe::Own {
            data: &data,
            others: &others,
            follows: running.wanted.follows.clone(),
            following_for: running.wanted.since.map_or(Duration::ZERO, |since| since.elapsed()),
            names_since: running.names_since.clone(),
            committed_epoch: running.epoch_commit.done(),
            committing: running.epoch_commit.under_way(),
            set_up: running.set_up,
            checkpointing: running.checkpoint.as_ref().is_some_and(|task| !task.is_finished()),
            heard: Arc::clone(&running.heard),
        });
        let Some(own) = own else { return Err(SessionError::Silent(Duration::ZERO)) };
        let session = self.session().await?;
        let mut answer = observe::answer(session, &own).await?;
        if let (Answer::Primary(primary), Some(running)) = (&mut answer, &mut self.postgres) {
            running.note(primary);
        }
        Ok(answer)
    }

    /// The holder, while this server has to copy it or does not hear from it.
    fn look_upstream(&mut self, postgres: &Postgres) -> Upstream {
        let streams = matches!(
            postgres,
            Postgres::Running { answer: Ok(Answer::Replica(replica)), .. } if replica.streaming
        );
        let primary = matches!(postgres, Postgres::Running { answer: Ok(Answer::Primary(_)), .. });
        let holder = self.view.group().map(|group| group.holder.clone());
        let reinit = self.view.group().is_some_and(|group| group.reinit.contains(&self.place.me));
        let needed = (!streams || reinit) && !primary;
        let other = holder.filter(|holder| *holder != self.place.me && needed);
        let address = other.and_then(|holder| self.place.address(&holder));
        match (address, self.start.secrets.get("replication-password")) {
            (Some(address), Some(password)) => {
                let (me, from) = (&self.place.me, self.place.listen.ip());
                self.asker.answer(address, || upstream::ask(me.clone(), from, address, password.clone()))
            }
            _ => self.asker.forget(),
        }
    }

    /// The major version of the data that is here.
    pub(crate) async fn major(&mut self) -> Option<u32> {
        let data = observe::data(&self.folder.data(), &self.installed).await;
        if let Data::Present { major, .. } = data { Some(major) } else { None }
    }

    pub(super) fn report(&self, seen: &Seen) -> DatabaseReport {
        let fence = self.postgres.as_ref().and_then(|running| running.guard.fence());
        let fence = fence.map_or_else(String::new, |fence| fence.name().to_owned());
        let agreed = self.view.group().map(|group| Box::new(self.agreed(group)));
        let report = DatabaseReport { fence, agreed, ..DatabaseReport::default() };
        match &seen.postgres {
            Postgres::Running { answer: Ok(Answer::Primary(primary)), .. } => DatabaseReport {
                primary: true,
                timeline: primary.timeline,
                replicas: primary.replicas.iter().map(|replica| told(replica, primary)).collect(),
                ..report
            },
            Postgres::Running { answer: Ok(Answer::Replica(replica)), .. } => DatabaseReport {
                timeline: replica.timeline,
                streaming: replica.streaming,
                lag_bytes: replica.lag_bytes,
                ..report
            },
            _ => DatabaseReport { primary: self.is_holder(seen), timeline: timeline(&seen.data), ..report },
        }
    }

    fn agreed(&self, group: &Group) -> AgreedReport {
        let last = group.history.last().filter(|promotion| promotion.epoch > 1);
        AgreedReport {
            epoch: group.epoch,
            holder: group.holder.clone(),
            open: group.is_open(),
            lease_ms: self.place.timings.lease.as_millis() as u64,
            lease_left_ms: self.holder.lease().map(|lease| lease.left.as_millis() as u64),
            synchronous: group.synchronous.members.iter().cloned().collect(),
            paused: group.paused,
            last_failover: last.map(|promotion| FailoverReport {
                epoch: promotion.epoch,
                server: promotion.server.clone(),
                when_ms: promotion.when_ms,
                because: promotion.because.clone(),
            }),
        }
    }

    fn is_holder(&self, seen: &Seen) -> bool {
        matches!(&seen.record, Record::Known { group, .. } if group.holder == self.place.me && !group.is_released())
    }
}

impl Running {
    /// What is true of a primary only since a moment that this manager has seen.
    fn note(&mut self, primary: &mut AsPrimary) {
        for replica in &mut primary.replicas {
            if replica.streaming {
                self.away.remove(&replica.name);
            } else {
                let since = *self.away.entry(replica.name.clone()).or_insert_with(Instant::now);
                replica.away = since.elapsed();
            }
        }
        // Names that were in force before the promotion: no walsender is older than they are.
        if self.names_since.is_none() && primary.names == self.wanted.names {
            self.names_since = Some((primary.names.clone(), primary.written));
        }
        if primary.names_since.is_none() {
            let known = self.names_since.as_ref().filter(|(names, _)| *names == primary.names);
            primary.names_since = known.map(|(_, since)| *since);
        }
    }
}

/// Work with a postgres, unless that ends first: a process that is left of it may never answer.
pub(crate) async fn cut_off<T>(end: impl Future<Output = ()>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = end => None,
    }
}

fn told(replica: &Replica, primary: &AsPrimary) -> ReplicaReport {
    let state = match replica {
        Replica { streaming: true, .. } => "streaming",
        Replica { copying: true, .. } => "backup",
        Replica { flushed: Lsn(0), .. } => "disconnected",
        _ => "catchup",
    };
    ReplicaReport {
        name: replica.name.clone(),
        state: state.into(),
        synchronous: replica.streaming && primary.names.members.contains(&replica.name),
        lag_bytes: replica.lag_bytes,
    }
}

fn timeline(data: &Data) -> u32 {
    if let Data::Present { timeline, .. } = data { *timeline } else { 0 }
}

/// Unknown counts as plenty: PostgreSQL itself says when it cannot write.
fn free_bytes(folder: &Folder) -> u64 {
    rustix::fs::statvfs(folder.root()).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// For people, never for decisions.
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
