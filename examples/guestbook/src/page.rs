//! The page: the entries, the form, and the way the request came. Works without scripts, and has none.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;

use crate::entry::{Draft, Entry, MESSAGE_LIMIT, NAME_LIMIT};
use crate::failure::{Failure, RETRY_AFTER};
use crate::hops;
use crate::server::Guestbook;
use crate::store::{Listing, Wanted};

const ENTRIES: u32 = 30;
/// How many colours the style sheet has for the stones beside the entries.
const TONES: usize = 6;

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    listing: Option<&'a Listing>,
    /// The visitor looks at older entries, not at the first page.
    older: bool,
    /// The entry that the visitor has just written.
    mine: Option<i64>,
    draft: &'a Draft,
    complaint: Option<String>,
    hops: Vec<String>,
    pid: u32,
}

impl Page<'_> {
    fn is_mine(&self, entry: &Entry) -> bool {
        self.mine == Some(entry.id)
    }
}

#[derive(Template)]
#[template(path = "nothing.html")]
struct Nothing;

/// Text, since a mistyped number in the address of a page is no reason to refuse the page.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Asked {
    before: Option<String>,
    after: Option<String>,
}

impl Asked {
    fn wanted(&self) -> Wanted {
        let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
        Wanted { limit: ENTRIES, before: number(&self.before), after: number(&self.after) }
    }
}

pub(crate) async fn show(
    State(guestbook): State<Arc<Guestbook>>,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let wanted = asked.map(|Query(asked)| asked).unwrap_or_default().wanted();
    drawn(&guestbook, &headers, wanted, &Draft::default(), None).await
}

/// Writes, and sends the visitor back to a page that has the entry: a reload then does not write it again.
pub(crate) async fn sign(
    State(guestbook): State<Arc<Guestbook>>,
    headers: HeaderMap,
    form: Result<Form<Draft>, FormRejection>,
) -> Response {
    let typed = form.as_ref().map(|Form(draft)| draft.clone()).unwrap_or_default();
    match signed(&guestbook, form).await {
        Ok(entry) => Redirect::to(&format!("/?after={id}#entry-{id}", id = entry.id)).into_response(),
        Err(failure) => {
            failure.log();
            let wanted = Asked::default().wanted();
            drawn(&guestbook, &headers, wanted, &typed, Some(failure)).await
        }
    }
}

async fn signed(guestbook: &Guestbook, form: Result<Form<Draft>, FormRejection>) -> Result<Entry, Failure> {
    let Form(draft) = form?;
    Ok(guestbook.store.add(&draft.checked()?).await?)
}

/// The page with what could be read. What went wrong before, in writing, decides the status first.
async fn drawn(
    guestbook: &Guestbook,
    headers: &HeaderMap,
    wanted: Wanted,
    draft: &Draft,
    before: Option<Failure>,
) -> Response {
    let read = guestbook.store.list(wanted).await.map_err(Failure::from);
    if let Err(failure) = &read {
        failure.log();
    }
    let complaint = before.as_ref().map(|failure| failure.sentence(true));
    let complaint = complaint.or_else(|| read.as_ref().err().map(|failure| failure.sentence(false)));
    let status = before.as_ref().or(read.as_ref().err()).map_or(StatusCode::OK, Failure::status);
    let page = Page {
        listing: read.as_ref().ok(),
        older: wanted.before.is_some(),
        mine: wanted.after,
        draft,
        complaint,
        hops: hops::passed(headers, guestbook.server.as_deref()),
        pid: std::process::id(),
    };
    answer(status, page.render())
}

pub(crate) async fn nothing_here() -> Response {
    answer(StatusCode::NOT_FOUND, Nothing.render())
}

fn answer(status: StatusCode, page: askama::Result<String>) -> Response {
    let mut response = match page {
        Ok(page) => (status, Html(page)).into_response(),
        Err(error) => {
            let failure = Failure::from(error);
            failure.log();
            (failure.status(), failure.sentence(false)).into_response()
        }
    };
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    }
    response
}

/// The letter on the stone beside an entry.
fn initial(name: &str) -> String {
    name.chars().next().map(|first| first.to_uppercase().collect()).unwrap_or_default()
}

/// The same name has the same colour on every worker and every day.
fn tone(name: &str) -> usize {
    name.bytes().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte))) % TONES
}
