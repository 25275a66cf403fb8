//! `[[route]]` and `[pool.NAME]`: requests that go to other servers than those of `[balancer]`, or to another site.

use std::ops::Range;

use crate::address::{host_name, wrong_label};
use crate::meant::{FieldEdits, Pool, Rewrite, Route, To};
use crate::mistake::{Mistake, Notes};
use crate::section::field;
use crate::section::pool::PoolKeys;
use crate::typed::{Item, Table, Written, did_you_mean};

const ROUTES_MAX: usize = 1_000;
const POOLS_MAX: usize = 200;
const REDIRECT_STATUSES: [u64; 5] = [301, 302, 303, 307, 308];
const REDIRECT_STATUS: u16 = 308;

#[derive(Clone, Debug)]
pub(crate) struct PoolEntry {
    pub(crate) name: Written<String>,
    pub(crate) keys: PoolKeys,
}

#[derive(Clone, Debug)]
pub(crate) struct RouteEntry {
    pub(crate) span: Range<usize>,
    hosts: Vec<String>,
    path: Option<Written<String>>,
    methods: Vec<String>,
    to: Option<Written<String>>,
    redirect: Option<To>,
    /// Whether `redirect` is there, be it wrong.
    means_redirect: bool,
    rewrite: Rewrite,
    request: FieldEdits,
    answer: FieldEdits,
}

pub(crate) fn read_pools(table: Table<'_>) -> Vec<PoolEntry> {
    let items = table.all();
    if items.len() > POOLS_MAX {
        let message = format!("a site has at most {POOLS_MAX} pools");
        table.notes.note(Mistake::at(table.span.clone(), message));
    }
    items.iter().take(POOLS_MAX).filter_map(pool).collect()
}

fn pool(item: &Item<'_>) -> Option<PoolEntry> {
    let title = format!("pool.{}", item.name);
    let mut table = item.table(&format!("[{title}]"))?;
    if let Some(why) = wrong_label(&item.name) {
        let message = format!("{:?} cannot be the name of a pool: {why}", item.name);
        let hint = "lowercase letters, digits and hyphens: [pool.api]";
        item.notes.note(Mistake::at(item.key_span.clone(), message).hint(hint));
    }
    let keys = PoolKeys::read(&mut table, &title);
    table.require("servers", "name them: `servers = [\"10.0.0.1:80\", \"10.0.0.2:80\"]`");
    table.close();
    Some(PoolEntry { name: Written { value: item.name.clone(), span: item.key_span.clone() }, keys })
}

pub(crate) fn read_routes(item: &Item<'_>) -> Vec<RouteEntry> {
    let items = item.list("[[route]]").unwrap_or_default();
    if items.len() > ROUTES_MAX {
        item.note(format!("a site has at most {ROUTES_MAX} routes"), None);
    }
    items.iter().take(ROUTES_MAX).filter_map(route).collect()
}

fn route(item: &Item<'_>) -> Option<RouteEntry> {
    let mut table = item.table("the route")?;
    table.span = item.span.clone();
    let redirect_item = table.get("redirect");
    let entry = RouteEntry {
        span: item.span.clone(),
        hosts: table.get("host").map(|item| texts(&item, host)).unwrap_or_default(),
        path: table.get("path").and_then(|item| item.checked(prefix)),
        methods: table.get("method").map(|item| texts(&item, method)).unwrap_or_default(),
        to: table.text("to"),
        redirect: redirect_item.as_ref().and_then(redirect),
        means_redirect: redirect_item.is_some(),
        rewrite: table.get("rewrite").map(|item| rewrite(&item)).unwrap_or_default(),
        request: table.get("request").map(|item| field::edits(&item)).unwrap_or_default(),
        answer: table.get("answer").map(|item| field::edits(&item)).unwrap_or_default(),
    };
    if let (Some(to), Some(redirect)) = (&entry.to, &redirect_item) {
        let message = "a route has `to` or `redirect`, not both";
        redirect.notes.note(Mistake::at(to.span.clone(), message).hint("remove one of them"));
    }
    note_rewrite(&entry, item);
    table.close();
    Some(entry)
}

