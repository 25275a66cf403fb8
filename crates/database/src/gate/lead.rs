//! Who takes writes, as control says it: a pure function of the record, its age and the lease.
//!
//! A gate trusts the record only as long as it sees the holder renew it ([`super::trust`]). A gate that is cut off from
//! control may be on the same side as an old primary, which must not get another statement through us once its lease
//! may be over.

use std::time::Duration;

use crate::failover::lease::LEASE_DEFAULT;
use crate::group::{Group, Phase};

use super::trust;

/// What this gate has seen of the record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    /// The plan has no control.
    NoControl,
    /// Control has not answered yet.
    Nothing,
    /// Control answered, and there is none: the servers' own reports are all there is to go by.
    Absent,
    /// This one, and until when since boot it may be gone by; `None` while its holder was not seen to live.
    Group { group: Box<Group>, until: Option<Duration> },
    /// A record that this version cannot read.
    Unreadable(String),
}

impl Seen {
    /// Until when the record may be gone by; without one there is no such time.
    pub(crate) fn until(&self) -> Option<Duration> {
        match self {
            Self::Group { until, .. } => Some(until.unwrap_or_default()),
            Self::NoControl | Self::Nothing | Self::Absent | Self::Unreadable(_) => None,
        }
    }

    /// How long from now until the lease has run out, unless it is renewed; `None` when it has, or there is none.
    pub(crate) fn left(&self, now: Duration) -> Option<Duration> {
        self.until().map(|until| until.saturating_sub(now)).filter(|left| !left.is_zero())
    }

    /// How often control is asked for it.
    pub(crate) fn ask_every(&self) -> Duration {
        let lease = match self {
            Self::Group { group, .. } => group.lease(),
            Self::NoControl | Self::Nothing | Self::Absent | Self::Unreadable(_) => LEASE_DEFAULT,
        };
        trust::ask_every(lease)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lead {
    /// Control has no record, so the servers' reports decide.
    Unrecorded,
    /// This server, in this epoch.
    Open { server: String, epoch: u64 },
    /// Nobody does now, because of this.
    Nobody(String),
}

/// `now` counts since boot, as the time in `seen` does.
pub(crate) fn lead(seen: &Seen, now: Duration) -> Lead {
    let (group, until) = match seen {
        Seen::NoControl | Seen::Absent => return Lead::Unrecorded,
        Seen::Nothing => return Lead::Nobody("control has not said yet who the primary is".into()),
        Seen::Unreadable(why) => {
            return Lead::Nobody(format!("the record of the database cannot be read: {why}"));
        }
        Seen::Group { group, until } => (group, *until),
    };
    let Group { holder, epoch, .. } = &**group;
    let lives = until.is_some_and(|until| now < until);
    let why = match &group.state {
        Phase::Open if group.is_decided() => format!("the replicas elect a successor of {holder}"),
        Phase::Open if lives => return Lead::Open { server: holder.clone(), epoch: *epoch },
        Phase::Open if until.is_none() => format!("{holder} was not seen to renew its lease yet"),
        Phase::Open => {
            format!("{holder} was not seen to renew its lease for {} s", group.lease().as_secs_f64())
        }
        Phase::Promoting => format!("{holder} is being promoted"),
        Phase::HandingOver => format!("{holder} hands over"),
        Phase::Released { .. } if group.began_anew() => {
            "control began anew, and the database servers settle first who has most".to_owned()
        }
        Phase::Released { .. } => format!("{holder} gave up and nobody has taken over yet"),
    };
    Lead::Nobody(format!("{why} (epoch {epoch})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::{Ballot, Mode, Position, SynchronousSet, Vote};

    fn group(state: Phase) -> Group {
        let mut group = Group::create("database-1", "a", Some(1), Mode::Synchronous);
        (group.epoch, group.state) = (3, state);
        group
    }

    fn says(group: Group, age_ms: u64) -> Lead {
        let (at, now) = (Duration::from_secs(100), Duration::from_secs(100) + Duration::from_millis(age_ms));
        let until = Some(at + group.lease());
        lead(&Seen::Group { group: Box::new(group), until }, now)
    }

    #[test]
    fn only_an_open_holder_that_renews_its_lease_takes_writes() {
        let open = Lead::Open { server: "database-1".into(), epoch: 3 };
        assert_eq!(says(group(Phase::Open), 0), open);
        assert_eq!(says(group(Phase::Open), 2_999), open);
        let nobody = |lead: Lead, expect: &str| assert_eq!(lead, Lead::Nobody(expect.into()));
        nobody(
            says(group(Phase::Open), 3_000),
            "database-1 was not seen to renew its lease for 3 s (epoch 3)",
        );
        let begins = Seen::Group { group: Box::new(group(Phase::Open)), until: None };
        nobody(lead(&begins, Duration::ZERO), "database-1 was not seen to renew its lease yet (epoch 3)");
        nobody(says(group(Phase::Promoting), 0), "database-1 is being promoted (epoch 3)");
        nobody(says(group(Phase::HandingOver), 0), "database-1 hands over (epoch 3)");
        let released = Phase::Released { prefer: None, clean: None };
        nobody(says(group(released), 0), "database-1 gave up and nobody has taken over yet (epoch 3)");
    }

    #[test]
    fn an_election_counts_once_it_is_decided() {
        let mut voted = group(Phase::Open);
        let members = ["database-2".to_owned(), "database-3".to_owned()].into();
        voted.synchronous = SynchronousSet { mode: Mode::Synchronous, members, wait_for: 1, generation: 1 };
        let position = Position { epoch: 3, timeline: 1, lsn: crate::group::Lsn(7) };
        let vote = |name: &str| (name.to_owned(), Vote { position, boot: "b".into() });
        voted.ballot = Some(Ballot { epoch: 4, votes: [vote("database-2")].into() });
        assert_eq!(says(voted.clone(), 0), Lead::Open { server: "database-1".into(), epoch: 3 });
        voted.ballot = Some(Ballot { epoch: 4, votes: [vote("database-2"), vote("database-3")].into() });
        let why = "the replicas elect a successor of database-1 (epoch 3)";
        assert_eq!(says(voted, 0), Lead::Nobody(why.into()));
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let now = Duration::from_secs(1);
        assert_eq!(lead(&Seen::NoControl, now), Lead::Unrecorded);
        assert_eq!(lead(&Seen::Absent, now), Lead::Unrecorded);
        assert!(matches!(lead(&Seen::Nothing, now), Lead::Nobody(_)));
        assert!(matches!(lead(&Seen::Unreadable("no such phase".into()), now), Lead::Nobody(_)));
    }
}
