//! Certificates end, and are renewed by themselves long before: nobody notices. Who was away for too long is told what to do.

use std::fs::read;
use std::time::Duration;

use testkit::{Bed, Load, until};

use super::stage::{
    Begun, WITHIN, an_hour_ahead, begun_as, dolmen, join, server, status, token, until_healthy,
};

/// Certificates of so many seconds are renewed after a third of them.
const SECONDS: u64 = 24;

const ALL: [&str; 4] = ["alpha", "beta", "gamma", "delta"];

/// Three vote; delta keeps no authority, and asks for its certificates.
const SITE: &str = r#"domain = "www.foobar.com"
[machines]
alpha = "10.77.0.1"
beta = "10.77.0.2"
gamma = "10.77.0.3"
delta = "10.77.0.4"
[balancer]
on = ["alpha", "beta", "gamma", "delta"]
[web]
on = ["alpha", "beta", "gamma", "delta"]
root = "public"
"#;

fn certificate(bed: &Bed, machine: &str, folder: &str) -> Vec<u8> {
    read(bed.machine(machine).state().join("www.foobar.com").join(folder).join("agent.crt")).unwrap()
}

fn all_certificates(bed: &Bed) -> Vec<Vec<u8>> {
    let own = ALL.iter().map(|machine| certificate(bed, machine, &format!("machines/{machine}")));
    own.chain([certificate(bed, "alpha", "operator")]).collect()
}

#[test]
fn certificates_rotate_under_load_and_who_was_away_past_the_end_is_told_what_to_do() {
    let seconds = format!("DOLMEN_CERTIFICATE_SECONDS={SECONDS}");
    let bed = begun_as(&Begun { machines: &ALL, site: SITE, environment: &[&seconds], ..Begun::default() });
    let first = all_certificates(&bed);
    let web: Vec<_> =
        (1..=4).map(|n| server(&bed, "alpha", &format!("web-{n}")).unwrap()["pid"].clone()).collect();
    let loads: Vec<Load> =
        ALL.iter().map(|machine| Load::begin(bed.address(machine, 80), "/hello.txt", 50, 0)).collect();
    std::thread::sleep(Duration::from_secs(SECONDS + SECONDS / 2));
    until_healthy(&bed, &ALL);
    for (machine, load) in ALL.iter().zip(loads) {
        let report = load.finish();
        println!("{machine} answered {} GETs, slowest {:?}", report.gets, report.slowest);
        assert!(report.gets > 0 && report.failed.is_empty(), "{machine}: {:?}", report.failed.first());
    }
    for (before, now) in first.iter().zip(all_certificates(&bed)) {
        assert_ne!(*before, now, "the first ones have ended");
    }
    let now: Vec<_> =
        (1..=4).map(|n| server(&bed, "alpha", &format!("web-{n}")).unwrap()["pid"].clone()).collect();
    assert_eq!(web, now, "servers go on");
    // Orders are given, and agreed on, with certificates that were not there at the beginning.
    dolmen(&bed, "alpha", &["drain", "web-4"]).fine();
    dolmen(&bed, "beta", &["ready", "web-4"]).fine();

    bed.cut("delta");
    std::thread::sleep(Duration::from_secs(SECONDS));
    bed.plug("delta");
    let told = dolmen(&bed, "delta", &["status"]);
    assert!(told.code != 0 && told.says("the certificate of delta ended"), "{told:?}");
    assert!(told.says("`dolmen token delta` on alpha, then `dolmen join TOKEN` here"), "{told:?}");
    let token = token(&bed, "delta");
    // A cable that was just plugged does not carry yet.
    let joined = until("the way to alpha", WITHIN, || {
        Some(join(&bed, "delta", &token)).filter(|joined| !joined.says("cannot be reached"))
    });
    joined.fine();
    until_healthy(&bed, &ALL);
}

#[test]
fn a_clock_that_is_an_hour_off_is_told_and_costs_nothing() {
    let mut bed = begun_as(&Begun { join: &["beta"], ..Begun::default() });
    join(&bed, "gamma", &token(&bed, "gamma")).fine();
    let agent = an_hour_ahead(&bed, &format!("{} agent", super::stage::DOLMEN));
    bed.machine_mut("gamma").serve(&["sh", "-c", &agent]);
    until_healthy(&bed, &super::stage::ALL);
    until("alpha speaks of the clock of gamma", WITHIN, || {
        let notes = status(&bed, "alpha")?["machines"][2]["notes"].to_string();
        let told = notes.contains("the clock of gamma is 3") && notes.contains("s ahead of that of alpha");
        told.then_some(())
    });
    let seen = dolmen(&bed, "alpha", &["status"]);
    assert!(seen.says("`timedatectl set-ntp true`"), "{seen:?}");
}
