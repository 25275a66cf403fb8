//! The way to a target: where it answers, where we come from, and whether to go on waiting there.

use std::net::{IpAddr, SocketAddr};

/// See the head of this file.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    pub target: SocketAddr,
    /// Where the connection comes from, when that matters.
    pub source: Option<IpAddr>,
    /// How often the target was lost so far: an idle connection from before that may lead to nobody.
    pub losses: u32,
    /// Asked while nothing was answered yet and the request may be sent a second time, whenever an
    /// [`Alarm`](crate::Alarm) rings: whether it should leave this target and go elsewhere.
    pub leave: Option<&'a dyn Fn() -> bool>,
    /// Told as soon as an answer begins.
    pub answers: Option<&'a dyn Fn()>,
}

impl<'a> Way<'a> {
    /// To a target of which nothing more is known.
    pub fn new(target: SocketAddr, source: Option<IpAddr>) -> Self {
        Self { target, source, losses: 0, leave: None, answers: None }
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
