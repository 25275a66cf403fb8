//! Who may be the next holder. The one change on which it hangs that nothing acknowledged is lost.

use super::{Group, Lsn, Mode, Phase, Position, Promotion, Refusal, SynchronousSet};

/// By which right a server takes over.
enum Right {
    /// It is the holder and has everything itself.
    Holder,
    /// The log was closed in order, and it has the end of it.
    Clean,
    /// It is the best of enough votes; and whether another member voted too.
    Votes { others: bool },
    /// The operator said so.
    Force,
}

impl Group {
    pub(super) fn take_over(
        &mut self,
        server: &str,
        boot: &str,
        position: Position,
        when_ms: u64,
        because: &str,
    ) -> Result<(), Refusal> {
        let right = self.right(server, position)?;
        let switch = self.leaves(server, position);
        self.synchronous = self.inherited(server, &right);
        // A recovered record may be older than the data of whom the operator forces.
        self.epoch = self.epoch.max(position.epoch) + 1;
        self.remember(Promotion {
            epoch: self.epoch,
            server: server.to_owned(),
            parent: position.epoch,
            timeline: None,
            switch,
            when_ms,
            because: because.to_owned(),
        });
        self.holder = server.to_owned();
        self.boot = boot.to_owned();
        self.seq += 1;
        self.state = Phase::Promoting;
        self.written = Some(position.lsn);
        self.handover = None;
        self.force = None;
        self.reinit.remove(server);
        self.ballot = None;
        Ok(())
    }

    /// Where what this server has leaves the history of `position.epoch`: at its end, but for promotions of it that
    /// were carried out as far as anybody knows, and not recorded.
    fn leaves(&self, server: &str, position: Position) -> Lsn {
        let unrecorded = |promotion: &&Promotion| {
            promotion.server == server && promotion.parent == position.epoch && promotion.timeline.is_none()
        };
        let earlier = self.history.iter().filter(unrecorded).map(|promotion| promotion.switch);
        earlier.fold(position.lsn, Lsn::min)
    }

    fn right(&self, server: &str, position: Position) -> Result<Right, Refusal> {
        if self.force.as_deref() == Some(server) {
            return Ok(Right::Force);
        }
        if self.holder == server {
            self.has_its_epoch(server, position)?;
            return Ok(Right::Holder);
        }
        if self.paused {
            return Err(Refusal::Paused);
        }
        match &self.state {
            Phase::Released { clean: Some(end), .. } if position.contains(end) => Ok(Right::Clean),
            _ => self.elected(server, position),
        }
    }

    fn elected(&self, server: &str, position: Position) -> Result<Right, Refusal> {
        self.is_member(server)?;
        let ballot = self.ballot.as_ref().ok_or(Refusal::NoBallot)?;
        if ballot.votes.get(server).is_none_or(|vote| vote.position != position) {
            return Err(Refusal::NotVoted { server: server.to_owned() });
        }
        let others =
            ballot.votes.keys().filter(|name| *name != server && self.synchronous.members.contains(*name));
        let others = others.count();
        let quorum = self.synchronous.quorum();
        if others + 1 < quorum {
            return Err(Refusal::NoQuorum { votes: others + 1, quorum });
        }
        if self.best_vote().is_some_and(|best| !position.contains(&best)) {
            let (epoch, lsn) = (position.epoch, position.lsn);
            return Err(Refusal::Behind { server: server.to_owned(), epoch, lsn });
        }
        self.within_lag(server, position)?;
        Ok(Right::Votes { others: others > 0 })
    }

    /// On asynchronous sites votes prove nothing; there the lag limit bounds what is lost.
    fn within_lag(&self, server: &str, position: Position) -> Result<(), Refusal> {
        let Mode::Asynchronous { max_lag_bytes } = self.synchronous.mode else { return Ok(()) };
        self.has_its_epoch(server, position)?;
        match self.written {
            Some(written) if written.0.saturating_sub(position.lsn.0) > max_lag_bytes => {
                Err(Refusal::TooFarBehind { server: server.to_owned(), lsn: position.lsn, written })
            }
            _ => Ok(()),
        }
    }

    /// Whether the data reaches into the last epoch that was promoted at all.
    fn has_its_epoch(&self, server: &str, position: Position) -> Result<(), Refusal> {
        let promoted = self.ancestry(self.epoch).find(|promotion| promotion.timeline.is_some());
        let expected = promoted.map_or(0, |promotion| promotion.epoch);
        if position.epoch >= expected {
            Ok(())
        } else {
            Err(Refusal::DataOfEpoch { server: server.to_owned(), is: position.epoch, expected })
        }
    }

    /// The set that the new holder begins with: every quorum of it has all that was ever acknowledged.
    ///
    /// The old holder has everything, so it may take the new one's place in the set. Where no other member is
    /// there to wait for, the new one goes on alone, if the site allows that: then it is the only one that has
    /// everything, and the record says so. Never: only those who voted, as one of them may have nothing yet.
    fn inherited(&self, server: &str, right: &Right) -> SynchronousSet {
        let mut set = self.synchronous.clone();
        set.generation += 1;
        if matches!(right, Right::Holder) {
            return set;
        }
        let asynchronous = matches!(set.mode, Mode::Asynchronous { .. });
        // After a new beginning of control only the winner has everything for certain: the members are those who
        // had to vote, not those who acknowledged. On a strict site nobody has ever gone on alone.
        let company = match right {
            Right::Votes { others } => *others && !self.began_anew(),
            Right::Clean => set.members.iter().any(|name| name != server),
            Right::Holder | Right::Force => false,
        };
        set.members.remove(server);
        if asynchronous || ((company || set.mode == Mode::Strict) && !matches!(right, Right::Force)) {
            if !self.began_anew() {
                set.members.insert(self.holder.clone());
            }
            let members = set.members.len() as u32;
            set.wait_for = if asynchronous { 0 } else { set.wait_for.max(1).min(members) };
            return set;
        }
        SynchronousSet { members: Default::default(), wait_for: 0, ..set }
    }
}
