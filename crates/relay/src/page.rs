//! The page that a person sees when something failed: what happened, whether to try again, and the request's id.
//! It tells nothing of the servers behind us. A site may have pages of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::codec::write::reason;

/// The media type of all pages.
pub const TYPE: (&str, &str) = ("content-type", "text/html; charset=utf-8");

/// The largest page that is read; a page is sent when there is trouble enough.
const PAGE_BYTES: u64 = 64 * 1024;

/// The statuses that can have pages.
const STATUSES: std::ops::Range<u16> = 400..600;

/// The pages of a site: its own where it has one, ours for the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages(BTreeMap<String, String>);

/// Why the pages of a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    #[error("cannot read the error pages in {}: {error}", folder.display())]
    Folder { folder: PathBuf, error: io::Error },
    #[error("cannot read the error page {}: {error}", path.display())]
    Page { path: PathBuf, error: io::Error },
    #[error("the error page {} is larger than {} KiB", .0.display(), PAGE_BYTES / 1024)]
    TooLarge(PathBuf),
}

impl Pages {
    /// Reads `503.html` for this status, `5xx.html` for all that begin with 5 and have none of their own, and so on.
    /// Other files are left alone.
    pub fn read(folder: &Path) -> Result<Self, PagesError> {
        if let Err(error) = std::fs::read_dir(folder) {
            return Err(PagesError::Folder { folder: folder.to_owned(), error });
        }
        let mut pages = BTreeMap::new();
        for name in names() {
            let path = folder.join(format!("{name}.html"));
            if let Some(page) = read_page(&path)? {
                pages.insert(name, page);
            }
        }
        Ok(Self(pages))
    }

    /// An HTML page. `{status}`, `{reason}` and `{request_id}` of a page of the site's own are filled in; `id` is
    /// written as text, whatever is in it.
    pub fn page(&self, status: u16, id: &str) -> String {
        let own = self.0.get(&status.to_string()).or_else(|| self.0.get(&format!("{}xx", status / 100)));
        match own {
            None => error(status, id),
            Some(own) => filled(own, status, id),
        }
    }
}

fn names() -> impl Iterator<Item = String> {
    let classes = STATUSES.step_by(100).map(|status| format!("{}xx", status / 100));
    classes.chain(STATUSES.map(|status| status.to_string()))
}

fn read_page(path: &Path) -> Result<Option<String>, PagesError> {
    let failed = |error| PagesError::Page { path: path.to_owned(), error };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let mut text = String::new();
    file.take(PAGE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > PAGE_BYTES {
        return Err(PagesError::TooLarge(path.to_owned()));
    }
    Ok(Some(text))
}

/// What was filled in is not looked at again.
fn filled(page: &str, status: u16, id: &str) -> String {
    let words = [
        ("{status}", status.to_string()),
        ("{reason}", escaped(reason(status))),
        ("{request_id}", escaped(id)),
    ];
    let (mut out, mut rest) = (String::with_capacity(page.len() + id.len()), page);
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let (word, value) = match words.iter().find(|(word, _)| rest.starts_with(word)) {
            Some((word, value)) => (*word, value.as_str()),
            None => ("{", "{"),
        };
        out.push_str(value);
        rest = &rest[word.len()..];
    }
    out.push_str(rest);
    out
}

/// Our own page, which needs nothing else.
fn error(status: u16, id: &str) -> String {
    let (reason, id) = (reason(status), escaped(id));
    let advice = match status {
        502..=504 => "The site is not able to answer at the moment. Please try again in a few seconds.",
        404 => "There is nothing at this address.",
        _ => "The request could not be answered.",
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{status} {reason}</title>\n\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:20vh auto;padding:0 1rem;\
         color:#222;background:#fff}}h1{{font-size:1.5rem}}small{{color:#666}}\
         @media(prefers-color-scheme:dark){{body{{color:#ddd;background:#111}}small{{color:#999}}}}</style>\n\
         <h1>{status} {reason}</h1>\n<p>{advice}</p>\n<p><small>Request {id}</small></p>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_id_is_text() {
        let page = Pages::default().page(502, "<script>");
        assert!(page.contains("502 Bad Gateway") && page.contains("Request &lt;script&gt;"));
    }

    #[test]
    fn a_site_has_its_own_pages_for_some() {
        let folder = std::env::temp_dir().join(format!("dolmen-pages-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write =
            |name: &str, text: &[u8]| File::create(folder.join(name)).unwrap().write_all(text).unwrap();
        write("503.html", b"<style>p{color:red}</style>{status} {reason}: {request_id} {x}{");
        write("4xx.html", b"{status}");
        write("logo.png", b"\xff");
        let pages = Pages::read(&folder).unwrap();
        assert_eq!(
            pages.page(503, "<{status}>"),
            "<style>p{color:red}</style>503 Service Unavailable: &lt;{status}&gt; {x}{"
        );
        assert_eq!(pages.page(404, ""), "404");
        assert_eq!(pages.page(502, "a"), Pages::default().page(502, "a"));
        write("500.html", &[b'x'; PAGE_BYTES as usize + 1]);
        assert!(matches!(Pages::read(&folder), Err(PagesError::TooLarge(_))));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(Pages::read(&folder), Err(PagesError::Folder { .. })));
    }
}
