//! `/api/entries`: the guestbook for programs, in JSON.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::entry::{Draft, Entry};
use crate::failure::{Failure, RETRY_AFTER};
use crate::server::Guestbook;
use crate::store::Wanted;

const LIMIT_DEFAULT: u32 = 50;
/// Who asks for more gets this many.
const LIMIT_MOST: u32 = 200;

#[derive(Debug, Deserialize)]
pub(crate) struct Asked {
    limit: Option<u32>,
    before: Option<i64>,
    after: Option<i64>,
}

/// Newest first. `?limit=` how many, `?before=ID` older ones, `?after=ID` not without this one.
pub(crate) async fn list(
    State(guestbook): State<Arc<Guestbook>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    match listed(&guestbook, asked).await {
        Ok(entries) => Json(entries).into_response(),
        Err(failure) => refused(&failure, false),
    }
}

async fn listed(
    guestbook: &Guestbook,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Vec<Entry>, Failure> {
    let Query(asked) = asked?;
    let limit = asked.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MOST);
    if limit == 0 {
        return Err(Failure::NoLimit);
    }
    let wanted = Wanted { limit, before: asked.before, after: asked.after };
    Ok(guestbook.store.list(wanted).await?.entries)
}

/// 201 with the entry, once it is committed.
pub(crate) async fn add(
    State(guestbook): State<Arc<Guestbook>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match added(&guestbook, body).await {
        Ok(entry) => (StatusCode::CREATED, Json(entry)).into_response(),
        Err(failure) => refused(&failure, true),
    }
}

async fn added(guestbook: &Guestbook, body: Result<Bytes, BytesRejection>) -> Result<Entry, Failure> {
    // By way of an object, since serde would take a list of two texts as well.
    let object: Map<String, Value> = serde_json::from_slice(&body?)?;
    let draft = Draft::deserialize(Value::Object(object))?;
    Ok(guestbook.store.add(&draft.checked()?).await?)
}

pub(crate) fn refused(failure: &Failure, writing: bool) -> Response {
    failure.log();
    let body = Json(json!({ "error": failure.sentence(writing) }));
    let mut response = (failure.status(), body).into_response();
    if failure.status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER));
    }
    response
}
