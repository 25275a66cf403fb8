//! The addresses that the guestbook answers, and what is true of every answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::health::{self, Health};
use crate::store::Store;
use crate::{api, page};

/// In bytes: the longest message four times over, since every character of a form may be escaped.
const BODY_LIMIT: usize = 64 * 1024;
/// For a whole request, reading its body included. Longer than all limits of the database together.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Only our own style sheet, images and form; no script at all, and in nobody's frame.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                              base-uri 'none'; frame-ancestors 'none'";

pub(crate) struct Guestbook {
    pub(crate) store: Store,
    pub(crate) health: Health,
    pub(crate) server: Option<String>,
}

pub(crate) fn routes(guestbook: Arc<Guestbook>) -> Router {
    Router::new()
        .route("/", get(page::show))
        .route("/entries", post(page::sign))
        .route("/api/entries", get(api::list).post(api::add))
        .route("/healthz", get(health::healthz))
        .fallback(page::nothing_here)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(in_time_and_safe))
        .with_state(guestbook)
}

async fn in_time_and_safe(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| {
        (StatusCode::SERVICE_UNAVAILABLE, "this took too long; please try again\n").into_response()
    });
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
