//! The loss of any one machine, of agents and of control, seen by a client outside who counts what fails.

use std::time::{Duration, Instant};

use testkit::{Bed, Load, Outcome, until};

use super::stage::{
    ALL, Begun, DOLMEN, FILES, WITHIN, begun_as, dolmen, is_drill, join, joined, page, server, status,
    token_from, until_healthy,
};

/// Requests a second, to each of the machines that stay.
const GETS: u32 = 250;

/// A GET that a living balancer receives later than this after the fault is answered.
const AGAIN: Duration = Duration::from_secs(2);

/// How long a fault lasts: longer than anything that notices it takes.
const FAULT: Duration = Duration::from_secs(6);

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// All its processes end, and the kernel says so to their peers.
    Killed,
    /// All its processes stop where they are.
    Frozen,
    /// The cable is pulled: no FIN, no RST.
    CutOff,
    /// The power fails: the same, and the processes are gone.
    Lost,
}

/// Loses a machine under load, brings it back, and gives the failures of requests that were sent later than allowed.
fn lose(bed: &mut Bed, machine: &str, fault: Fault) -> Vec<Outcome> {
    let stay: Vec<&str> = ALL.into_iter().filter(|other| *other != machine).collect();
    let loads: Vec<Load> =
        stay.iter().map(|stay| Load::begin(bed.address(stay, 80), "/hello.txt", GETS, 0)).collect();
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    let at = began.elapsed();
    match fault {
        Fault::Killed => bed.machine_mut(machine).kill(),
        Fault::Frozen => bed.machine(machine).freeze(),
        Fault::CutOff => bed.cut(machine),
        Fault::Lost => bed.lose(machine),
    }
    std::thread::sleep(FAULT);
    match fault {
        Fault::Killed | Fault::Lost => bed.bring_back(machine),
        Fault::Frozen => bed.machine(machine).thaw(),
        Fault::CutOff => bed.plug(machine),
    }
    until_healthy(bed, &ALL);
    let mut late = Vec::new();
    for (stay, load) in stay.iter().zip(loads) {
        let report = load.finish();
        let (failed, slowest) = (report.failed.len(), report.slowest);
        println!(
            "{machine} {fault:?}: {stay} answered {} GETs, {failed} failed, slowest {slowest:?}",
            report.gets
        );
        late.extend(report.failed.into_iter().filter(|failed| failed.sent > at + AGAIN));
    }
    late
}

#[test]
fn any_one_machine_may_be_lost() {
    let mut bed = joined();
    let some = [("gamma", Fault::CutOff), ("alpha", Fault::Lost)];
    let all = ALL.into_iter().flat_map(|machine| {
        [Fault::Killed, Fault::Frozen, Fault::CutOff, Fault::Lost].map(|fault| (machine, fault))
    });
    let faults: Vec<_> = if is_drill() { all.collect() } else { some.into() };
    for (machine, fault) in faults {
        let late = lose(&mut bed, machine, fault);
        assert!(late.is_empty(), "{machine} {fault:?}: {} failed late: {:?}", late.len(), late.first());
    }
}

#[test]
fn agents_and_control_may_be_killed() {
    let bed = joined();
    let loads = ALL.map(|machine| Load::begin(bed.address(machine, 80), "/hello.txt", 100, 0));
    let web = ALL.map(|machine| pid(&bed, machine, "web"));
    for machine in ALL {
        for victim in [agent(&bed, machine), pid(&bed, machine, "control")] {
            bed.machine(machine).run(&["kill", "-KILL", &victim]).fine();
        }
        until("a new agent", WITHIN, || (status(&bed, machine)?["healthy"] == true).then_some(()));
    }
    until_healthy(&bed, &ALL);
    for load in loads {
        let report = load.finish();
        assert!(report.gets > 0 && report.failed.is_empty(), "{:?}", report.failed.first());
    }
    assert_eq!(ALL.map(|machine| pid(&bed, machine, "web")), web, "servers outlive their agents");
}

fn agent(bed: &Bed, machine: &str) -> String {
    let record =
        bed.machine(machine).state().join("www.foobar.com/machines").join(machine).join("agent.json");
    let record: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(record).unwrap()).unwrap();
    record["agent"]["pid"].to_string()
}

