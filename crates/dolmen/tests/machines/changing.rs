//! A machine that comes to a site that runs, and one that is taken out, seen by clients outside who count what fails.

use std::process::Command;

use testkit::{Bed, Load, until};

use super::stage::{
    ALL, DOLMEN, FILES, WITHIN, dolmen, join, joined, page, server, status, token, until_healthy,
};

/// Requests a second, to each machine.
const GETS: u32 = 60;

fn load(bed: &Bed, machine: &str) -> (String, Load) {
    (machine.to_owned(), Load::begin(bed.address(machine, 80), "/hello.txt", GETS, 0))
}

#[track_caller]
fn nothing_failed(loads: Vec<(String, Load)>) {
    for (machine, load) in loads {
        let report = load.finish();
        println!("{machine}: {} GETs, slowest {:?}", report.gets, report.slowest);
        assert!(report.gets > 0 && report.failed.is_empty(), "{machine}: {:?}", report.failed.first());
    }
}

/// The site file with these machines, each of which has every part.
fn site_of(machines: &[(&str, u8)]) -> String {
    let lines: Vec<String> =
        machines.iter().map(|(name, number)| format!("{name} = \"10.77.0.{number}\"\n")).collect();
    let names: Vec<String> = machines.iter().map(|(name, _)| format!("{name:?}")).collect();
    let lines = FILES
        .replace("alpha = \"10.77.0.1\"\nbeta = \"10.77.0.2\"\ngamma = \"10.77.0.3\"\n", &lines.concat());
    lines.replace(r#"["alpha", "beta", "gamma"]"#, &format!("[{}]", names.join(", ")))
}

/// The addresses by which DNS on this machine leads to the site.
fn named(bed: &Bed, machine: &str) -> Vec<String> {
    let server = format!("@{}", bed.address(machine, 53).ip());
    let output =
        Command::new("dig").args([&server, "+short", "+tries=1", "+time=2", "www.foobar.com"]).output();
    let text = String::from_utf8(output.expect("dig is installed (bind9-dnsutils)").stdout).unwrap();
    let mut addresses: Vec<String> = text.lines().map(str::to_owned).collect();
    addresses.sort();
    addresses
}

/// Applies a site file on the first machine.
fn apply(bed: &Bed, text: &str) -> testkit::Ran {
    bed.machine("alpha").write("dolmen.toml", text);
    dolmen(bed, "alpha", &["reload"])
}

fn machines(bed: &Bed, seen_from: &str) -> Option<Vec<String>> {
    let machines = status(bed, seen_from)?["machines"].clone();
    Some(machines.as_array()?.iter().map(|machine| machine["name"].as_str().unwrap().to_owned()).collect())
}

#[test]
fn a_fourth_machine_joins_a_site_that_runs_and_another_is_taken_out() {
    let mut bed = joined();
    let mut loads: Vec<_> = ALL.iter().map(|machine| load(&bed, machine)).collect();
    let four = site_of(&[("alpha", 1), ("beta", 2), ("gamma", 3), ("delta", 4)]);
    let taken = apply(&bed, &four.replace("10.77.0.4", "10.77.0.3"));
    assert!(taken.code == 2 && taken.says("`gamma` and `delta` have the same address"), "{taken:?}");
    let twice = apply(&bed, &four.replace("delta =", "gamma ="));
    assert!(twice.code == 2 && twice.says("duplicate key"), "{twice:?}");
    assert_eq!(status(&bed, "alpha").unwrap()["generation"], 1);

    let ran = apply(&bed, &four);
    ran.clone().fine();
    assert!(ran.says("the machine delta joins, at 10.77.0.4"), "{ran:?}");
    assert!(ran.says("delta has not joined yet: `dolmen token delta` here"), "{ran:?}");
    let seen = dolmen(&bed, "gamma", &["status"]);
    assert!(seen.code == 1 && seen.says("has not joined yet: `dolmen token delta` on alpha"), "{seen:?}");
    bed.add("delta");
    join(&bed, "delta", &token(&bed, "delta")).fine();
    bed.machine_mut("delta").serve(&[DOLMEN, "agent"]);
    let four = ["alpha", "beta", "gamma", "delta"];
    until_healthy(&bed, &four);
    assert_eq!(page(&bed, "delta"), "hello\n");
    loads.push(load(&bed, "delta"));
    for machine in four {
        assert_eq!(machines(&bed, machine).unwrap(), four, "seen from {machine}");
        until("DNS that names all four", WITHIN, || (named(&bed, machine).len() == 4).then_some(()));
    }
    let control = dolmen(&bed, "delta", &["control"]).out;
    assert_eq!(control.matches(" learns ").count(), 1, "{control}");

    take_out(&bed, "beta", &mut loads);
    nothing_failed(loads);
}

/// beta, in the middle, votes: first its vote goes to delta, then it leaves the site file.
fn take_out(bed: &Bed, gone: &str, loads: &mut Vec<(String, Load)>) {
    let without = site_of(&[("alpha", 1), ("gamma", 3), ("delta", 4)]);
    let refused = apply(bed, &without);
    assert!(refused.code == 1 && refused.says("control-2 on beta votes"), "{refused:?}");
    assert!(
        refused.says("`dolmen control replace control-2 control-4` gives its vote to delta"),
        "{refused:?}"
    );
    assert_eq!(status(bed, "alpha").unwrap()["generation"], 2);
    let itself = bed.machine("alpha");
    itself.write("dolmen.toml", &site_of(&[("beta", 2), ("gamma", 3), ("delta", 4)]));
    assert!(itself.run(&[DOLMEN, "reload"]).says("alpha cannot take itself out of the site"));

    dolmen(bed, "alpha", &["control", "replace", "control-2", "control-4"]).fine();
    let ran = apply(bed, &without);
    ran.clone().fine();
    assert!(ran.says("beta is out") && ran.says("`dolmen leave beta` revokes its key"), "{ran:?}");
    let three = ["alpha", "gamma", "delta"];
    until_healthy(bed, &three);
    for machine in three {
        assert_eq!(machines(bed, machine).unwrap(), three, "seen from {machine}");
        assert_eq!(page(bed, machine), "hello\n");
        assert_eq!(named(bed, machine), ["10.77.0.1", "10.77.0.3", "10.77.0.4"]);
    }
    assert_eq!(server(bed, "alpha", "web-3").unwrap()["machine"], "gamma", "the others keep their names");
    until("control without it", WITHIN, || {
        let control = dolmen(bed, "alpha", &["control"]).out;
        (control.lines().count() == 3 && !control.contains(" learns ")).then_some(())
    });
    let left = dolmen(bed, "alpha", &["status"]);
    assert!(left.code == 0 && left.says("beta is in the site file no more, but its key is good"), "{left:?}");

    // What still runs there changes nothing, and knows why.
    let order = dolmen(bed, gone, &["drain", "web-3"]);
    assert!(order.code != 0, "{order:?}");
    until("it says so", WITHIN, || {
        dolmen(bed, gone, &["status"]).says("beta was taken out of the site with generation 3").then_some(())
    });
    dolmen(bed, "gamma", &["leave", gone]).fine();
    until("nothing is left to be said of it", WITHIN, || {
        (!dolmen(bed, "alpha", &["status"]).says(gone)).then_some(())
    });
    assert_ne!(dolmen(bed, gone, &["drain", "web-3"]).code, 0);
    assert_eq!(status(bed, "delta").unwrap()["generation"], 3);
    // Those that still have its address are served until it is switched off.
    let place = loads.iter().position(|(machine, _)| machine == gone).unwrap();
    nothing_failed(vec![loads.remove(place)]);
    bed.cut(gone);
    until_healthy(bed, &three);
}
