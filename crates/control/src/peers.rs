//! The way to the other control servers: kept connections of the agent API, one ask after another on each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use link::api::{Answer, ApiError, Ask, Conversation, Identity, call};
use link::control::wire::{ControlAnswer, ControlAsk, LISTEN};
use link::frame::FrameError;
use plan::{Plan, Role};
use tokio::time::{Instant, timeout_at};

/// All control servers of the plan.
#[derive(Debug)]
pub(crate) struct Peers {
    identity: Identity,
    site: String,
    places: BTreeMap<String, Place>,
    /// Who cannot be reached from here, for tests of a network that is cut.
    #[cfg(test)]
    pub(crate) cut: std::sync::Mutex<std::collections::BTreeSet<String>>,
}

#[derive(Debug)]
struct Place {
    machine: String,
    address: SocketAddr,
}

/// A connection to one of them, made when it is needed and kept after a whole answer.
pub(crate) type Kept = Option<Conversation>;

impl Peers {
    pub(crate) fn new(identity: Identity, plan: &Plan) -> Self {
        let place = |server: &plan::Server| {
            let place = Place { machine: server.machine.clone(), address: server.listens(LISTEN)? };
            Some((server.name.clone(), place))
        };
        let places = plan.role(Role::Control).filter_map(place).collect();
        Self {
            identity,
            site: plan.site.clone(),
            places,
            #[cfg(test)]
            cut: std::sync::Mutex::default(),
        }
    }

    /// Asks the server of this name. A kept connection may have ended while nobody used it, so that one failure
    /// of it is tried again on a new one: whatever is asked here may be asked twice.
    pub(crate) async fn ask(
        &self,
        server: &str,
        kept: &mut Kept,
        ask: ControlAsk,
        within: Duration,
    ) -> Result<ControlAnswer, ApiError> {
        let until = Instant::now() + within;
        let ask = Ask::Control(ask);
        if let Some(conversation) = kept.take() {
            match self.put(server, conversation, kept, &ask, until).await {
                Err(ApiError::Frame(_)) => {}
                other => return other,
            }
        }
        let place = self.place(server)?;
        let conversation = call(&self.identity, &self.site, &place.machine, place.address);
        let slow = || ApiError::Slow(place.address);
        let conversation = timeout_at(until, conversation).await.map_err(|_| slow())??;
        self.put(server, conversation, kept, &ask, until).await
    }

    async fn put(
        &self,
        server: &str,
        mut conversation: Conversation,
        kept: &mut Kept,
        ask: &Ask,
        until: Instant,
    ) -> Result<ControlAnswer, ApiError> {
        let place = self.place(server)?;
        let answer = async {
            conversation.ask(ask).await?;
            conversation.answer().await
        };
        let answer = timeout_at(until, answer).await;
        match answer.map_err(|_| ApiError::Slow(place.address))?? {
            Answer::Control(answer) => {
                *kept = Some(conversation);
                Ok(answer)
            }
            other => Err(FrameError::Unexpected(format!("{other:?}")).into()),
        }
    }

    fn place(&self, server: &str) -> Result<&Place, ApiError> {
        #[cfg(test)]
        if self.cut.lock().unwrap().contains(server) {
            return Err(ApiError::Refused(format!("the test cut the way to {server}")));
        }
        let unknown = || ApiError::Refused(format!("the plan has no {server}"));
        self.places.get(server).ok_or_else(unknown)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }
}
