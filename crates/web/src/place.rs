//! Which file a request's path names. Pure: the disk is not looked at.
//!
//! Strict, so that a path has one meaning: escapes must be complete, nothing may decode to a slash or a NUL, and
//! `..` is not resolved but refused.

use std::path::PathBuf;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A file, relative to the root.
    File(PathBuf),
    /// A folder, by its trailing slash; empty for the root itself.
    Folder(PathBuf),
    /// Nothing that could be on disk for us to serve; the application may know it.
    Elsewhere,
}

/// The one folder with a leading dot that is meant for the public (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// The longest path that is looked for.
const PATH_BYTES: usize = 1024;

/// Understands the path of a request, without its query.
pub(crate) fn of(path: &str) -> Place {
    let Some(decoded) = decode(path) else { return Place::Elsewhere };
    let Some(relative) = decoded.strip_prefix('/') else { return Place::Elsewhere };
    if decoded.len() > PATH_BYTES {
        return Place::Elsewhere;
    }
    let (relative, is_folder) = match relative.strip_suffix('/') {
        Some(folder) => (folder, true),
        None => (relative, relative.is_empty()),
    };
    if !relative.is_empty() && !relative.split('/').enumerate().all(|(depth, name)| is_public(depth, name)) {
        return Place::Elsewhere;
    }
    if is_folder { Place::Folder(relative.into()) } else { Place::File(relative.into()) }
}

fn is_public(depth: usize, name: &str) -> bool {
    !name.is_empty() && (!name.starts_with('.') || depth == 0 && name == WELL_KNOWN)
}

/// Percent-decoded, or None when it is not text without NUL, backslash and hidden slashes.
fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || (rest.next()? as char).to_digit(16);
        let byte = (digit()? << 4 | digit()?) as u8;
        if byte == b'/' {
            return None;
        }
        bytes.push(byte);
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.contains(['\0', '\\'])).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders() {
        assert_eq!(of("/"), Place::Folder("".into()));
        assert_eq!(of("/a.css"), Place::File("a.css".into()));
        assert_eq!(of("/a/b%20c.css"), Place::File("a/b c.css".into()));
        assert_eq!(of("/a/"), Place::Folder("a".into()));
        assert_eq!(of("/%C3%A4"), Place::File("ä".into()));
        assert_eq!(of("/.well-known/acme"), Place::File(".well-known/acme".into()));
    }

    #[test]
    fn what_is_never_sought_on_disk() {
        for path in [
            "*",
            "",
            "/..",
            "/../a",
            "/a/../b",
            "/%2e%2e/a",
            "/.%2e/a",
            "/.",
            "/./a",
            "//a",
            "/a//b",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/%",
            "/%2",
            "/%zz",
            "/%ff",
            "/.env",
            "/.git/config",
            "/a/.htaccess",
            "/%2eenv",
            "/a/.well-known/b",
            "/.well-known/.hidden",
            "/a//",
        ] {
            assert_eq!(of(path), Place::Elsewhere, "{path}");
        }
        assert_eq!(of(&format!("/{}", "a".repeat(2000))), Place::Elsewhere);
    }
}
