//! `/healthz`: whether this worker should be given requests.
//!
//! 503 with the reason until the table is known to be there, then 200 for good, without asking the database
//! again. A worker whose database went away is not a sick worker: restarting it or taking it out of rotation
//! mends nothing, would take the whole site down at once, and its pages can still say what is wrong.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use crate::server::Guestbook;

/// Why the worker is not ready; None once it is.
#[derive(Debug)]
pub(crate) struct Health(Mutex<Option<String>>);

impl Health {
    pub(crate) fn starting() -> Self {
        Self(Mutex::new(Some("the table is being made".to_owned())))
    }

    pub(crate) fn waits(&self, reason: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    pub(crate) fn ready(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(crate) async fn healthz(State(guestbook): State<Arc<Guestbook>>) -> impl IntoResponse {
    let (status, text) = match guestbook.health.reason() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    };
    (status, [(header::CACHE_CONTROL, "no-store")], text)
}
