//! Application files within reach of the accounts that serve them.
//!
//! Root's home is closed to other accounts, so a site that root starts is served from a copy: `releases/N`,
//! and beside it `releases/N.bin` with the program of `[app] command` when that stands beside the dolmen
//! binary. A copy is made under another name and renamed when it is whole; the same files make no new one. An
//! application may use any file of the folder; without one a release holds only what is served, and nothing of what else
//! lies beside the site file.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use plan::Plan;
use serde::{Deserialize, Serialize};

use super::{InForce, StateError, account};

/// Never part of a release: our own state, and what only a developer needs.
const LEFT_OUT: [&str; 3] = [".dolmen", ".git", "target"];

/// Releases that are kept; older ones are removed.
const KEPT: u32 = 3;

/// The application files that servers use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Absent when the files are used where they are, and are no copy.
    pub number: Option<u32>,
    pub files: PathBuf,
    /// Where programs beside the dolmen binary are.
    pub programs: PathBuf,
}

/// Where programs beside the dolmen binary are.
pub fn beside_binary() -> io::Result<PathBuf> {
    let binary = std::env::current_exe()?;
    binary.parent().map(Path::to_owned).ok_or_else(|| io::Error::other("the binary has no folder"))
}

/// The releases of a site on this machine.
#[derive(Clone, Debug)]
pub struct ReleaseStore(PathBuf);

impl ReleaseStore {
    pub fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// The release of the files of this digest.
    pub fn find(&self, digest: &str) -> Option<Release> {
        let is_it = |number: &u32| {
            fs::read_to_string(digest_file(&self.0, *number)).is_ok_and(|kept| kept == digest)
                && at(&self.0, *number).files.is_dir()
        };
        self.numbers().into_iter().find(is_it).map(|number| at(&self.0, number))
    }

    pub fn digest_of(&self, release: &Release) -> io::Result<String> {
        match release.number {
            Some(number) => fs::read_to_string(digest_file(&self.0, number)),
            None => Err(io::Error::other("the files are used where they are, and are no release")),
        }
    }

    /// What is in a release, folders before what is in them.
    pub fn walk(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        walk(folder, &[PathBuf::new()])
    }

    /// The account that may read application files.
    pub fn application(&self) -> Option<u32> {
        account::application().map(|account| account.gid)
    }

    /// Empty folders for a release that comes from another machine. An earlier one that was not finished is gone.
    pub fn begin(&self) -> io::Result<Release> {
        let files = self.0.join("releases").join("incoming");
        let release = Release { number: None, programs: files.with_added_extension("bin"), files };
        remove(&release)?;
        fs::create_dir_all(&release.files)?;
        fs::create_dir_all(&release.programs)?;
        Ok(release)
    }

    /// All of it is there: from now on it is found by its digest.
    pub fn finish(&self, incoming: Release, digest: &str) -> io::Result<Release> {
        let number = self.numbers().last().copied().unwrap_or(0) + 1;
        let release = at(&self.0, number);
        remove(&release)?;
        rustix::fs::syncfs(File::open(&incoming.files)?)?;
        fs::rename(&incoming.programs, &release.programs)?;
        fs::rename(&incoming.files, &release.files)?;
        link::disk::replace(&digest_file(&self.0, number), digest.as_bytes(), link::disk::Access::Everyone)?;
        forget(&self.0, number)?;
        Ok(release)
    }

    /// The numbers of all releases that are whole, in order.
    fn numbers(&self) -> Vec<u32> {
        let entries = fs::read_dir(self.0.join("releases")).into_iter().flatten().flatten();
        let number = |name: &str| name.strip_suffix(".digest")?.parse().ok();
        let mut numbers: Vec<u32> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
        numbers.sort_unstable();
        numbers
    }
}

fn at(root: &Path, number: u32) -> Release {
    let files = root.join("releases").join(number.to_string());
    Release { number: Some(number), programs: files.with_added_extension("bin"), files }
}

