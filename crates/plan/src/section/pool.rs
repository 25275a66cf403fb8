//! The keys of a set of servers and of the choice among them. Part of `[balancer]`.

use std::ops::Range;

use crate::meant::{Algorithm, Mode, Pool, Queue, RESOLVE_MS, Sticky, Target};
use crate::mistake::{Mistake, Notes};
use crate::section::health::{CheckKeys, EjectKeys};
use crate::section::limit::{CONNECTIONS_MAX, queue, small};
use crate::section::target::{self, TargetEntry};
use crate::typed::{Item, Table, Written, or};

const MODES: [(&str, Mode); 2] =
    [("active-active", Mode::ActiveActive), ("active-passive", Mode::ActivePassive)];
const FIELD_LETTERS_MAX: usize = 128;
/// More would only share the trouble.
const RETRIES_MAX: u64 = 10;
const RESOLVE_MS_MIN: u64 = 100;
const RESOLVE_MS_MAX: u64 = 3_600_000;
const SLOW_START_MS_MAX: u64 = 3_600_000;

#[derive(Clone, Debug, Default)]
pub(crate) struct PoolKeys {
    algorithm: Option<Written<Algorithm>>,
    hash_header: Option<Written<String>>,
    hash_cookie: Option<Written<String>>,
    mode: Option<Written<Mode>>,
    sticky: Option<Sticky>,
    /// Whether `servers` is there at all, be it wrong or mistyped.
    pub(crate) means_servers: bool,
    pub(crate) servers: Option<Written<Vec<TargetEntry>>>,
    check: CheckKeys,
    eject: EjectKeys,
    slow_start_ms: Option<Written<u64>>,
    max_connections: Option<u32>,
    queue: Queue,
    retries: Option<u32>,
    resolve_ms: Option<Written<u64>>,
}

impl PoolKeys {
    /// Reads its keys of a table, which may have others and is closed by the caller. `title`: as in `[balancer]`,
    /// without the brackets.
    pub(crate) fn read(table: &mut Table<'_>, title: &str) -> PoolKeys {
        let keys = PoolKeys {
            algorithm: table.get("algorithm").and_then(|item| item.choice(&Algorithm::ALL)),
            hash_header: table.get("hash-header").and_then(|item| item.checked(field_name)),
            hash_cookie: table.get("hash-cookie").and_then(|item| item.checked(field_name)),
            mode: table.get("mode").and_then(|item| item.choice(&MODES)),
            sticky: table.get("sticky").and_then(|item| sticky(&item)),
            means_servers: false,
            servers: table.get("servers").map(|item| target::read(&item)),
            check: CheckKeys::read(table, &format!("[{title}.check]")),
            eject: EjectKeys::read(table, &format!("[{title}.eject]")),
            slow_start_ms: table.duration_ms("slow-start", 0, SLOW_START_MS_MAX),
            max_connections: table.number("max-connections", 1, CONNECTIONS_MAX).and_then(small),
            queue: queue(table, title),
            retries: table.number("retries", 0, RETRIES_MAX).and_then(small),
            resolve_ms: table.duration_ms("resolve", RESOLVE_MS_MIN, RESOLVE_MS_MAX),
        };
        keys.note_hash(table.notes, &table.span);
        keys
    }

    /// A hash needs to know of what, and only one that needs it may say so.
    fn note_hash(&self, notes: &Notes, section: &Range<usize>) {
        let algorithm = self.algorithm.as_ref();
        let pairs = [
            (Algorithm::HeaderHash, "hash-header", &self.hash_header),
            (Algorithm::CookieHash, "hash-cookie", &self.hash_cookie),
        ];
        for (of, key, written) in pairs {
            let chosen = algorithm.is_some_and(|algorithm| algorithm.value == of);
            match written {
                None if chosen => {
                    let span = algorithm.map_or(section.clone(), |algorithm| algorithm.span.clone());
                    let message = format!("the algorithm {:?} needs `{key}`", of.name());
                    notes.note(Mistake::at(span, message).hint(format!("for example `{key} = \"x-user\"`")));
                }
                Some(name) if !chosen => {
                    let message = format!("`{key}` is only for the algorithm {:?}", of.name());
                    let hint = format!("add `algorithm = {:?}`, or remove the key", of.name());
                    notes.note(Mistake::at(name.span.clone(), message).hint(hint));
                }
                Some(_) | None => {}
            }
        }
    }

    /// `own`: the servers of this site that it may send to when none are written.
    pub(crate) fn mean(&self, name: &str, own: Vec<Target>) -> Pool {
        let written = self.servers.as_ref();
        let hash_by = self.hash_header.as_ref().or(self.hash_cookie.as_ref());
        let mut servers = written.map_or(own, |servers| target::mean(&servers.value));
        for server in &mut servers {
            server.max_connections = server.max_connections.or(self.max_connections);
        }
        Pool {
            name: name.to_owned(),
            algorithm: or(&self.algorithm, Algorithm::RoundRobin),
            hash_by: hash_by.map(|written| written.value.clone()),
            mode: or(&self.mode, Mode::ActiveActive),
            sticky: self.sticky.clone(),
            check: self.check.mean(written.is_none()),
            eject: self.eject.mean(),
            slow_start_ms: or(&self.slow_start_ms, 0),
            queue: self.queue,
            retries: self.retries,
            resolve_ms: or(&self.resolve_ms, RESOLVE_MS),
            servers,
        }
    }
}

fn sticky(item: &Item<'_>) -> Option<Sticky> {
    let mut table = item.table("`sticky`")?;
    let cookie = table.get("cookie").and_then(|item| item.checked(field_name));
    table.require("cookie", "the name of the cookie: `sticky = { cookie = \"dolmen\" }`");
    table.close();
    Some(Sticky { cookie: cookie?.value })
}

/// The name of a header field or of a cookie: a token (RFC 9110 section 5.6.2).
pub(crate) fn field_name(text: &str) -> Result<String, (String, String)> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match text.len() <= FIELD_LETTERS_MAX && text.bytes().all(fits) {
        true => Ok(text.to_owned()),
        false => {
            let hint = "letters, digits and hyphens, for example \"x-user\"";
            Err((format!("{text:?} cannot be the name of a header or a cookie"), hint.to_owned()))
        }
    }
}
