//! The Debian package, installed on a machine with a fresh /var and its own /etc and /usr, and started by its unit's
//! command line.

use std::path::Path;
use std::process::Command;

use testkit::{Bed, until};

use super::stage::{DOLMEN, FILES, WITHIN, page, status};

/// What a machine has after its installation from nothing: an empty package database, no account of ours.
const CLEAN: &str = "mount -t tmpfs clean /var
mkdir -p /var/over /var/work /var/lib/dpkg/info /var/lib/dpkg/updates /var/lib/dpkg/triggers /var/tmp
touch /var/lib/dpkg/status
mount -t overlay overlay -o lowerdir=/usr,upperdir=/var/over,workdir=/var/work /usr
for account in dolmen dolmen-app dolmen-db; do userdel $account 2>/dev/null || true; done";

#[test]
fn the_package_installs_on_a_clean_machine_and_its_unit_runs_the_site() {
    let mut bed = Bed::new(&["alpha"]);
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let alpha = bed.machine_mut("alpha");
    let made = Command::new(tree.join("scripts/package.sh"))
        .args([Path::new(DOLMEN), &alpha.folder])
        .env("DOLMEN_PACKAGE_COMPRESSION", "none")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let package = String::from_utf8(made.stdout).unwrap().trim().to_owned();

    alpha.run(&["sh", "-ec", CLEAN]).fine();
    // What it depends on is in /usr already, though this database knows of nothing.
    alpha.run(&["dpkg", "--force-depends", "--install", &package]).fine();
    for account in ["dolmen", "dolmen-app", "dolmen-db"] {
        alpha.run(&["id", account]).fine();
    }
    let unit = alpha.run(&["cat", "/lib/systemd/system/dolmen@.service"]).fine().out;
    for line in ["KillMode=process", "Delegate=yes", "Restart=on-failure"] {
        assert!(unit.lines().any(|has| has == line), "{line}");
    }

    let one = FILES.lines().filter(|line| !line.starts_with("beta") && !line.starts_with("gamma"));
    let one: Vec<&str> =
        one.map(|line| if line.starts_with("on =") { "on = [\"alpha\"]" } else { line }).collect();
    alpha.write("dolmen.toml", &one.join("\n"));
    std::fs::create_dir_all(alpha.folder.join("public")).unwrap();
    alpha.write("public/hello.txt", "hello\n");
    let before = alpha.run(&["/usr/bin/dolmen", "agent", "--site", "www.foobar.com"]);
    assert!(before.says("this machine belongs to no site yet"), "{before:?}");
    alpha.run(&["/usr/bin/dolmen", "agent", "alpha", "--prepare"]).fine();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let start = start.replace("%i", "www.foobar.com");
    alpha.serve(&start.split(' ').collect::<Vec<_>>());
    until("the site", WITHIN, || (status(&bed, "alpha")?["healthy"] == true).then_some(()));
    assert_eq!(page(&bed, "alpha"), "hello\n");

    // Removed, it leaves the state where it is.
    let alpha = bed.machine("alpha");
    alpha.run(&["dpkg", "--remove", "dolmen"]).fine();
    assert_ne!(alpha.run(&["ls", "/usr/bin/dolmen"]).code, 0);
    alpha.run(&["ls", "/var/lib/dolmen/www.foobar.com/plan.json"]).fine();
}
