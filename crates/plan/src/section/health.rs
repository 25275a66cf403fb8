//! `check` and `eject`: how a server is asked whether it is well, and how many failed requests say that it is not.
//! Part of `[balancer]` and, `check` alone, of `[web]`.

use std::ops::Range;

use crate::address::host_name;
use crate::meant::{Check, CheckKind, Eject, FAST_INTERVAL_MS, StatusRange};
use crate::mistake::Mistake;
use crate::typed::{Item, Table, Written, or};

/// What our own servers answer without troubling the application.
pub(crate) const OWN_PATH: &str = "/.dolmen/health";
/// What is asked of servers that are not ours.
const FOREIGN_PATH: &str = "/";
const INTERVAL_MS: u64 = 500;
/// A frozen server answers nothing, so this and `fall` say how long it stays in rotation.
const TIMEOUT_MS: u64 = 1_000;
const RISE: u32 = 2;
const FALL: u32 = 2;

const DURATION_MS_MIN: u64 = 10;
const DURATION_MS_MAX: u64 = 3_600_000;
const COUNT_MAX: u64 = 100;
const BODY_LETTERS_MAX: usize = 1_024;
const STATUSES_MAX: usize = 20;

const KINDS: [(&str, CheckKind); 2] = [("http", CheckKind::Http), ("tcp", CheckKind::Tcp)];
const METHODS: [(&str, &str); 4] =
    [("GET", "GET"), ("HEAD", "HEAD"), ("OPTIONS", "OPTIONS"), ("POST", "POST")];

#[derive(Clone, Debug, Default)]
pub(crate) struct CheckKeys {
    kind: Option<Written<CheckKind>>,
    path: Option<Written<String>>,
    method: Option<Written<&'static str>>,
    host: Option<Written<String>>,
    statuses: Vec<StatusRange>,
    body: Option<Written<String>>,
    interval_ms: Option<Written<u64>>,
    fast_interval_ms: Option<Written<u64>>,
    timeout_ms: Option<Written<u64>>,
    rise: Option<Written<u64>>,
    fall: Option<Written<u64>>,
}

