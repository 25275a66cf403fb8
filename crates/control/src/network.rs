//! Raft's messages over the agent API. Each is addressed to a node, not only to a server, so that one which
//! came back with an empty folder does not answer for the node that it was.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use link::api::ApiError;
use link::control::Records;
use link::control::wire::{ControlAnswer, ControlAsk, RaftKind};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::peers::{Kept, Peers};
use crate::types::{Member, Node, Snapshot, SnapshotMeta, Types, Vote};

/// How long openraft waits before it tries a node again that could not be reached.
const RETRY: Duration = Duration::from_millis(100);

/// How long handing over leadership may take.
const TRANSFER: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) peers: Arc<Peers>,
}

/// The way to one node.
#[derive(Debug)]
pub(crate) struct Way {
    peers: Arc<Peers>,
    node: Node,
    server: String,
    kept: Kept,
}

/// A snapshot on its way.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Sent {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) records: Records,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: Node, member: &Member) -> Way {
        Way {
            peers: Arc::clone(&self.peers),
            node: target,
            server: member.server.clone(),
            kept: Kept::default(),
        }
    }
}

impl Way {
    async fn say<A: DeserializeOwned>(
        &mut self,
        kind: RaftKind,
        message: &impl Serialize,
        within: Duration,
    ) -> Result<A, RPCError<Types>> {
        let body = serde_json::to_value(message).map_err(|error| NetworkError::new(&error))?;
        let ask = ControlAsk::Raft { to: self.node, kind, body };
        match self.peers.ask(&self.server, &mut self.kept, ask, within).await {
            Ok(ControlAnswer::Raft(answer)) => {
                Ok(serde_json::from_value(answer).map_err(|error| NetworkError::new(&error))?)
            }
            Ok(other) => Err(NetworkError::from_string(format!("an unexpected answer: {other:?}")).into()),
            Err(error @ (ApiError::Slow(_) | ApiError::Frame(_))) => Err(NetworkError::new(&error).into()),
            Err(error) => Err(Unreachable::new(&error).into()),
        }
    }
}

impl RaftNetworkV2<Types> for Way {
    type SnapshotData = Records;

    async fn append_entries(
        &mut self,
        message: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.say(RaftKind::Append, &message, option.hard_ttl()).await
    }

    async fn vote(
        &mut self,
        message: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.say(RaftKind::Vote, &message, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        message: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.say(RaftKind::PreVote, &message, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let sent = Sent { vote, meta: snapshot.meta, records: snapshot.snapshot };
        tokio::select! {
            closed = cancel => Err(closed.into()),
            answer = self.say(RaftKind::Snapshot, &sent, option.hard_ttl()) => Ok(answer?),
        }
    }

    async fn transfer_leader(
        &mut self,
        message: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.say(RaftKind::TransferLeader, &message, option.hard_ttl().min(TRANSFER)).await
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(RETRY)))
    }
}
