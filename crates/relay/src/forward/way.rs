//! The way to a target: where it answers, where we come from, and whether to go on waiting there.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::fleet::connections::Connections;
use crate::pool::Route;
use crate::secure::Secured;

/// See the head of this file.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    pub target: SocketAddr,
    /// Where the connection comes from, when that matters.
    pub source: Option<IpAddr>,
    /// How to connect to it where not without TLS.
    pub(crate) secured: Option<&'a Secured>,
    /// How often the target was lost so far: an idle connection from before that may lead to nobody.
    pub losses: u32,
    /// All connections to it, where they are counted.
    pub(crate) connections: Option<&'a Arc<Connections>>,
    /// Asked while nothing was answered yet and the request may be sent a second time, whenever an
    /// [`Alarm`](crate::Alarm) rings: whether it should leave this target and go elsewhere.
    pub leave: Option<&'a dyn Fn() -> bool>,
    /// Told as soon as an answer begins.
    pub answers: Option<&'a dyn Fn()>,
}

impl<'a> Way<'a> {
    /// To a target of which nothing more is known.
    pub fn new(target: SocketAddr, source: Option<IpAddr>) -> Self {
        Self { target, source, secured: None, losses: 0, connections: None, leave: None, answers: None }
    }

    /// The same, connected to in this way.
    pub fn secured<'b>(self, secured: Option<&'b Secured>) -> Way<'b>
    where
        'a: 'b,
    {
        Way { secured, ..self }
    }

    /// Which idle connections lead there.
    pub(crate) fn route(&self) -> Route {
        let whom = self.connections.map_or(0, |connections| Arc::as_ptr(connections).addr());
        (self.target, self.source, whom, self.secured.is_some())
    }

    /// The same, left when `leave` says so.
    pub fn leaving<'b>(self, leave: &'b dyn Fn() -> bool) -> Way<'b>
    where
        'a: 'b,
    {
        Way { leave: Some(leave), ..self }
    }

    /// The same, and `answers` is told when an answer begins.
    pub fn telling<'b>(self, answers: Option<&'b dyn Fn()>) -> Way<'b>
    where
        'a: 'b,
    {
        Way { answers, ..self }
    }
}