impl CheckKeys {
    pub(crate) fn read(parent: &mut Table<'_>, title: &str) -> CheckKeys {
        let table = parent.get("check").and_then(|item: Item<'_>| item.table(title));
        let Some(mut table) = table else { return CheckKeys::default() };
        let expected = table.get("expect-status");
        let keys = CheckKeys {
            kind: table.get("type").and_then(|item| item.choice(&KINDS)),
            path: table.get("path").and_then(|item| item.url_path()),
            method: table.get("method").and_then(|item| item.choice(&METHODS)),
            host: table.get("host").and_then(|item| item.checked(host_name)),
            statuses: expected.as_ref().map(statuses).unwrap_or_default(),
            body: table.get("expect-body").and_then(|item| item.text()),
            interval_ms: table.duration_ms("interval", DURATION_MS_MIN, DURATION_MS_MAX),
            fast_interval_ms: table.duration_ms("fast-interval", DURATION_MS_MIN, DURATION_MS_MAX),
            timeout_ms: table.duration_ms("timeout", DURATION_MS_MIN, DURATION_MS_MAX),
            rise: table.number("rise", 1, COUNT_MAX),
            fall: table.number("fall", 1, COUNT_MAX),
        };
        keys.note_contradictions(expected.map(|item| item.key_span), &table);
        table.close();
        keys
    }

    fn note_contradictions(&self, statuses: Option<Range<usize>>, table: &Table<'_>) {
        let span = |written: &Option<Written<String>>| written.as_ref().map(|written| written.span.clone());
        let method = self.method.as_ref().map(|method| method.span.clone());
        let of_http = [
            ("path", span(&self.path)),
            ("method", method),
            ("host", span(&self.host)),
            ("expect-status", statuses),
            ("expect-body", span(&self.body)),
        ];
        if self.kind.as_ref().is_some_and(|kind| kind.value == CheckKind::Tcp) {
            for (key, span) in of_http.into_iter().filter_map(|(key, span)| Some((key, span?))) {
                let message = format!("`{key}` has no meaning where `type` is \"tcp\"");
                table.notes.note(Mistake::at(span, message).hint("a connection is made, and nothing asked"));
            }
        }
        let Some(body) = &self.body else { return };
        if self.method.as_ref().is_some_and(|method| method.value == "HEAD") {
            let message = "an answer to HEAD has no body that could be expected";
            table.notes.note(Mistake::at(body.span.clone(), message).hint("write `method = \"GET\"`"));
        }
        if body.value.len() > BODY_LETTERS_MAX {
            let message = format!("`expect-body` is longer than {BODY_LETTERS_MAX} letters");
            table.notes.note(Mistake::at(body.span.clone(), message));
        }
    }

    /// `own`: whether the servers that are asked are ours.
    pub(crate) fn mean(&self, own: bool) -> Check {
        let path = if own { OWN_PATH } else { FOREIGN_PATH };
        let interval_ms = or(&self.interval_ms, INTERVAL_MS);
        Check {
            kind: or(&self.kind, CheckKind::Http),
            path: or(&self.path, path.to_owned()),
            method: or(&self.method, "GET").to_owned(),
            host: self.host.as_ref().map(|host| host.value.clone()),
            statuses: self.statuses.clone(),
            body: self.body.as_ref().map(|body| body.value.clone()),
            interval_ms,
            fast_interval_ms: or(&self.fast_interval_ms, FAST_INTERVAL_MS).min(interval_ms),
            timeout_ms: or(&self.timeout_ms, TIMEOUT_MS),
            rise: count(&self.rise, RISE),
            fall: count(&self.fall, FALL),
        }
    }
}

/// `200`, `"200-299"`, or a list of these.
fn statuses(item: &Item<'_>) -> Vec<StatusRange> {
    let items = match item.value.is_array() {
        true => item.list("expect-status = [200, \"300-399\"]").unwrap_or_default(),
        false => vec![item.clone()],
    };
    if items.is_empty() || items.len() > STATUSES_MAX {
        item.note(format!("`expect-status` must name from 1 to {STATUSES_MAX} statuses"), None);
    }
    items.iter().take(STATUSES_MAX).filter_map(status).collect()
}

fn status(item: &Item<'_>) -> Option<StatusRange> {
    let fits = |status: &u16| (100..=599).contains(status);
    let range = match item.value.as_str() {
        None => {
            let status = u16::try_from(item.number(100, 599)?.value).ok()?;
            return Some(StatusRange { first: status, last: status });
        }
        Some(text) => text.split_once('-').unwrap_or((text, text)),
    };
    let parse = |text: &str| text.trim().parse::<u16>().ok().filter(fits);
    match (parse(range.0), parse(range.1)) {
        (Some(first), Some(last)) if first <= last => Some(StatusRange { first, last }),
        _ => {
            item.note("this is no status and no range of them", Some("for example 200 or \"200-299\""));
            None
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct EjectKeys {
    failures: Option<Written<u64>>,
    statuses: Option<Written<bool>>,
    share: Option<Written<u64>>,
}

impl EjectKeys {
    pub(crate) fn read(parent: &mut Table<'_>, title: &str) -> EjectKeys {
        let table = parent.get("eject").and_then(|item: Item<'_>| item.table(title));
        let Some(mut table) = table else { return EjectKeys::default() };
        let keys = EjectKeys {
            failures: table.number("failures", 1, COUNT_MAX),
            statuses: table.get("statuses").and_then(|item| item.boolean()),
            share: table.number("share", 0, 100),
        };
        table.close();
        keys
    }

    pub(crate) fn mean(&self) -> Eject {
        let default = Eject::default();
        Eject {
            failures: count(&self.failures, default.failures),
            statuses: or(&self.statuses, default.statuses),
            share: count(&self.share, default.share),
        }
    }
}

fn count(written: &Option<Written<u64>>, default: u32) -> u32 {
    u32::try_from(or(written, u64::from(default))).unwrap_or(default)
}
