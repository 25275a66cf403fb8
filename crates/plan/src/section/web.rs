//! `[web]`: the files under `root`, and everything else from the application.

use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use crate::ground::Files;
use crate::meant::{Target, Web};
use crate::mistake::{Mistake, Notes};
use crate::section::access_log::AccessLogKeys;
use crate::section::health::CheckKeys;
use crate::section::patience::{TimeoutKeys, WEB_IDLE_MS};
use crate::section::target::{self, TargetEntry};
use crate::typed::{On, Table, Written};

/// Served when it is there and no other is written.
pub(crate) const DEFAULT_ROOT: &str = "public";

#[derive(Clone, Debug, Default)]
pub(crate) struct WebSection {
    /// Its name in the file.
    pub(crate) span: Range<usize>,
    pub(crate) on: On,
    pub(crate) port: Option<Written<u16>>,
    root: Option<Written<String>>,
    /// Whether `root` or `app` is there at all, be it wrong or mistyped.
    means_something: bool,
    pub(crate) app: Option<Written<Vec<TargetEntry>>>,
    check: CheckKeys,
    timeouts: TimeoutKeys,
    access_log: AccessLogKeys,
}

impl WebSection {
    pub(crate) fn read(mut table: Table<'_>) -> WebSection {
        let mut section = WebSection {
            span: table.span.clone(),
            on: table.on(),
            port: table.port("port"),
            means_something: false,
            root: table.get("root").and_then(|item| item.text()),
            app: table.get("app").map(|item| target::read(&item)),
            check: CheckKeys::read(&mut table, "[web.check]"),
            timeouts: TimeoutKeys::read(&mut table, "[web.timeouts]"),
            access_log: AccessLogKeys::read(&mut table, "[web.access-log]"),
        };
        section.means_something = table.means("root") || table.means("app");
        table.close();
        section
    }

    /// `own`: the app servers of this site. `is_first`: whether clients come here, and not to a balancer.
    pub(crate) fn mean(&self, own: Vec<Target>, is_first: bool, files: &dyn Files, notes: &Notes) -> Web {
        let app = self.app.as_ref().map_or(own, |app| target::mean(&app.value));
        Web {
            root: self.meant_root(app.is_empty() && self.app.is_none(), files, notes),
            app,
            check: self.check.mean(self.app.is_none()),
            timeouts: self.timeouts.mean(WEB_IDLE_MS),
            access_log: self.access_log.mean(is_first),
        }
    }

    /// `alone`: whether there is no application, so that files are all there is to serve.
    fn meant_root(&self, alone: bool, files: &dyn Files, notes: &Notes) -> Option<PathBuf> {
        match &self.root {
            Some(root) => {
                if let Some(mistake) = wrong_root(root, alone, files) {
                    notes.note(mistake);
                }
                Some(PathBuf::from(&root.value))
            }
            None => files.is_folder(Path::new(DEFAULT_ROOT)).then(|| PathBuf::from(DEFAULT_ROOT)),
        }
    }

    /// Whether the file says what to serve: a folder (be it written wrong) or app servers.
    pub(crate) fn serves_something(&self, web: &Web) -> bool {
        self.means_something || web.root.is_some() || !web.app.is_empty()
    }
}

fn wrong_root(root: &Written<String>, alone: bool, files: &dyn Files) -> Option<Mistake> {
    let path = Path::new(&root.value);
    let at = |message: String| Mistake::at(root.span.clone(), message);
    if path.components().any(|component| component == Component::ParentDir) {
        let message = format!("the root {:?} leads out of the application files", root.value);
        return Some(
            at(message).hint("name a folder beside the site file, or write the whole path from `/`"),
        );
    }
    if root.value.contains('\0') {
        return Some(at("the root cannot be the name of a folder".to_owned()));
    }
    let is_here = path.components().all(|component| component == Component::CurDir);
    if is_here && !alone {
        let message = format!("the root {:?} would show the application itself to everybody", root.value);
        return Some(
            at(message).hint("put the files that everybody may see in a folder of their own, `public`"),
        );
    }
    if files.is_folder(path) {
        return None;
    }
    let message = match files.is_file(path) {
        true => format!("the root {:?} is a file", root.value),
        false => format!("the root {:?} does not exist", root.value),
    };
    let hint = match files.is_file(path) {
        true => "name the folder that the file is in",
        false => {
            "make the folder, or correct the name; without `root` the folder `public` is served if it is there"
        }
    };
    Some(at(message).hint(hint))
}