/// One text, or a list of them.
fn texts(item: &Item<'_>, check: fn(&str) -> Result<String, (String, String)>) -> Vec<String> {
    let items = match item.value.is_array() {
        true => item.list(&format!("{} = [\"…\"]", item.name)).unwrap_or_default(),
        false => vec![item.clone()],
    };
    if items.is_empty() {
        item.note(format!("`{}` is an empty list, which nothing matches", item.name), None);
    }
    items.iter().filter_map(|item| Some(item.checked(check)?.value)).collect()
}

fn host(text: &str) -> Result<String, (String, String)> {
    match text.strip_prefix("*.") {
        Some(parent) => host_name(parent).map(|parent| format!("*.{parent}")),
        None => host_name(text),
    }
}

/// A path as a prefix: without the slash at its end, unless it is all.
fn prefix(text: &str) -> Result<String, (String, String)> {
    let path = crate::address::url_path(text)?;
    if path.contains('?') {
        let hint = "a route goes by the path alone".to_owned();
        return Err((format!("the path {text:?} has a query"), hint));
    }
    Ok(if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path })
}

fn method(text: &str) -> Result<String, (String, String)> {
    let fits = text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    let wrong = || (format!("{text:?} is no method"), "in capitals, for example \"GET\"".to_owned());
    fits.then(|| text.to_owned()).ok_or_else(wrong)
}

fn redirect(item: &Item<'_>) -> Option<To> {
    let mut table = item.table("`redirect`")?;
    let to = table.get("to").and_then(|item| item.checked(location));
    let status_item = table.get("status");
    let status = status_item.as_ref().and_then(|item| item.number(300, 399));
    table.require("to", "where to: `redirect = { to = \"https://www.foobar.com{uri}\" }`");
    table.close();
    let status = match status {
        Some(status) if !REDIRECT_STATUSES.contains(&status.value) => {
            let mistake = Mistake::at(status.span, format!("{} is no redirect", status.value));
            item.notes.note(mistake.hint("301 and 308 are for ever, 302, 303 and 307 for this time"));
            return None;
        }
        Some(status) => u16::try_from(status.value).unwrap_or(REDIRECT_STATUS),
        None => REDIRECT_STATUS,
    };
    Some(To::Redirect { location: to?.value, status })
}

/// What a client sends must never decide which site it is sent to, so the site comes first and is written out.
fn location(text: &str) -> Result<String, (String, String)> {
    let hint = "for example \"https://www.foobar.com{uri}\" or \"/new{path}\"".to_owned();
    if text.len() > 1_024 || text.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err((format!("{text:?} cannot be the place of a redirect"), hint));
    }
    let plain = text.replace("{uri}", "").replace("{path}", "").replace("{host}", "");
    if plain.contains(['{', '}']) {
        return Err((
            format!("{text:?} has braces around an unknown word"),
            "known: {uri}, {path}, {host}".into(),
        ));
    }
    let site = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let begins = match site {
        Some(rest) => {
            rest.starts_with("{host}") || rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        }
        None => {
            text == "/" || text.starts_with('/') && text[1..].starts_with(|c: char| c.is_ascii_alphanumeric())
        }
    };
    match begins {
        true => Ok(text.to_owned()),
        false => Err((format!("{text:?} does not say which site or path the redirect leads to"), hint)),
    }
}

fn rewrite(item: &Item<'_>) -> Rewrite {
    let Some(mut table) = item.table("`rewrite`") else { return Rewrite::default() };
    let rewrite = Rewrite {
        strip: table.get("strip").and_then(|item| item.checked(prefix)).map(|written| written.value),
        prepend: table.get("prepend").and_then(|item| item.checked(prefix)).map(|written| written.value),
    };
    table.close();
    rewrite
}