/// The process of this role on a machine, by its id there.
fn pid(bed: &Bed, machine: &str, role: &str) -> String {
    let number = 1 + ALL.iter().position(|name| *name == machine).unwrap();
    let server = server(bed, machine, &format!("{role}-{number}")).unwrap();
    server["pid"].to_string()
}

#[test]
fn a_machine_that_was_away_catches_up_and_a_minority_changes_nothing() {
    let mut bed = joined();
    bed.lose("gamma");
    let change = |bed: &Bed, ttl: &str, page: &str| {
        bed.machine("alpha")
            .write("dolmen.toml", &FILES.replace("[dns]", &format!("[dns]\nttl = \"{ttl}\"")));
        bed.machine("alpha").write("public/hello.txt", page);
        dolmen(bed, "alpha", &["reload"])
    };
    let said = |text: &str| {
        let logs = ["alpha/logs/control-1.log", "beta/logs/control-2.log"];
        let read = |log: &str| {
            let machine = bed.machine(&log[..log.find('/').unwrap()]);
            let file = machine.state().join("www.foobar.com/machines").join(log);
            std::fs::read_to_string(file).unwrap().matches(text).count()
        };
        logs.into_iter().map(read).sum::<usize>()
    };
    until("control says it", WITHIN, || (said("control-3 does not answer") > 0).then_some(()));
    // Each leader says it once, and not with every message.
    assert!(said("control-3 does not answer") <= 2 && said("heartbeat") == 0 && said("update progress") == 0);
    let ran = change(&bed, "7s", "without gamma\n");
    assert!(ran.says("gamma cannot be told"), "{ran:?}");
    assert_eq!(page(&bed, "beta"), "without gamma\n");
    bed.bring_back("gamma");
    until("gamma at the newer generation", WITHIN, || {
        (server(&bed, "gamma", "web-3")?["generation"] == 2).then_some(())
    });
    until_healthy(&bed, &ALL);
    assert_eq!(page(&bed, "gamma"), "without gamma\n");

    // alpha alone is no majority; it says what it cannot see, and the others go on without it.
    bed.part("alpha", "beta");
    bed.part("alpha", "gamma");
    until("alpha sees that it is alone", WITHIN, || {
        let seen = status(&bed, "alpha")?;
        let up = seen["machines"].as_array()?.iter().filter(|machine| machine["state"] == "up").count();
        (up == 1).then_some(())
    });
    let refused = change(&bed, "9s", "nowhere\n");
    assert!(refused.code != 0 && refused.says("nothing was changed"), "{refused:?}");
    let drained = dolmen(&bed, "beta", &["drain", "web-3"]);
    assert!(drained.says("web-3"), "{drained:?}");
    assert_eq!(status(&bed, "beta").unwrap()["generation"], 3);
    assert_eq!(status(&bed, "alpha").unwrap()["generation"], 2);
    assert_eq!(page(&bed, "alpha"), "without gamma\n", "traffic needs no agreement");
    bed.heal();
    until("alpha at what the others agreed on", WITHIN, || {
        (status(&bed, "alpha")?["generation"] == 3).then_some(())
    });
    dolmen(&bed, "alpha", &["ready", "web-3"]).fine();
    until_healthy(&bed, &ALL);
    assert_eq!(
        bed.machine("alpha").run(&[DOLMEN, "reload"]).code,
        0,
        "a drain is no change of the site file"
    );
}

