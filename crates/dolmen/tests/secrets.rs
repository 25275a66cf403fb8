//! A secret that the site file takes from the environment is known to the workers, and to nobody else.
#![allow(clippy::unwrap_used)] // what a test lacks may end it

use std::path::Path;

use testkit::{Ran, Site, TOKEN_APP};

const DOLMEN: &str = env!("CARGO_BIN_EXE_dolmen");

const SITE: &str = r#"
[web]
[app]
workers = 1
command = "python3 app.py"
environment = { TOKEN = "env:DOLMEN_TEST_TOKEN" }
"#;

const SECRET: &str = "s3kr1t-t0k3n";

fn knows(pid: u32) -> bool {
    let about = |file: &str| std::fs::read(Path::new("/proc").join(pid.to_string()).join(file));
    ["environ", "cmdline"]
        .iter()
        .any(|file| about(file).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(SECRET)))
}

/// The files below this folder that hold the secret.
fn found_in(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read").flatten() {
        if entry.path().is_dir() {
            found_in(&entry.path(), found);
        } else if std::fs::read(entry.path()).is_ok_and(|b| String::from_utf8_lossy(&b).contains(SECRET)) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
}

#[test]
fn a_secret_of_the_environment_reaches_the_workers_alone() {
    let site = Site::new(DOLMEN, 83, SITE);
    site.write("app.py", TOKEN_APP);
    let up = || site.command(&["up", "--detach", "--block", "127.0.83"]);
    let missing = Ran::from(up().output().unwrap());
    assert!(missing.code != 0 && missing.says("DOLMEN_TEST_TOKEN"), "{missing:?}");
    Ran::from(up().env("DOLMEN_TEST_TOKEN", SECRET).output().unwrap()).fine();
    let answer = testkit::get(site.address(1, 8081), "/", &[]).unwrap();
    assert_eq!(answer.text(), SECRET, "the worker has it");
    let processes = site.processes();
    let who = processes.0.iter().filter(|(pid, _)| knows(**pid)).map(|(_, command)| command);
    let who: Vec<_> =
        who.filter(|command| !command.contains("app.py") && !command.contains(" up ")).collect();
    assert!(who.is_empty(), "{who:?}");
    let mut files = Vec::new();
    found_in(&site.state(), &mut files);
    assert_eq!(files, ["secrets.json"]);
}
