//! Paths under `/.dolmen/` are for our servers among themselves and never pass from a client.

/// Where each of our HTTP servers says that it lives.
pub(crate) const HEALTH: &str = "/.dolmen/health";

const FOLDER: &str = ".dolmen";

/// Whether a path leads below `/.dolmen`, also when it is written so that only the next server would see it.
pub(crate) fn is_reserved(path: &str) -> bool {
    // Almost no path has either; then there is nothing to take apart.
    if !path.contains(FOLDER) && !path.contains('%') {
        return false;
    }
    let decoded = decoded(path);
    let mut way: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment {
            b"" | b"." => {}
            b".." => {
                way.pop();
            }
            name => way.push(name),
        }
    }
    way.first().is_some_and(|first| first.eq_ignore_ascii_case(FOLDER.as_bytes()))
}

/// Percent-decoded once; what is no escape stays.
fn decoded(path: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| (*byte as char).to_digit(16));
    let (bytes, mut out, mut at) = (path.as_bytes(), Vec::with_capacity(path.len()), 0);
    while at < bytes.len() {
        match (bytes[at], digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_seen() {
        for path in [
            "/.dolmen",
            "/.dolmen/health",
            "//.dolmen/x",
            "/./.dolmen/",
            "/a/../.dolmen/",
            "/%2edolmen/",
            "/.DOLMEN/%",
        ] {
            assert!(is_reserved(path), "{path}");
        }
        for path in ["/", "/a/.dolmen", "/.dolmens", "/dolmen", "/%"] {
            assert!(!is_reserved(path), "{path}");
        }
    }
}
