//! Secrets change with the plan that they belong to, on all machines, or not at all.

use std::fs::read_to_string;

use testkit::{Bed, TOKEN_APP, get, until};

use super::stage::{ALL, Begun, DOLMEN, WITHIN, begun_as, dolmen, status, until_healthy};

/// Without a domain it is called like its folder, and has neither a balancer nor a database.
const SITE: &str = r#"[machines]
alpha = "10.77.0.1"
beta = "10.77.0.2"
gamma = "10.77.0.3"
[web]
on = ["alpha", "beta", "gamma"]
[app]
on = ["alpha", "beta", "gamma"]
workers = 1
command = "python3 app.py"
environment = { TOKEN = "file:token" }
"#;

fn app_with(token: &str) -> Bed {
    begun_as(&Begun { site: SITE, files: &[("app.py", TOKEN_APP), ("token", token)], ..Begun::default() })
}

/// What the worker on this machine was given.
fn token(bed: &Bed, machine: &str) -> Option<String> {
    let response = get(bed.address(machine, 80), "/", &[]).ok()?;
    (response.status == 200).then(|| response.text())
}

#[track_caller]
fn until_all_have(bed: &Bed, token_: &str) {
    for machine in ALL {
        until(&format!("{token_} on {machine}"), WITHIN, || (token(bed, machine)? == token_).then_some(()));
    }
}

fn known(bed: &Bed, machine: &str) -> String {
    read_to_string(bed.machine(machine).state().join("site/secrets.json")).unwrap()
}

#[test]
fn a_refused_change_leaves_the_secrets_as_they_were() {
    let bed = app_with("one");
    until_all_have(&bed, "one");
    let before = ALL.map(|machine| known(&bed, machine));
    bed.part("alpha", "beta");
    bed.part("alpha", "gamma");
    bed.machine("alpha").write("token", "two");
    let refused = dolmen(&bed, "alpha", &["reload"]);
    assert!(refused.code != 0 && refused.says("nothing was changed"), "{refused:?}");
    assert_eq!(ALL.map(|machine| known(&bed, machine)), before);
    bed.heal();
    until_healthy(&bed, &ALL);

    // A secret alone is a change of the site, on all machines.
    until("a change that goes through", WITHIN, || {
        (dolmen(&bed, "alpha", &["reload"]).code == 0).then_some(())
    });
    until_all_have(&bed, "two");
    assert_eq!(status(&bed, "gamma").unwrap()["generation"], 2);
    assert!(dolmen(&bed, "alpha", &["reload"]).says("nothing has changed"));
}

#[test]
fn of_two_changes_at_one_moment_the_secrets_are_those_of_one() {
    let bed = app_with("none");
    let beta = bed.machine("beta");
    for (name, text) in [("dolmen.toml", SITE), ("app.py", TOKEN_APP)] {
        beta.write(name, text);
    }
    let mut generation = 1;
    for round in 0..4 {
        let began = ["alpha", "beta"].map(|machine| {
            bed.machine(machine).write("token", &format!("{machine} {round}"));
            let over = generation.to_string();
            let mut command = bed.machine(machine).command(&[DOLMEN, "reload", "--over", &over]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            (machine, command.spawn().unwrap())
        });
        let ended = began.map(|(machine, child)| (machine, child.wait_with_output().unwrap()));
        let won: Vec<&str> =
            ended.iter().filter(|(_, ended)| ended.status.success()).map(|(machine, _)| *machine).collect();
        assert!(won.len() <= 1, "{ended:?}");
        let lost = ended.iter().filter(|(machine, _)| !won.contains(machine));
        for (_, lost) in lost {
            let said = String::from_utf8_lossy(&lost.stderr);
            assert!(said.contains("nothing was changed"), "{said}");
        }
        if let [winner] = won[..] {
            generation += 1;
            until_all_have(&bed, &format!("{winner} {round}"));
        }
        println!("round {round}: {won:?}");
    }
    assert!(generation > 1, "one of two goes through, at least sometimes");
    until_healthy(&bed, &ALL);
}