fn note_rewrite(entry: &RouteEntry, item: &Item<'_>) {
    let Some(strip) = &entry.rewrite.strip else { return };
    if !entry.path.as_ref().is_some_and(|path| is_below(&path.value, strip)) {
        let message = format!("`strip` takes {strip:?} away, which not every path of this route begins with");
        let hint = format!("add `path = {strip:?}`");
        item.notes.note(Mistake::at(entry.span.clone(), message).hint(hint));
    }
}

/// Whether a path is this one or below it.
fn is_below(path: &str, prefix: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(crate) fn mean_pools(pools: &[PoolEntry]) -> Vec<Pool> {
    pools.iter().map(|pool| pool.keys.mean(&pool.name.value, Vec::new())).collect()
}

/// `has_own`: whether `[balancer]` itself has servers.
pub(crate) fn mean_routes(
    routes: &[RouteEntry],
    pools: &[PoolEntry],
    has_own: bool,
    notes: &Notes,
) -> Vec<Route> {
    let routes: Vec<(&RouteEntry, Route)> = routes.iter().map(|route| (route, route.mean())).collect();
    for (index, (entry, route)) in routes.iter().enumerate() {
        entry.note_goal(pools, has_own, notes);
        if let Some(earlier) = routes[..index].iter().position(|(_, earlier)| covers(earlier, route)) {
            let message =
                format!("this route can never match: route {} takes all that it would", earlier + 1);
            let hint = "the first route that matches is followed: put the narrower one before the wider one";
            notes.note(Mistake::at(entry.span.clone(), message).hint(hint));
        }
    }
    routes.into_iter().map(|(_, route)| route).collect()
}

impl RouteEntry {
    fn mean(&self) -> Route {
        let pool = || To::Pool(self.to.as_ref().map_or(String::new(), |to| to.value.clone()));
        Route {
            hosts: self.hosts.clone(),
            path: self.path.as_ref().map(|path| path.value.clone()),
            methods: self.methods.clone(),
            to: self.redirect.clone().unwrap_or_else(pool),
            rewrite: self.rewrite.clone(),
            request: self.request.clone(),
            answer: self.answer.clone(),
        }
    }

    fn note_goal(&self, pools: &[PoolEntry], has_own: bool, notes: &Notes) {
        let names = || pools.iter().map(|pool| pool.name.value.as_str());
        match &self.to {
            Some(to) if !names().any(|name| name == to.value) => {
                let hint = did_you_mean(&to.value, names())
                    .unwrap_or_else(|| format!("write a section [pool.{}] with its `servers`", to.value));
                notes.note(
                    Mistake::at(to.span.clone(), format!("there is no pool {:?}", to.value)).hint(hint),
                );
            }
            None if !self.means_redirect && !has_own => {
                let message = "this route leads nowhere: [balancer] has no servers of its own";
                notes.note(Mistake::at(self.span.clone(), message).hint("add `to` with the name of a pool"));
            }
            Some(_) | None => {}
        }
    }
}

/// Whether every request that the later route matches is one of the earlier.
fn covers(earlier: &Route, later: &Route) -> bool {
    let has_host = |host: &String| earlier.hosts.iter().any(|wide| host_covers(wide, host));
    let hosts = earlier.hosts.is_empty() || !later.hosts.is_empty() && later.hosts.iter().all(has_host);
    let path = match (&earlier.path, &later.path) {
        (None, _) => true,
        (Some(wide), None) => wide == "/",
        (Some(wide), Some(path)) => is_below(path, wide),
    };
    let has_method = |method: &String| earlier.methods.contains(method);
    let methods =
        earlier.methods.is_empty() || !later.methods.is_empty() && later.methods.iter().all(has_method);
    hosts && path && methods
}

fn host_covers(wide: &str, host: &str) -> bool {
    let below = |suffix: &str| host.len() > suffix.len() && host.ends_with(suffix);
    wide == host || wide.strip_prefix('*').is_some_and(below)
}
