//! One request: a file, or the application.

use relay::{Current, Ended, Exchange, Handler, RequestHead};

use crate::answer::{self, Answer, Conditions};
use crate::apps::Apps;
use crate::file::{Entry, Open, Root};
use crate::kind;
use crate::place::{self, Place};

/// Where each of our HTTP servers says that it lives.
const HEALTH: &str = "/.dolmen/health";

/// The file that stands for its folder.
const INDEX: &str = "index.html";

/// See the head of this file. One for each thread.
#[derive(Debug)]
pub(crate) struct Web {
    pub(crate) site: Current<Site>,
}

/// Where files are and who else answers: all that a reload may replace.
#[derive(Debug)]
pub(crate) struct Site {
    root: Option<Root>,
    apps: Apps,
}

/// What the disk has for a path.
enum Found {
    File(Open, String),
    /// A folder that was asked for without its slash; relative links in its index would lead elsewhere.
    Redirect(String),
    Nothing,
}

impl Site {
    pub(crate) fn new(root: Option<Root>, apps: Apps) -> Self {
        Self { root, apps }
    }

    fn find(&self, request: &RequestHead) -> std::io::Result<Found> {
        let Some(root) = &self.root else { return Ok(Found::Nothing) };
        let path = match place::of(request.path()) {
            Place::Elsewhere => return Ok(Found::Nothing),
            Place::Folder(folder) => folder.join(INDEX),
            Place::File(path) => path,
        };
        match root.find(&path)? {
            Entry::File(open) => Ok(Found::File(open, kind::of(&path))),
            Entry::Folder if matches!(root.find(&path.join(INDEX))?, Entry::File(_)) => {
                let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
                Ok(Found::Redirect(format!("{}/{query}", request.path())))
            }
            _ => Ok(Found::Nothing),
        }
    }

    /// Nothing on disk: the application's, or nobody's.
    async fn pass(&self, exchange: &mut Exchange<'_>, is_read: bool) -> Result<(), Ended> {
        if !self.apps.is_empty() {
            return self.apps.pass(exchange).await;
        }
        let (status, fields) =
            if is_read { (404, [("cache-control", "no-store")]) } else { (405, [("allow", "GET, HEAD")]) };
        fail(exchange, status, &fields).await
    }
}

impl Handler for Web {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
        let request = exchange.request();
        if request.path() == HEALTH {
            exchange.unlogged();
            return exchange.reply(200, &[("content-type", "text/plain")], b"ok\n").await;
        }
        let site = self.site.get();
        let is_read = matches!(request.method(), "GET" | "HEAD");
        if !is_read {
            return site.pass(exchange, false).await;
        }
        match site.find(request) {
            Ok(Found::File(open, kind)) => send(exchange, &open, &kind).await,
            Ok(Found::Redirect(to)) => exchange.reply(308, &[("location", &to)], b"").await,
            Ok(Found::Nothing) => site.pass(exchange, true).await,
            Err(error) => {
                tracing::warn!("{error}");
                fail(exchange, 503, &[("retry-after", "1")]).await
            }
        }
    }
}

/// Answers with the file, as the request's conditions have it.
async fn send(exchange: &mut Exchange<'_>, open: &Open, kind: &str) -> Result<(), Ended> {
    let request = exchange.request();
    let conditions = Conditions {
        if_match: request.field("if-match"),
        if_none_match: request.field("if-none-match"),
        if_modified_since: request.field("if-modified-since"),
        if_unmodified_since: request.field("if-unmodified-since"),
        if_range: request.field("if-range"),
        // Ranges are of GET alone (RFC 9110 section 14.2).
        range: request.field("range").filter(|_| !request.is_head()),
    };
    let modified = httpdate::fmt_http_date(open.modified);
    let fields = [
        ("etag", open.tag.as_str()),
        ("last-modified", &modified),
        ("accept-ranges", "bytes"),
        ("content-type", kind),
        ("x-content-type-options", "nosniff"),
    ];
    match answer::to(&conditions, open.size, open.modified, &open.tag) {
        Answer::Whole => exchange.reply_file(200, &fields, &open.file, 0..open.size).await,
        Answer::NotModified => exchange.reply(304, &fields[..2], b"").await,
        Answer::PreconditionFailed => fail(exchange, 412, &[]).await,
        Answer::Part(part) => {
            let range = format!("bytes {}-{}/{}", part.start, part.end - 1, open.size);
            let mut with_range = fields.to_vec();
            with_range.push(("content-range", &range));
            exchange.reply_file(206, &with_range, &open.file, part).await
        }
        Answer::NotSatisfiable => {
            let range = format!("bytes */{}", open.size);
            fail(exchange, 416, &[("content-range", &range)]).await
        }
    }
}

async fn fail(exchange: &mut Exchange<'_>, status: u16, fields: &[(&str, &str)]) -> Result<(), Ended> {
    let id = exchange.request().field("x-request-id");
    exchange.fail(status, fields, id.unwrap_or("without an id")).await
}
