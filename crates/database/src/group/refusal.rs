//! Why a change of the record is refused. A refusal is a result: the record stays as it is.

use super::Lsn;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the record is in epoch {is}, not in epoch {expected}")]
    OtherEpoch { expected: u64, is: u64 },
    #[error("{holder} holds the lease in another life of its manager")]
    OtherBoot { holder: String },
    #[error("{holder} holds the lease, not {server}")]
    NotHolder { holder: String, server: String },
    #[error("{holder} released its lease")]
    Released { holder: String },
    #[error("{holder} has not released its lease and has renewed it since")]
    Renewed { holder: String },
    #[error("enough replicas have voted for epoch {epoch}: the time of {holder} is over")]
    Decided { holder: String, epoch: u64 },
    #[error("an election is under way already")]
    BallotOpen,
    #[error(
        "control began anew and may have forgotten the last failover: the database servers settle first who has most"
    )]
    InDoubt,
    #[error("no election is under way")]
    NoBallot,
    #[error("{server} is not in the synchronous set: it may lack what was acknowledged")]
    NotMember { server: String },
    #[error(
        "nobody but {holder} may be primary: it went on alone, and no replica has all that it acknowledged"
    )]
    OnlyHolder { holder: String },
    #[error("{server} has voted already")]
    VotedAlready { server: String },
    #[error("{server} has not voted, or from another place in its log")]
    NotVoted { server: String },
    #[error("{votes} of the {quorum} votes that are needed")]
    NoQuorum { votes: usize, quorum: usize },
    #[error("{server} ends at {lsn} of epoch {epoch}, but another replica has more")]
    Behind { server: String, epoch: u64, lsn: Lsn },
    #[error("{server} ends at {lsn}, further behind {written} than the lag limit allows")]
    TooFarBehind { server: String, lsn: Lsn, written: Lsn },
    #[error(
        "the data of {server} is of epoch {is}, but it was primary in epoch {expected}: part of it is missing"
    )]
    DataOfEpoch { server: String, is: u64, expected: u64 },
    #[error("the group is paused: `dolmen database resume` ends that")]
    Paused,
    #[error("this is generation {is} of the synchronous set, not {expected}")]
    OtherGeneration { expected: u64, is: u64 },
    #[error("a synchronous set of {members} cannot wait for {wait_for}")]
    BadSet { members: usize, wait_for: u32 },
    #[error("the holder {server} cannot be its own replica")]
    HolderAsMember { server: String },
    #[error("{holder} is not promoted yet")]
    NotPromoted { holder: String },
    #[error("{holder} is not open: {what} can be asked for once it is")]
    NotOpen { holder: String, what: &'static str },
    #[error("the data belongs to cluster {is}, not to {expected}")]
    OtherCluster { expected: u64, is: u64 },
    #[error("{server} is the primary")]
    IsPrimary { server: String },
    #[error("another handover by {holder} was asked for and is not done yet")]
    HandoverAsked { holder: String },
    #[error("nobody asked for a handover")]
    NoHandover,
}
