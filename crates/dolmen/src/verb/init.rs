//! `dolmen init`: a commented site file for the application in this folder.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::failure::Failure;
use crate::out;

/// A folder with more names is looked at no further.
const NAMES: usize = 10_000;

/// How much of a file is read.
const TEXT_BYTES: u64 = 256 * 1024;

#[derive(Debug, clap::Args)]
pub struct Init {}

impl Init {
    pub fn run(self, file: &Path) -> Result<ExitCode, Failure> {
        let home = super::home(file)?;
        let entries = std::fs::read_dir(&home.folder)?.take(NAMES).flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let pages = names.iter().map(|name| format!("{name}/index.html"));
        let pages: Vec<String> = pages.filter(|page| home.folder.join(page).is_file()).collect();
        names.extend(pages);
        let read = |name: &str| text(&home.folder.join(name));
        let text = plan::init(&plan::Folder { name: &home.name(), names: &names, read: &read });
        let created = OpenOptions::new().write(true).create_new(true).open(file);
        let mut created = created.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                Failure::mistake(format!("{} is there already; it was not changed", file.display()))
            }
            _ => Failure::failed(format!("cannot write {}: {error}", file.display())),
        })?;
        created.write_all(text.as_bytes())?;
        out::line(&format!("wrote {}; `dolmen up` runs it", file.display()));
        Ok(ExitCode::SUCCESS)
    }
}

/// The beginning of a file, if it is text: what `init` looks for stands there.
fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(TEXT_BYTES).read_to_end(&mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}
