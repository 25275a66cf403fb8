//! The guarded changes. Deterministic: no clock, no input or output.

use super::{Ballot, Command, Group, Handover, Lsn, Mode, Phase, Position, Refusal, SynchronousSet, Vote};

impl Group {
    /// The record after the command, or why it must not be.
    pub fn apply(&self, command: &Command) -> Result<Group, Refusal> {
        let mut next = self.clone();
        match command {
            Command::Renew { epoch, boot, written } => next.renew(*epoch, boot, *written),
            Command::Release { epoch, server, prefer, clean } => {
                next.release(*epoch, server, prefer.clone(), *clean)
            }
            Command::OpenBallot { server, epoch, seq } => next.open_ballot(server, *epoch, *seq),
            Command::Vote { server, boot, position } => next.vote(server, boot, *position),
            Command::TakeOver { server, boot, position, lease_ms, when_ms, because } => {
                next.take_over(server, boot, *position, *when_ms, because)?;
                next.lease_ms = *lease_ms;
                Ok(())
            }
            Command::Promoted { epoch, boot, timeline, switch, system_identifier } => {
                next.promoted(*epoch, boot, *timeline, *switch, *system_identifier)
            }
            Command::Open { epoch, boot } => next.open(*epoch, boot),
            Command::Close { epoch, server } => next.close(*epoch, server),
            Command::SetSynchronous { epoch, boot, set } => next.set_synchronous(*epoch, boot, set),
            Command::BeginHandover { epoch, boot, to } => next.begin_handover(*epoch, boot, to),
            Command::AskHandover { to } => next.ask_handover(to.as_deref()),
            Command::RefuseHandover { epoch, boot, because } => next.refuse_handover(*epoch, boot, because),
            Command::BeginAnew { floor, servers } => next.begin_anew(*floor, servers),
            Command::Pause => next.pause(),
            Command::Resume => next.resume(),
            Command::Reinit { server } => next.reinit(server),
            Command::ReinitDone { server } => next.reinit_done(server),
            Command::ForceTakeOver { server } => next.force_take_over(server),
        }?;
        Ok(next)
    }

    /// What only the living holder may say. It cancels an election that is not decided: the voters go on
    /// following once they see that.
    fn by_holder(&mut self, epoch: u64, boot: &str) -> Result<(), Refusal> {
        self.in_epoch(epoch)?;
        if self.boot != boot {
            return Err(Refusal::OtherBoot { holder: self.holder.clone() });
        }
        if self.is_released() {
            return Err(Refusal::Released { holder: self.holder.clone() });
        }
        if self.is_decided() {
            return Err(Refusal::Decided { holder: self.holder.clone(), epoch: epoch + 1 });
        }
        self.ballot = None;
        self.seq += 1;
        Ok(())
    }

    fn in_epoch(&self, expected: u64) -> Result<(), Refusal> {
        if self.epoch == expected { Ok(()) } else { Err(Refusal::OtherEpoch { expected, is: self.epoch }) }
    }

    fn renew(&mut self, epoch: u64, boot: &str, written: Option<Lsn>) -> Result<(), Refusal> {
        self.by_holder(epoch, boot)?;
        self.written = written.or(self.written);
        Ok(())
    }

    fn release(
        &mut self,
        epoch: u64,
        server: &str,
        prefer: Option<String>,
        clean: Option<Position>,
    ) -> Result<(), Refusal> {
        self.in_epoch(epoch)?;
        self.is_holder(server)?;
        if self.is_released() {
            return Err(Refusal::Released { holder: self.holder.clone() });
        }
        self.seq += 1;
        self.state = Phase::Released { prefer, clean };
        Ok(())
    }

    fn open_ballot(&mut self, server: &str, epoch: u64, seq: u64) -> Result<(), Refusal> {
        self.in_epoch(epoch)?;
        if self.paused {
            return Err(Refusal::Paused);
        }
        if self.seq != seq {
            return Err(Refusal::Renewed { holder: self.holder.clone() });
        }
        if self.ballot.is_some() {
            return Err(Refusal::BallotOpen);
        }
        self.is_member(server)?;
        self.ballot = Some(Ballot { epoch: epoch + 1, votes: Default::default() });
        Ok(())
    }

    pub(super) fn is_member(&self, server: &str) -> Result<(), Refusal> {
        let members = &self.synchronous.members;
        if members.contains(server) {
            Ok(())
        } else if members.is_empty() {
            Err(Refusal::OnlyHolder { holder: self.holder.clone() })
        } else {
            Err(Refusal::NotMember { server: server.to_owned() })
        }
    }

    fn vote(&mut self, server: &str, boot: &str, position: Position) -> Result<(), Refusal> {
        self.is_member(server)?;
        let ballot = self.ballot.as_mut().ok_or(Refusal::NoBallot)?;
        let vote = Vote { position, boot: boot.to_owned() };
        if ballot.votes.get(server) == Some(&vote) {
            return Err(Refusal::VotedAlready { server: server.to_owned() });
        }
        ballot.votes.insert(server.to_owned(), vote);
        Ok(())
    }

