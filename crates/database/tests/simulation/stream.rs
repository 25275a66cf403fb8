//! Replication, clients, and what is acknowledged: here the promises are checked.

use std::collections::VecDeque;

use super::postgres::{Entry, Heard, Receiver, Role, Standby};
use super::world::{Event, MACHINES, MS, SECOND, World, name};

/// A connection that hears nothing for this long is over (wal_sender_timeout, wal_receiver_timeout).
const SILENCE_LIMIT: u64 = 5 * SECOND;
/// Entries sent at once.
const BATCH: usize = 64;

impl World {
    pub fn begin_session(&mut self, node: usize, from: usize, from_process: u64) {
        self.processes += 1;
        let session = self.processes;
        let sent = self.nodes[node].disk.log.len();
        let Some(Role::Standby(standby)) =
            self.nodes[node].postgres.as_mut().map(|process| &mut process.role)
        else {
            return;
        };
        let arrives = self.now;
        standby.receiver = Some(Receiver { session, from, from_process, sent, arrives, ending: false });
        self.say(|| format!("{} streams from {} at {sent}", name(node), name(from)));
        self.reply_later(node);
        self.at(self.now, Event::Stream(node, session));
        self.look_soon(node, MS);
    }

    fn receiver(&mut self, node: usize, session: u64) -> Option<&mut Receiver> {
        match &mut self.nodes[node].postgres.as_mut()?.role {
            Role::Standby(Standby { receiver: Some(receiver), .. }) if receiver.session == session => {
                Some(receiver)
            }
            _ => None,
        }
    }

    /// The walsender's turn for this standby.
    pub fn stream(&mut self, node: usize, session: u64) {
        let Some(receiver) = self.receiver(node, session).map(|receiver| receiver.clone()) else { return };
        let from = receiver.from;
        let lives =
            self.nodes[from].postgres.as_ref().is_some_and(|process| process.id == receiver.from_process);
        let silent = self.now.saturating_sub(receiver.arrives) > SILENCE_LIMIT;
        if (!lives && self.linked(from, node)) || silent || !self.nodes[node].powered {
            return self.lose_session(node, session);
        }
        if lives && self.linked(from, node) && !self.nodes[from].postgres_frozen() {
            let log = &self.nodes[from].disk.log;
            // Only what is flushed is sent.
            let end =
                self.nodes[from].disk.flushed.min(receiver.sent + BATCH).max(receiver.sent).min(log.len());
            let entries: Vec<Entry> = log[receiver.sent.min(end)..end].to_vec();
            let arrives = (self.now + self.delay()).max(receiver.arrives);
            if let Some(receiver) = self.receiver(node, session) {
                (receiver.sent, receiver.arrives) = (end, arrives);
            }
            self.at(arrives, Event::Deliver(node, session, receiver.sent, entries));
        }
        self.within(15 * MS, 25 * MS, Event::Stream(node, session));
    }

    fn lose_session(&mut self, node: usize, session: u64) {
        let clock = self.nodes[node].clock(self.now);
        let Some(process) = &mut self.nodes[node].postgres else { return };
        let id = process.id;
        if let Role::Standby(standby) = &mut process.role
            && standby.receiver.as_ref().is_some_and(|receiver| receiver.session == session)
        {
            (standby.receiver, standby.waits_since) = (None, clock);
            self.within(90 * MS, 130 * MS, Event::Connect(node, id));
        }
    }

    pub fn deliver(&mut self, node: usize, session: u64, at: usize, entries: Vec<Entry>) {
        if self.receiver(node, session).is_none() || self.nodes[node].disk.log.len() != at {
            return;
        }
        if self.nodes[node].disk_full > 0 && !entries.is_empty() {
            return self.end_postgres(node);
        }
        self.nodes[node].disk.log.extend(entries);
        if let Some(process) = self.nodes[node].postgres.as_ref().map(|process| process.id) {
            self.within(MS / 2, 4 * MS, Event::Flush(node, process));
        }
    }

    pub fn flush(&mut self, node: usize, process: u64) {
        let Some(it) = self.nodes[node].postgres.as_ref().filter(|it| it.id == process) else { return };
        let standby = matches!(it.role, Role::Standby(_));
        self.nodes[node].disk.flushed = self.nodes[node].disk.log.len();
        if standby { self.reply_later(node) } else { self.acknowledge(node) }
    }

