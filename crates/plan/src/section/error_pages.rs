//! `error-pages`: a folder with pages of the site's own, `503.html`, `5xx.html`. Part of `[balancer]`.

use std::path::{Component, Path, PathBuf};

use crate::ground::Files;
use crate::mistake::{Mistake, Notes};
use crate::typed::Written;

/// The folder, if it can be one.
pub(crate) fn mean(written: Option<&Written<String>>, files: &dyn Files, notes: &Notes) -> Option<PathBuf> {
    let written = written?;
    let path = Path::new(&written.value);
    let wrong = |message: String, hint: &str| {
        notes.note(Mistake::at(written.span.clone(), message).hint(hint));
    };
    let named = format!("the folder of error pages {:?}", written.value);
    if path.components().any(|component| component == Component::ParentDir) || written.value.contains('\0') {
        wrong(
            format!("{named} leads out of the application files"),
            "name a folder beside the site file, or write the whole path from `/`",
        );
    } else if files.is_file(path) {
        wrong(format!("{named} is a file"), "name the folder that the file is in");
    } else if !files.is_folder(path) {
        wrong(
            format!("{named} does not exist"),
            "make it, with pages as `503.html`, `5xx.html` or `4xx.html` in it",
        );
    }
    Some(path.to_owned())
}
