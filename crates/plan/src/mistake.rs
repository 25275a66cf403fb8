//! A user's mistake: what is wrong, where, and what would be right. Mistakes are collected, never thrown,
//! and drawn the way rustc draws its own. No drawing ever shows a password that stands in the file.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet, normalize_untrusted_str};

/// So many are drawn; the rest is counted.
const DRAWN_LIMIT: usize = 50;

/// One mistake of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Lowercase: what is wrong, with what.
    pub message: String,
    /// Bytes of the text. None when it concerns the file as a whole.
    pub span: Option<Range<usize>>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether what stands at `span` is a secret, of which a drawing shows stars.
    pub secret: bool,
}

impl Mistake {
    pub(crate) fn at(span: Range<usize>, message: impl Into<String>) -> Mistake {
        Mistake { message: message.into(), span: Some(span), hint: None, secret: false }
    }

    pub(crate) fn of_file(message: impl Into<String>) -> Mistake {
        Mistake { message: message.into(), span: None, hint: None, secret: false }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Mistake {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn secret(mut self) -> Mistake {
        self.secret = true;
        self
    }

    /// The hint if there is one.
    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Mistake {
        self.hint = hint;
        self
    }
}

/// All mistakes of one site file, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    list: Vec<Mistake>,
}

impl Mistakes {
    pub(crate) fn one(mistake: Mistake) -> Mistakes {
        Mistakes { list: vec![mistake] }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.list.iter()
    }
}

impl std::fmt::Display for Mistakes {
    /// The bare messages; [`render`] draws them with their places.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let messages: Vec<&str> = self.list.iter().map(|mistake| mistake.message.as_str()).collect();
        f.write_str(&messages.join("; "))
    }
}

impl std::error::Error for Mistakes {}

/// Where the sections note their mistakes while they are read.
#[derive(Debug, Default)]
pub(crate) struct Notes(RefCell<Vec<Mistake>>);

impl Notes {
    /// A message may quote what was written, so passwords are taken out of it here, once for all readers.
    pub(crate) fn note(&self, mut mistake: Mistake) {
        mistake.message = without_passwords(&mistake.message);
        mistake.hint = mistake.hint.as_deref().map(without_passwords);
        self.0.borrow_mut().push(mistake);
    }

    /// In the order of the file, each once.
    pub(crate) fn into_mistakes(self) -> Mistakes {
        let mut list = self.0.into_inner();
        list.sort_by_key(|mistake| mistake.span.as_ref().map_or(0, |span| span.start));
        list.dedup();
        Mistakes { list }
    }
}

impl From<Mistakes> for Notes {
    fn from(mistakes: Mistakes) -> Notes {
        Notes(RefCell::new(mistakes.list))
    }
}

/// Draws mistakes with file, line, column, the line itself and a caret. `source` is the text that was read
/// ([`crate::Site::text`], empty when nothing could be), `path` its name for people.
pub fn render(mistakes: &Mistakes, source: &str, path: &str, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let source = without_secrets(mistakes, &without_passwords(source));
    let mut text = String::new();
    for mistake in mistakes.iter().take(DRAWN_LIMIT) {
        let _ = writeln!(text, "{}\n", draw(mistake, &source, path, &renderer));
    }
    let _ = writeln!(text, "{}", summary(mistakes.len(), path));
    text
}

fn summary(count: usize, path: &str) -> String {
    match count {
        1 => format!("1 mistake in {path}"),
        _ if count > DRAWN_LIMIT => format!("{count} mistakes in {path}, the first {DRAWN_LIMIT} are shown"),
        _ => format!("{count} mistakes in {path}"),
    }
}

fn draw(mistake: &Mistake, source: &str, path: &str, renderer: &Renderer) -> String {
    let mut group = Level::ERROR
        .primary_title(normalize_untrusted_str(&mistake.message))
        .elements(Vec::<Origin<'_>>::new());
    group = match &mistake.span {
        Some(span) => {
            let caret = AnnotationKind::Primary.span(drawable(span, source));
            group.element(Snippet::source(source).path(path).annotation(caret))
        }
        None => group.element(Origin::path(path)),
    };
    if let Some(hint) = &mistake.hint {
        group = group.element(Level::HELP.message(normalize_untrusted_str(hint)));
    }
    renderer.render(&[group])
}

/// A span that lies in the text, on character boundaries, and ends on the line on which it begins.
fn drawable(span: &Range<usize>, source: &str) -> Range<usize> {
    let start = source.floor_char_boundary(span.start);
    let line_end = source[start..].find('\n').map_or(source.len(), |length| start + length);
    let end = source.ceil_char_boundary(span.end).clamp(start, line_end);
    start..end
}

/// The text with stars of the same length in place of what mistakes say is secret.
fn without_secrets(mistakes: &Mistakes, source: &str) -> String {
    let mut bytes = source.as_bytes().to_vec();
    for span in mistakes.iter().filter(|mistake| mistake.secret).filter_map(|mistake| mistake.span.as_ref()) {
        let (start, end) = (source.floor_char_boundary(span.start), source.ceil_char_boundary(span.end));
        let hidden = bytes[start.min(end)..end].iter_mut().filter(|byte| **byte != b'\n');
        hidden.for_each(|byte| *byte = b'*');
    }
    String::from_utf8(bytes).unwrap_or_default()
}

/// The text with every password of a URL (`scheme://user:password@host`, `?password=…`) turned into stars
/// of the same length, so that spans still fit.
fn without_passwords(source: &str) -> String {
    let mut bytes = source.as_bytes().to_vec();
    for (start, _) in source.match_indices("://") {
        if let Some(range) = password_of(source, start + 3) {
            bytes[range].fill(b'*');
        }
    }
    for (start, word) in source.match_indices("password=") {
        let start = start + word.len();
        let end = end_of(source, start, |byte| matches!(byte, b'&' | b'"' | b'\'' | b' '));
        bytes[start..end].fill(b'*');
    }
    String::from_utf8(bytes).unwrap_or_default()
}

/// Where the password of the URL stands whose authority begins at `start`.
fn password_of(source: &str, start: usize) -> Option<Range<usize>> {
    let end = end_of(source, start, |byte| matches!(byte, b'"' | b'\'' | b' '));
    let at = start + source[start..end].rfind('@')?;
    let colon = start + source[start..at].find(':')?;
    Some(colon + 1..at)
}

fn end_of(source: &str, start: usize, ends: fn(u8) -> bool) -> usize {
    let stops = |byte: &u8| *byte == b'\n' || ends(*byte);
    source.as_bytes()[start..].iter().position(stops).map_or(source.len(), |length| start + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_become_stars_of_the_same_length() {
        let source = "url = \"postgres://me:s3cret@db/app?password=x1&a=b\" # http://plain.example/";
        let masked = without_passwords(source);
        assert_eq!(masked, "url = \"postgres://me:******@db/app?password=**&a=b\" # http://plain.example/");
    }

    #[test]
    fn spans_outside_the_text_are_drawn_at_its_end() {
        assert_eq!(drawable(&(90..99), "äö"), 4..4);
        assert_eq!(drawable(&(1..2), "äö"), 0..2);
    }
}
