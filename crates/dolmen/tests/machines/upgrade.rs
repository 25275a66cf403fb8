//! A newer program that rolls over three machines under load.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::Value;
use testkit::{Bed, Load, until};

use super::guestbook::SITE;
use super::stage::{ALL, DOLMEN, WITHIN, dolmen, is_drill, joined_with, status, until_healthy};

/// Requests a second, to the balancer of each machine.
const GETS: u32 = 60;
const POSTS: u32 = 5;

/// Puts a build of this number in the place of the program, on this machine alone. What runs goes on with the old one.
fn put(bed: &Bed, machine: &str, number: u32) {
    let machine = bed.machine(machine);
    let new = machine.folder.join(format!("dolmen-{number}"));
    std::fs::copy(DOLMEN, &new).unwrap();
    write!(std::fs::File::options().append(true).open(&new).unwrap(), "build {number}").unwrap();
    machine.run(&["mount", "--bind", new.to_str().unwrap(), DOLMEN]).fine();
}

/// Of each server: its machine, and its process there.
fn servers(bed: &Bed) -> BTreeMap<String, (String, u64)> {
    let status = status(bed, "alpha").unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let servers = status["servers"].as_array().unwrap().iter();
    servers.map(|s| (text(&s["name"]), (text(&s["machine"]), s["pid"].as_u64().unwrap()))).collect()
}

/// Whether this process of a machine runs the program that lies on its disk.
fn is_new(bed: &Bed, machine: &str, pid: u64) -> bool {
    bed.machine(machine).run(&["test", &format!("/proc/{pid}/exe"), "-ef", DOLMEN]).code == 0
}

fn failovers(bed: &Bed) -> Value {
    let database = &status(bed, "gamma").unwrap()["database"];
    Value::from(vec![database["primary"].clone(), database["timeline"].clone()])
}

#[test]
fn an_upgrade_rolls_over_three_machines_and_no_request_fails() {
    let bed = joined_with(SITE);
    let refused = {
        put(&bed, "beta", 0);
        dolmen(&bed, "alpha", &["upgrade"])
    };
    assert!(refused.code == 1 && refused.says("different programs on their disks"), "{refused:?}");
    for build in 1..=if is_drill() { 3 } else { 1 } {
        let (before, database) = (servers(&bed), failovers(&bed));
        ALL.iter().for_each(|machine| put(&bed, machine, build));
        let begin = |machine| Load::begin(bed.address(machine, 80), "/api/entries?limit=1", GETS, POSTS);
        let loads = ALL.map(begin);
        let ran = dolmen(&bed, "gamma", &["upgrade"]).fine();
        println!("{}", ran.out);
        assert!(ran.says("www.foobar.com runs dolmen"), "{ran:?}");
        for (machine, load) in ALL.iter().zip(loads) {
            let report = load.finish();
            let (failed, slowest) = (report.failed.len(), report.slowest);
            println!(
                "{machine}: {} GET, {} POST, {failed} failed, slowest {slowest:?}",
                report.gets, report.posts
            );
            assert!(report.gets > 0 && report.posts > 0 && failed == 0, "{machine}: {:?}", report.failed);
        }
        for (name, (machine, pid)) in servers(&bed) {
            assert!(is_new(&bed, &machine, pid), "{name} runs the new program");
            assert_eq!(before[&name].1 == pid, name.starts_with("database"), "{name}: {pid}");
        }
        assert_eq!(failovers(&bed), database, "no failover");
        until_healthy(&bed, &ALL);
        until("nothing left to do", WITHIN, || {
            dolmen(&bed, "beta", &["upgrade"]).says("already").then_some(())
        });
    }
}
