//! `access-log`: a word, `"off"` or a format, or a table. Part of `[balancer]` and `[web]`.

use std::path::PathBuf;

use crate::meant::{AccessLog, LogFormat};
use crate::typed::{Item, Table};

/// One line must fit, and logrotate may want large files.
const FILE_BYTES_MIN: u64 = 64 << 10;
const FILE_BYTES_MAX: u64 = 1 << 40;
const FILES_MAX: u64 = 1_000;

/// The words of the short form.
const WORDS: [(&str, Option<LogFormat>); 4] = [
    ("off", None),
    ("combined", Some(LogFormat::Combined)),
    ("json", Some(LogFormat::Json)),
    ("timers", Some(LogFormat::Timers)),
];

/// What is written: None when nothing is.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccessLogKeys(Option<Option<AccessLog>>);

impl AccessLogKeys {
    pub(crate) fn read(parent: &mut Table<'_>, title: &str) -> AccessLogKeys {
        let Some(item) = parent.get("access-log") else { return AccessLogKeys::default() };
        if item.value.as_str().is_some() {
            return AccessLogKeys(item.choice(&WORDS).map(|written| with(written.value)));
        }
        AccessLogKeys(item.table(title).map(|table| Some(long(table))))
    }

    /// `by_default`: whether there is one where nothing is written.
    pub(crate) fn mean(&self, by_default: bool) -> Option<AccessLog> {
        self.0.clone().unwrap_or_else(|| by_default.then(AccessLog::default))
    }
}

fn with(format: Option<LogFormat>) -> Option<AccessLog> {
    format.map(|format| AccessLog { format, ..AccessLog::default() })
}

fn long(mut table: Table<'_>) -> AccessLog {
    let default = AccessLog::default();
    let format = table.get("format").and_then(|item| item.choice(&LogFormat::ALL));
    let path = table.get("path").and_then(|item| whole_path(&item));
    let size = table.get("size").and_then(|item| item.bytes(FILE_BYTES_MIN, FILE_BYTES_MAX));
    let files = table.number("files", 1, FILES_MAX);
    table.close();
    AccessLog {
        format: format.map_or(default.format, |written| written.value),
        path,
        file_bytes: size.map_or(default.file_bytes, |written| written.value),
        files: files.and_then(|written| u32::try_from(written.value).ok()).unwrap_or(default.files),
    }
}

fn whole_path(item: &Item<'_>) -> Option<PathBuf> {
    item.checked(|text| match text.starts_with('/') && !text.ends_with('/') && !text.contains('\0') {
        true => Ok(PathBuf::from(text)),
        false => Err((
            format!("the access log {text:?} is not the whole path of a file"),
            "write it from `/`, or leave it away: then it is access.log in the server's own folder".into(),
        )),
    })
    .map(|written| written.value)
}
