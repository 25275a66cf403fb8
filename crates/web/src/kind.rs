//! File name to media type.

use std::path::Path;

/// The media type for a name, with the character set for text: files are taken to be UTF-8, as all but the
/// oldest are.
pub(crate) fn of(path: &Path) -> String {
    let kind = match path.extension().and_then(|extension| extension.to_str()) {
        // The guesser says application/javascript or nothing; RFC 9239 and browsers say this.
        Some("js" | "mjs") => "text/javascript".to_owned(),
        Some("webmanifest") => "application/manifest+json".to_owned(),
        _ => mime_guess::from_path(path).first_or_octet_stream().essence_str().to_owned(),
    };
    let is_text = kind.starts_with("text/") || matches!(kind.as_str(), "image/svg+xml" | "application/xml");
    if is_text { kind + "; charset=utf-8" } else { kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_ones() {
        for (name, kind) in [
            ("a.html", "text/html; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.svg", "image/svg+xml; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.PNG", "image/png"),
            ("a.woff2", "font/woff2"),
            ("a.wasm", "application/wasm"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a", "application/octet-stream"),
        ] {
            assert_eq!(of(Path::new(name)), kind, "{name}");
        }
    }
}
