//! Which route a request follows, and what that makes of it. Pure: what a request says goes in, a place comes out.
//!
//! Paths are compared as they came, without decoding: what is hidden behind escapes follows another route, so routes
//! are a way to share servers out and no way to keep people off.

use plan::{FieldEdits, Rewrite, Route};
use relay::RequestHead;

/// The first route that matches.
pub fn find<'a>(routes: &'a [Route], request: &RequestHead) -> Option<&'a Route> {
    if routes.is_empty() {
        return None;
    }
    let host = name_of(request.host().unwrap_or_default());
    routes.iter().find(|route| {
        (route.hosts.is_empty() || route.hosts.iter().any(|pattern| host_matches(pattern, host)))
            && route.path.as_ref().is_none_or(|prefix| below(request.path(), prefix).is_some())
            && (route.methods.is_empty() || route.methods.iter().any(|method| method == request.method()))
    })
}

/// A host without its port, and without the dot that says it is whole.
fn name_of(host: &str) -> &str {
    let name = match host.rfind(']') {
        Some(end) => &host[..=end],
        None => host.split(':').next().unwrap_or_default(),
    };
    name.strip_suffix('.').unwrap_or(name)
}

fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern.eq_ignore_ascii_case(host),
        Some(suffix) => {
            let start = host.len().checked_sub(suffix.len()).filter(|start| *start > 0);
            start.and_then(|start| host.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
        }
    }
}

/// What follows the prefix, if the path is it or below it.
fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let prefix = if prefix == "/" { "" } else { prefix };
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Path and query for the next server; None: as they came.
pub fn rewritten(rewrite: &Rewrite, request: &RequestHead) -> Option<String> {
    let (strip, prepend) = (rewrite.strip.as_deref(), rewrite.prepend.as_deref());
    if strip.is_none() && prepend.is_none() || !request.target().starts_with('/') {
        return None;
    }
    let path = request.path();
    let rest = strip.and_then(|strip| below(path, strip)).unwrap_or(path);
    let front = prepend.unwrap_or_default().trim_end_matches('/');
    let slash = if front.is_empty() && rest.is_empty() { "/" } else { "" };
    let query = &request.target()[path.len()..];
    Some(format!("{front}{slash}{rest}{query}"))
}

/// Where a redirect leads. The plan has checked that what comes from the client does not decide on the site.
pub fn location(template: &str, request: &RequestHead) -> String {
    let mut out = String::with_capacity(template.len() + request.target().len());
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let words = [
            ("{uri}", request.target()),
            ("{path}", request.path()),
            ("{host}", name_of(request.host().unwrap_or_default())),
        ];
        match words.into_iter().find(|(word, _)| rest.starts_with(word)) {
            Some((word, value)) => {
                out.push_str(value);
                rest = &rest[word.len()..];
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// What is set, with what is removed as an empty value: as the codec wants it.
pub fn set(edits: &FieldEdits) -> impl Iterator<Item = (&str, &str)> {
    let removed = edits.remove.iter().map(|name| (name.as_str(), ""));
    edits.set.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(removed)
}

pub fn added(edits: &FieldEdits) -> Vec<(&str, &str)> {
    edits.add.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str, host: &str) -> RequestHead {
        let mut head = RequestHead::default();
        head.load(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        head
    }

    fn routes(text: &str) -> Vec<Route> {
        let text = format!("[balancer]\nservers = [\"10.0.0.1:80\"]\n{text}");
        let ground = plan::Ground {
            place: plan::Place::Machines,
            generation: 1,
            folder: "test",
            files: &plan::NoFiles,
        };
        plan::Site::from_text(&text).plan(&ground).unwrap().balancer.unwrap().routes
    }

    #[test]
    fn the_first_that_matches() {
        let routes = routes(
            "[[route]]\nhost = [\"api.foobar.com\", \"*.api.foobar.com\"]\n\
             [[route]]\npath = \"/shop/\"\nmethod = [\"GET\", \"HEAD\"]\n[[route]]\npath = \"/shop/cart\"\n",
        );
        let at = |line: &str, host: &str| {
            let found = find(&routes, &request(line, host));
            found.map(|found| routes.iter().position(|route| std::ptr::eq(route, found)).unwrap())
        };
        assert_eq!(at("GET /x", "API.foobar.com:8080"), Some(0));
        assert_eq!(at("GET /x", "eu.v2.api.foobar.com."), Some(0));
        assert_eq!(at("GET /x", "xapi.foobar.com"), None);
        assert_eq!(at("GET /shop", "a"), Some(1));
        assert_eq!(at("GET /shop/x?y", "a"), Some(1));
        assert_eq!(at("GET /shopping", "a"), None);
        assert_eq!(at("POST /shop/cart/1", "a"), Some(2));
        assert_eq!(at("POST /shop/x", "a"), None);
    }

    #[test]
    fn paths_are_rewritten() {
        let rewrite = |strip: Option<&str>, prepend: Option<&str>, line: &str| {
            let rewrite = Rewrite { strip: strip.map(str::to_owned), prepend: prepend.map(str::to_owned) };
            rewritten(&rewrite, &request(line, "a"))
        };
        assert_eq!(rewrite(None, None, "GET /a"), None);
        assert_eq!(rewrite(Some("/a"), None, "GET /a/b?c=/a").as_deref(), Some("/b?c=/a"));
        assert_eq!(rewrite(Some("/a"), None, "GET /a?c").as_deref(), Some("/?c"));
        assert_eq!(rewrite(Some("/a"), Some("/v2"), "GET /a").as_deref(), Some("/v2"));
        assert_eq!(rewrite(None, Some("/v2"), "GET /a").as_deref(), Some("/v2/a"));
        assert_eq!(rewrite(None, Some("/v2"), "OPTIONS *"), None);
    }

    #[test]
    fn redirects_are_filled_in() {
        let head = request("GET /a/b?c=1", "foobar.com:8080");
        assert_eq!(location("https://www.{host}{uri}", &head), "https://www.foobar.com/a/b?c=1");
        assert_eq!(location("/new{path}", &head), "/new/a/b");
    }
}