#[test]
fn a_revoked_key_stays_out_also_after_a_restart_without_control() {
    let mut bed = joined();
    bed.cut("gamma");
    dolmen(&bed, "beta", &["leave", "gamma"]).fine();
    let heard = bed.machine("beta").state().join("www.foobar.com/revoked.json");
    until("beta writes it down", WITHIN, || heard.exists().then_some(()));
    // beta alone of two that are left: nobody tells it anything, and gamma has heard of nothing.
    bed.lose("alpha");
    for victim in [agent(&bed, "beta"), pid(&bed, "beta", "control")] {
        bed.machine("beta").run(&["kill", "-KILL", &victim]).fine();
    }
    until("a new agent", WITHIN, || status(&bed, "beta"));
    bed.plug("gamma");
    let end = Instant::now() + FAULT;
    while Instant::now() < end {
        let seen = status(&bed, "gamma").unwrap();
        assert_eq!(seen["machines"][1]["state"], "down", "{}", seen["machines"][1]);
        let seen = status(&bed, "beta").unwrap();
        assert_eq!(seen["machines"][2]["state"], "down", "{}", seen["machines"][2]);
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_machine_that_cannot_follow_says_why_and_follows_when_it_can() {
    let bed = joined();
    let releases = "/var/lib/dolmen/www.foobar.com/releases";
    bed.machine("gamma").run(&["mount", "-t", "tmpfs", "-o", "size=64k", "full", releases]).fine();
    bed.machine("alpha").write("public/large.txt", &"large ".repeat(100_000));
    let ran = dolmen(&bed, "alpha", &["reload"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.says("gamma cannot follow: cannot go by generation 2: its files: "), "{ran:?}");
    assert!(ran.says("No space left on device"), "{ran:?}");
    let seen = dolmen(&bed, "beta", &["status"]);
    assert!(seen.code == 1 && seen.says("up, but cannot go by generation 2"), "{seen:?}");
    assert_eq!(server(&bed, "beta", "web-2").unwrap()["generation"], 2, "the others do not wait for it");
    assert_eq!(server(&bed, "beta", "web-3").unwrap()["generation"], 1);
    bed.machine("gamma").run(&["umount", releases]).fine();
    until_healthy(&bed, &ALL);
    assert_eq!(server(&bed, "beta", "web-3").unwrap()["generation"], 2);
}

#[test]
fn the_only_machine_that_votes_may_not_leave() {
    let bed = begun_as(&Begun { join: &["beta"], ..Begun::default() });
    let refused = dolmen(&bed, "beta", &["leave", "alpha"]);
    let because = "control would be without a majority: 0 of 1 voters would be left";
    assert!(refused.says(&format!("alpha cannot leave now: {because}")), "{refused:?}");
    // Nothing was changed.
    assert_eq!(page(&bed, "alpha"), "hello\n");
    let control = dolmen(&bed, "beta", &["control"]);
    assert!(control.says("leader control-1"), "it is still believed: {control:?}");
}

#[test]
fn the_first_machine_leaves_is_wiped_and_joins_again_by_another_one() {
    let mut bed = joined();
    assert!(dolmen(&bed, "alpha", &["leave", "alpha"]).says("cannot send itself away"));
    dolmen(&bed, "beta", &["leave", "alpha"]).fine();
    let again = dolmen(&bed, "beta", &["leave", "alpha"]);
    assert!(again.says("no machine named alpha has joined"), "{again:?}");
    until("the others see it no more", WITHIN, || {
        let machines = status(&bed, "gamma")?["machines"].clone();
        (machines[0]["state"] == "down" && machines[1]["state"] == "up").then_some(())
    });
    // What it was is worth nothing now: it learns nothing of the others, and changes nothing.
    until("it sees nobody", WITHIN, || {
        // Its own agent may have heard that its key was revoked, before it heard nothing more.
        let Some(seen) = status(&bed, "alpha") else { return Some(()) };
        (seen["machines"][1]["state"] == "down" && seen["machines"][2]["state"] == "down").then_some(())
    });
    assert_ne!(dolmen(&bed, "alpha", &["drain", "web-2"]).code, 0);

    bed.lose("alpha");
    bed.machine("alpha").wipe();
    bed.bring_back("alpha");
    let again = dolmen(&bed, "alpha", &["agent", "alpha"]);
    assert!(again.says("has begun already: an agent answers at"), "{again:?}");
    let token = token_from(&bed, "gamma", "alpha");
    join(&bed, "alpha", &token).fine();
    until("the first machine's servers", WITHIN, || {
        (server(&bed, "beta", "web-1")?["state"] == "healthy").then_some(())
    });
    until("its vote", WITHIN, || {
        (dolmen(&bed, "beta", &["control", "replace", "control-1"]).code == 0).then_some(())
    });
    until_healthy(&bed, &ALL);
    assert_eq!(page(&bed, "alpha"), "hello\n");
    let control = dolmen(&bed, "alpha", &["control"]).out;
    assert_eq!(control.matches(" votes ").count() + control.matches(" leads ").count(), 3, "{control}");
}