/// The release of the files as they are now: the one in force if nothing changed, else a new copy.
pub fn make(root: &Path, home: &Path, plan: &Plan, old: Option<&Release>) -> Result<Release, StateError> {
    let failed = |error| StateError::Release { path: home.to_owned(), error };
    let program = program(home, plan).map_err(failed)?;
    let files = walk(home, &parts(plan)).map_err(failed)?;
    let digest = digest(home, &files, program.as_deref()).map_err(failed)?;
    let last = old.and_then(|old| old.number).unwrap_or(0);
    if last > 0 && fs::read_to_string(digest_file(root, last)).is_ok_and(|kept| kept == digest) {
        return Ok(at(root, last));
    }
    // Not one that a reload made which did not come into force: an agent may be at it.
    let newest = ReleaseStore::new(root).numbers().last().copied().unwrap_or(0);
    let number = newest.max(last) + 1;
    let release = at(root, number);
    copy_whole(home, &files, &public(plan), program.as_deref(), &release).map_err(failed)?;
    link::disk::replace(&digest_file(root, number), digest.as_bytes(), link::disk::Access::Everyone)?;
    forget(root, number).map_err(failed)?;
    Ok(release)
}

/// The folders of what everybody may see, which the account of web servers and balancers reads.
fn public(plan: &Plan) -> Vec<PathBuf> {
    let static_files = plan.web.as_ref().and_then(|web| web.root.as_deref());
    let error_pages = plan.balancer.as_ref().and_then(|balancer| balancer.error_pages.as_deref());
    // As `walk` names what is in them: without `.` at the beginning or within.
    let plain = |folder: &Path| -> PathBuf {
        folder.components().filter(|part| *part != std::path::Component::CurDir).collect()
    };
    [static_files, error_pages].into_iter().flatten().map(plain).collect()
}

/// The parts of the folder that servers use; an empty path is all of it.
fn parts(plan: &Plan) -> Vec<PathBuf> {
    if plan.app.is_some() { vec![PathBuf::new()] } else { public(plan) }
}

/// Removes releases that are too old to be kept beside this one. The one in force stays, however old its number is:
/// files that came back to what they were before have their old number again.
fn forget(root: &Path, newest: u32) -> io::Result<()> {
    let in_force: Option<InForce> = link::disk::read_json(&root.join("plan.json"))?;
    let in_force = in_force.and_then(|in_force| in_force.release.number);
    let mut too_old = (1..(newest + 1).saturating_sub(KEPT)).filter(|old| Some(*old) != in_force);
    too_old.try_for_each(|old| remove(&at(root, old)))
}

fn digest_file(root: &Path, number: u32) -> PathBuf {
    root.join("releases").join(format!("{number}.digest"))
}

/// The program that `command` finds beside the binary and not in the site's folder.
fn program(home: &Path, plan: &Plan) -> io::Result<Option<PathBuf>> {
    let Some(app) = &plan.app else { return Ok(None) };
    let words = plan::command::words(&app.command).unwrap_or_default();
    let Some(name) = words.first().filter(|name| !name.contains('/')) else { return Ok(None) };
    if home.join(name).is_file() {
        return Ok(None);
    }
    let beside = beside_binary()?.join(name);
    Ok(beside.is_file().then_some(beside))
}

/// Changes when any file's place, size, mode or content does; the same on all machines.
fn digest(home: &Path, files: &[PathBuf], program: Option<&Path>) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    for path in files.iter().map(PathBuf::as_path).chain(program) {
        let meta = fs::symlink_metadata(path)?;
        // A program stands outside; its name says all of its place.
        let place = path.strip_prefix(home).unwrap_or(Path::new(path.file_name().unwrap_or_default()));
        let link = if meta.is_symlink() { fs::read_link(path)? } else { PathBuf::new() };
        for text in [place.as_os_str().as_encoded_bytes(), link.as_os_str().as_encoded_bytes()] {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text);
        }
        context.update(&meta.permissions().mode().to_be_bytes());
        if meta.is_file() {
            context.update(&meta.len().to_be_bytes());
            hash_content(path, &mut context)?;
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn hash_content(path: &Path, context: &mut Context) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            count => context.update(&buffer[..count]),
        }
    }
}

