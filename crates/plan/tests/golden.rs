//! Site files in `sites/`, and beside each what is said of it: the plan as text, or the mistakes as drawn.
//! `UPDATE=1` writes the expectations anew.
//!
//! A line `#: folder NAME` in a site says that this folder exists, `#: file NAME` that this file does, and
//! `#: on machines` that the plan is made for real machines instead of `up`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use plan::{Disk, Files, Ground, Place, Site, describe, render};

struct Facts(String);

impl Facts {
    fn has(&self, fact: &str) -> bool {
        self.0.lines().any(|line| line.strip_prefix("#: ") == Some(fact))
    }
}

impl Files for Facts {
    fn is_folder(&self, path: &Path) -> bool {
        self.has(&format!("folder {}", path.display()))
    }

    fn is_file(&self, path: &Path) -> bool {
        self.has(&format!("file {}", path.display()))
    }
}

fn said_of(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).expect("sites have plain names");
    let site = match Site::read(path) {
        Ok(site) => site,
        Err(mistakes) => {
            return render(&mistakes, "", name, false).replace(&path.display().to_string(), name);
        }
    };
    let facts = Facts(site.text().to_owned());
    let place = if facts.has("on machines") { Place::Machines } else { Place::Up { block: 1 } };
    match site.plan(&Ground { place, generation: 1, folder: "shop", files: &facts }) {
        Ok(plan) => describe(&plan),
        Err(mistakes) => render(&mistakes, site.text(), name, false),
    }
}

fn sites() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sites");
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut sites: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    sites.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    sites.sort();
    sites
}

#[test]
fn every_site_is_said_to_be_what_it_is() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    for site in sites() {
        let expected = site.with_extension("expected");
        let said = said_of(&site);
        if update {
            let mut file = std::fs::File::create(&expected).expect("the folder can be written");
            file.write_all(said.as_bytes()).expect("the disk has room");
        } else if std::fs::read_to_string(&expected).ok().as_deref() != Some(said.as_str()) {
            wrong.push(format!("--- {}\n{said}", site.display()));
        }
    }
    assert!(wrong.is_empty(), "other than expected (UPDATE=1 accepts it):\n{}", wrong.join("\n"));
}

#[test]
fn the_example_site_has_the_whole_path_twice() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/guestbook");
    let site = Site::read(&folder.join("dolmen.toml")).expect("the example has a site file");
    let files = Disk { folder };
    let ground = Ground { place: Place::Up { block: 1 }, generation: 1, folder: "guestbook", files: &files };
    let plan = site.plan(&ground).expect("the example is right");
    let names: Vec<&str> = plan.servers.iter().map(|server| server.name.as_str()).collect();
    let expected = [
        "dns-1",
        "balancer-1",
        "web-1",
        "web-2",
        "app-1",
        "app-2",
        "gate-1",
        "gate-2",
        "control-1",
        "control-2",
        "control-3",
        "database-1",
        "database-2",
    ];
    assert_eq!(names, expected);
}