    fn reply_later(&mut self, node: usize) {
        let end = self.nodes[node].disk.flushed as u64;
        let Some(Role::Standby(Standby { receiver: Some(receiver), .. })) =
            self.nodes[node].postgres.as_ref().map(|process| &process.role)
        else {
            return;
        };
        let (to, process, session) = (receiver.from, receiver.from_process, receiver.session);
        if self.linked(node, to) {
            let time = self.now + self.delay();
            self.at(time, Event::Reply(node, to, process, session, end));
        }
    }

    pub fn reply(&mut self, from: usize, to: usize, process: u64, session: u64, end: u64) {
        let now = self.now;
        let Some(it) = self.nodes[to].postgres.as_mut().filter(|it| it.id == process) else { return };
        let Role::Primary(primary) = &mut it.role else { return };
        let flushed = match primary.heard[from] {
            Some(heard) if heard.session > session => return,
            Some(heard) if heard.session == session => heard.flushed.max(end),
            _ => end,
        };
        primary.heard[from] = Some(Heard { session, flushed, at: now });
        self.acknowledge(to);
    }

    /// A client writes wherever it once was led to.
    pub fn write(&mut self, node: usize) {
        self.within(20 * MS, 60 * MS, Event::Write(node));
        if !self.nodes[node].powered || self.nodes[node].postgres_frozen() {
            return;
        }
        let Some(Role::Primary(primary)) = self.nodes[node].postgres.as_ref().map(|process| &process.role)
        else {
            return;
        };
        if !primary.open || primary.closing {
            return;
        }
        if self.nodes[node].disk_full > 0 {
            self.in_trouble(node, "postgres ended: no space left on device");
            return self.end_postgres(node);
        }
        let timeline = self.nodes[node].disk.timeline();
        let waiting = self.append(node, timeline);
        if let Some(Role::Primary(primary)) =
            self.nodes[node].postgres.as_mut().map(|process| &mut process.role)
        {
            primary.waiting.push_back(waiting);
        }
    }

    /// Tells clients of everything that is safe now.
    pub fn acknowledge(&mut self, node: usize) {
        let flushed = self.nodes[node].disk.flushed as u64;
        let Some(Role::Primary(primary)) =
            self.nodes[node].postgres.as_mut().map(|process| &mut process.role)
        else {
            return;
        };
        let end = primary.acknowledged(flushed);
        let count = primary.waiting.iter().take_while(|(at, _)| *at <= end).count();
        let told: VecDeque<(u64, u32)> = primary.waiting.drain(..count).collect();
        let epoch = primary.epoch;
        if primary.committing.is_some_and(|(_, at)| at <= end) {
            primary.committed = primary.committing.take().map(|(epoch, _)| epoch);
            self.look_soon(node, 0);
        }
        if told.is_empty() || !self.is_heard_by_clients(node, epoch) {
            return;
        }
        if epoch < self.acknowledged_epoch {
            let text = format!(
                "{} acknowledges in epoch {epoch} after epoch {} did",
                name(node),
                self.acknowledged_epoch
            );
            return self.violate(text);
        }
        if epoch > self.acknowledged_epoch {
            self.acknowledged_epoch = epoch;
            self.nothing_is_lost(node);
        }
        self.last_acknowledged = self.now;
        if self.now >= self.healed_at {
            self.opened_after_heal.get_or_insert(self.now);
        }
        self.acknowledged.extend(told);
    }

    /// Every acknowledged write stands where it stood.
    pub fn nothing_is_lost(&mut self, node: usize) {
        if matches!(self.mode, database::group::Mode::Asynchronous { .. }) {
            return;
        }
        let log = &self.nodes[node].disk.log;
        let lost = self
            .acknowledged
            .iter()
            .find(|(at, id)| log.get(*at as usize - 1).map(|entry| entry.id) != Some(*id));
        if let Some((at, _)) = lost {
            let text = format!("{} serves without the acknowledged write at {at}", name(node));
            self.violate(text);
        }
    }

    /// At the end all servers hold the same.
    pub fn all_follow(&mut self) {
        let primary = (0..MACHINES).find(|node| {
            matches!(self.nodes[*node].postgres.as_ref().map(|process| &process.role), Some(Role::Primary(_)))
        });
        let Some(primary) = primary else { return self.violate("there is no primary at the end".into()) };
        self.nothing_is_lost(primary);
        for node in (0..self.servers).filter(|node| *node != primary) {
            let of = &self.nodes[primary].disk;
            let behind = of.end().saturating_sub(self.nodes[node].disk.end());
            if behind > 20 || !super::postgres::is_beginning(of, &self.nodes[node].disk) {
                let text = format!("{} is {behind} entries behind {} at the end", name(node), name(primary));
                return self.violate(text);
            }
        }
    }
}