/// All files and folders of these parts of `home`, sorted, folders before what is in them.
fn walk(home: &Path, parts: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let is_wanted = |path: &Path| {
        let below = path.strip_prefix(home).unwrap_or(path);
        parts.iter().any(|part| below.starts_with(part) || part.starts_with(below))
    };
    let mut found = Vec::new();
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let is_left_out = folder == home && LEFT_OUT.iter().any(|name| entry.file_name() == *name);
            if is_left_out || !is_wanted(&entry.path()) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn copy_whole(
    home: &Path,
    files: &[PathBuf],
    public: &[PathBuf],
    program: Option<&Path>,
    release: &Release,
) -> io::Result<()> {
    remove(release)?;
    let unfinished = release.files.with_added_extension("new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)?;
    fs::create_dir_all(&release.programs)?;
    for path in files {
        let below = path.strip_prefix(home).map_err(io::Error::other)?;
        let public = public.iter().any(|public| below.starts_with(public));
        copy_one(path, &unfinished.join(below), public)?;
    }
    if let Some(program) = program
        && let Some(name) = program.file_name()
    {
        fs::copy(program, release.programs.join(name))?;
    }
    rustix::fs::syncfs(File::open(&unfinished)?)?;
    fs::rename(&unfinished, &release.files)?;
    link::disk::sync_folder(&release.files)
}

/// Copies a file, folder or link. What not everybody may read, the application's group may; what is served to
/// everybody, everybody may.
fn copy_one(from: &Path, to: &Path, public: bool) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    if meta.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    let mode = meta.permissions().mode() & 0o777;
    if meta.is_dir() {
        fs::create_dir_all(to)?;
    } else if meta.is_file() {
        fs::copy(from, to)?;
    } else {
        // A socket or pipe belongs to a running program, not to a release.
        return Ok(());
    }
    if meta.is_file() {
        // The time of a file is part of its ETag, which all machines must agree on.
        File::options().write(true).open(to)?.set_modified(meta.modified()?)?;
    }
    let readable = match (public, meta.is_dir()) {
        (true, true) => 0o055,
        (true, false) => 0o044,
        (false, true) => 0o050,
        (false, false) => 0o040,
    };
    fs::set_permissions(to, Permissions::from_mode(mode | readable))?;
    if let Some(account) = account::application() {
        chown(to, None, Some(account.gid))?;
    }
    Ok(())
}

fn remove(release: &Release) -> io::Result<()> {
    for folder in [&release.files, &release.programs] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_without_an_application_takes_only_what_it_serves() {
        let home = std::env::temp_dir().join(format!("dolmen-release-{}", std::process::id()));
        for folder in ["public/deep", "errors", "keys", ".git", "other/public"] {
            fs::create_dir_all(home.join(folder)).unwrap();
        }
        for file in
            ["public/deep/a", "errors/503.html", "keys/secret", "dolmen.toml", ".git/x", "other/public/b"]
        {
            link::disk::replace(&home.join(file), b"x", link::disk::Access::Owner).unwrap();
        }
        let of = |text: &str| -> Vec<String> {
            let ground = plan::Ground {
                place: plan::Place::Machines,
                generation: 1,
                folder: "site",
                files: &plan::Disk { folder: home.clone() },
            };
            let plan = plan::Site::from_text(text).plan(&ground).unwrap();
            let found = walk(&home, &parts(&plan)).unwrap();
            found.iter().map(|path| path.strip_prefix(&home).unwrap().display().to_string()).collect()
        };
        assert!(of("[balancer]\nservers = [\"10.0.0.1:80\"]").is_empty());
        let pages = of("[balancer]\nservers = [\"10.0.0.1:80\"]\nerror-pages = \"errors\"");
        assert_eq!(pages, ["errors", "errors/503.html"]);
        assert_eq!(of("[web]\nroot = \"./public\""), ["public", "public/deep", "public/deep/a"]);
        let all = of("[app]\ncommand = \"true\"\n[web]\nroot = \"public\"");
        assert!(all.contains(&"keys/secret".into()) && !all.iter().any(|path| path.starts_with(".git")));
        fs::remove_dir_all(&home).unwrap();
    }
}
