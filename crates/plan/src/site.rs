//! A site file that was read: its text, what was typed, and the mistakes found on the way.
//!
//! Mistakes do not end the reading. They are kept until the meaning is asked for, so that those of the
//! wording and those of the meaning are reported together.

use std::io::Read;
use std::path::Path;

use crate::ground::Ground;
use crate::meaning;
use crate::meant::{Plan, Server};
use crate::mistake::{Mistake, Mistakes, Notes};
use crate::typed::{self, Typed};

/// A site file larger than this is not one.
const FILE_LIMIT_BYTES: u64 = 1024 * 1024;

/// One site file.
#[derive(Clone, Debug)]
pub struct Site {
    text: String,
    /// None when the text is not TOML; then `mistakes` says where.
    typed: Option<Typed>,
    mistakes: Mistakes,
}

impl Site {
    /// Reads a site file. Fails only when there is no text to speak of: no such file, a folder, not UTF-8.
    /// Mistakes in the text are reported by [`Site::plan`].
    pub fn read(path: &Path) -> Result<Site, Mistakes> {
        let bytes = bytes_of(path).map_err(Mistakes::one)?;
        let text = String::from_utf8(bytes).map_err(|error| Mistakes::one(not_utf8(path, &error)))?;
        Ok(Site::from_text(&text))
    }

    /// Reads a text, without any system call.
    pub fn from_text(text: &str) -> Site {
        let notes = Notes::default();
        let typed = typed::read(text, &notes);
        Site { text: text.to_owned(), typed, mistakes: notes.into_mistakes() }
    }

    /// The text, which [`crate::render`] needs to draw mistakes in their lines.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the file means on this ground, or every mistake in it, in the order of the file.
    pub fn plan(&self, ground: &Ground<'_>) -> Result<Plan, Mistakes> {
        self.plan_with(ground, &[])
    }

    /// The same as the plan that comes after `old`: servers keep the names that they have there.
    pub fn plan_after(&self, ground: &Ground<'_>, old: &Plan) -> Result<Plan, Mistakes> {
        self.plan_with(ground, &old.servers)
    }

    fn plan_with(&self, ground: &Ground<'_>, before: &[Server]) -> Result<Plan, Mistakes> {
        let notes = Notes::from(self.mistakes.clone());
        let plan = self.typed.as_ref().map(|typed| meaning::mean(typed, ground, before, &notes));
        let mistakes = notes.into_mistakes();
        match plan {
            Some(plan) if mistakes.is_empty() => Ok(plan),
            Some(_) | None => Err(mistakes),
        }
    }
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, Mistake> {
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(FILE_LIMIT_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Ok(length) if length as u64 > FILE_LIMIT_BYTES => Err(Mistake::of_file(format!(
            "{} is larger than {FILE_LIMIT_BYTES} bytes and so no site file",
            path.display()
        ))),
        Ok(_) => Ok(bytes),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Mistake {
    let mistake = Mistake::of_file(format!("cannot read {}: {error}", path.display()));
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            mistake.hint("`dolmen init` writes one for the application in this folder")
        }
        std::io::ErrorKind::IsADirectory => mistake.hint("name the file in it: `--file FOLDER/dolmen.toml`"),
        _ => mistake,
    }
}

/// The text cannot be drawn, so the message itself says where.
fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> Mistake {
    let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
    let column = 1 + valid.iter().rev().take_while(|byte| **byte != b'\n').count();
    Mistake::of_file(format!("{} is not UTF-8 text (line {line}, byte {column})", path.display()))
        .hint("save it as UTF-8")
}
