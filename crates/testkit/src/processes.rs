//! Which processes of a site live, told by what they were started with.

use std::collections::BTreeMap;
use std::path::Path;

/// The processes that mention a path in their arguments, environment, open folder or program, by id.
#[derive(Clone, Debug, Default)]
pub struct Processes(pub BTreeMap<u32, String>);

impl Processes {
    /// All processes that belong to the site whose state or home folder is one of these.
    pub fn of(folders: &[&Path]) -> Self {
        let mut found = BTreeMap::new();
        let entries = std::fs::read_dir("/proc").expect("there is a /proc");
        for pid in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            if pid != std::process::id()
                && let Some(command) = belongs(pid, folders)
            {
                found.insert(pid, command);
            }
        }
        Self(found)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn belongs(pid: u32, folders: &[&Path]) -> Option<String> {
    let folder = Path::new("/proc").join(pid.to_string());
    let read = |file: &str| std::fs::read(folder.join(file)).unwrap_or_default();
    let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
    let cwd = std::fs::read_link(folder.join("cwd")).unwrap_or_default();
    // As a whole path: another site's folder may begin with the same letters.
    let own = |path: &&&Path| {
        let path_text = path.display().to_string();
        let ends = |rest: &str| rest.is_empty() || rest.starts_with(['/', ' ']);
        command.split(&path_text).skip(1).any(ends) || cwd.starts_with(path)
    };
    // A process that is dead but not yet collected is nobody's.
    let dead = String::from_utf8_lossy(&read("stat")).rsplit(')').next().is_some_and(|s| s.starts_with(" Z"));
    (!dead && folders.iter().any(|path| own(&path))).then_some(command)
}