    fn promoted(
        &mut self,
        epoch: u64,
        boot: &str,
        timeline: u32,
        switch: Lsn,
        system_identifier: u64,
    ) -> Result<(), Refusal> {
        self.by_holder(epoch, boot)?;
        match self.system_identifier {
            Some(expected) if expected != system_identifier => {
                return Err(Refusal::OtherCluster { expected, is: system_identifier });
            }
            _ => self.system_identifier = Some(system_identifier),
        }
        if let Some(promotion) = self.history.last_mut().filter(|promotion| promotion.epoch == epoch) {
            promotion.timeline = Some(timeline);
            // Whoever ends and is promoted again for one epoch begins two timelines, the first where it took over.
            promotion.switch = promotion.switch.min(switch);
        }
        Ok(())
    }

    fn open(&mut self, epoch: u64, boot: &str) -> Result<(), Refusal> {
        self.by_holder(epoch, boot)?;
        if self.promotion(epoch).is_none_or(|promotion| promotion.timeline.is_none()) {
            return Err(Refusal::NotPromoted { holder: self.holder.clone() });
        }
        self.state = Phase::Open;
        Ok(())
    }

    /// No sign of life, and no end of an election: it takes a right away and gives none.
    fn close(&mut self, epoch: u64, server: &str) -> Result<(), Refusal> {
        self.in_epoch(epoch)?;
        self.is_holder(server)?;
        if !self.is_open() {
            return Err(Refusal::NotOpen { holder: self.holder.clone(), what: "a restart in place" });
        }
        self.state = Phase::Promoting;
        Ok(())
    }

    fn is_holder(&self, server: &str) -> Result<(), Refusal> {
        if self.holder == server {
            return Ok(());
        }
        Err(Refusal::NotHolder { holder: self.holder.clone(), server: server.to_owned() })
    }

    fn set_synchronous(&mut self, epoch: u64, boot: &str, set: &SynchronousSet) -> Result<(), Refusal> {
        let expected = self.synchronous.generation + 1;
        if set.generation != expected {
            return Err(Refusal::OtherGeneration { expected, is: set.generation });
        }
        if set.members.contains(&self.holder) {
            return Err(Refusal::HolderAsMember { server: self.holder.clone() });
        }
        let members = set.members.len();
        let fits = match set.mode {
            Mode::Asynchronous { .. } => set.wait_for == 0,
            _ if members == 0 => set.wait_for == 0,
            _ => set.wait_for >= 1 && set.wait_for as usize <= members,
        };
        if !fits {
            return Err(Refusal::BadSet { members, wait_for: set.wait_for });
        }
        self.by_holder(epoch, boot)?;
        self.synchronous = set.clone();
        Ok(())
    }

    fn begin_handover(&mut self, epoch: u64, boot: &str, to: &str) -> Result<(), Refusal> {
        self.by_holder(epoch, boot)?;
        if self.state != Phase::Open {
            return Err(Refusal::NotOpen { holder: self.holder.clone(), what: "a handover" });
        }
        self.is_member(to)?;
        self.state = Phase::HandingOver;
        self.handover = Some(Handover { to: Some(to.to_owned()) });
        Ok(())
    }

    fn ask_handover(&mut self, to: Option<&str>) -> Result<(), Refusal> {
        if self.paused {
            return Err(Refusal::Paused);
        }
        if !self.is_open() {
            return Err(Refusal::NotOpen { holder: self.holder.clone(), what: "a handover" });
        }
        if self.handover.is_some() {
            return Err(Refusal::HandoverAsked { holder: self.holder.clone() });
        }
        match to {
            Some(server) if server == self.holder => Err(Refusal::IsPrimary { server: server.to_owned() }),
            Some(server) => self.is_member(server),
            None if self.synchronous.members.is_empty() => {
                Err(Refusal::OnlyHolder { holder: self.holder.clone() })
            }
            None => Ok(()),
        }?;
        self.handover = Some(Handover { to: to.map(str::to_owned) });
        self.refused = None;
        Ok(())
    }

    fn refuse_handover(&mut self, epoch: u64, boot: &str, because: &str) -> Result<(), Refusal> {
        self.by_holder(epoch, boot)?;
        self.handover.take().ok_or(Refusal::NoHandover)?;
        self.refused = Some(because.to_owned());
        Ok(())
    }

    /// An election that is not decided ends with it: its voters follow the holder again.
    fn pause(&mut self) -> Result<(), Refusal> {
        if !self.is_open() || self.is_decided() {
            return Err(Refusal::NotOpen { holder: self.holder.clone(), what: "a pause" });
        }
        self.paused = true;
        self.ballot = None;
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Refusal> {
        self.paused = false;
        Ok(())
    }

    fn reinit(&mut self, server: &str) -> Result<(), Refusal> {
        if server == self.holder {
            return Err(Refusal::IsPrimary { server: server.to_owned() });
        }
        self.reinit.insert(server.to_owned());
        Ok(())
    }

    fn reinit_done(&mut self, server: &str) -> Result<(), Refusal> {
        self.reinit.remove(server);
        Ok(())
    }

    fn force_take_over(&mut self, server: &str) -> Result<(), Refusal> {
        if server == self.holder && !self.is_released() {
            return Err(Refusal::IsPrimary { server: server.to_owned() });
        }
        self.force = Some(server.to_owned());
        Ok(())
    }
}
