//! A site on three machines of a bed, and what is asked of it.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{Bed, Ran, get, until};

pub const DOLMEN: &str = env!("CARGO_BIN_EXE_dolmen");

/// On a busy computer.
pub const WITHIN: Duration = Duration::from_secs(60);

/// DNS, balancer and web on every machine, so that any of them may be lost.
pub const FILES: &str = r#"domain = "www.foobar.com"
[machines]
alpha = "10.77.0.1"
beta = "10.77.0.2"
gamma = "10.77.0.3"
[dns]
on = ["alpha", "beta", "gamma"]
[balancer]
on = ["alpha", "beta", "gamma"]
[web]
on = ["alpha", "beta", "gamma"]
root = "public"
"#;

pub const ALL: [&str; 3] = ["alpha", "beta", "gamma"];

pub fn is_drill() -> bool {
    std::env::var_os("DOLMEN_DRILL_ROUNDS").is_some()
}

/// A site that is begun on its first machine and joined by others.
#[derive(Clone, Copy)]
pub struct Begun<'a> {
    pub machines: &'a [&'a str],
    pub site: &'a str,
    /// Beside the site file.
    pub files: &'a [(&'a str, &'a str)],
    /// NAME=VALUE, for all agents.
    pub environment: &'a [&'a str],
    /// Those that join; all but the first one, if none is named.
    pub join: &'a [&'a str],
}

impl Default for Begun<'_> {
    fn default() -> Self {
        let files = &[("public/hello.txt", "hello\n")];
        Self { machines: &ALL, site: FILES, files, environment: &[], join: &[] }
    }
}

/// A bed whose first machine has begun the site.
pub fn begun() -> Bed {
    begin(&Begun::default())
}

fn begin(begun: &Begun<'_>) -> Bed {
    let mut bed = Bed::new(begun.machines);
    let alpha = bed.machine_mut("alpha");
    alpha.write("dolmen.toml", begun.site);
    std::fs::create_dir_all(alpha.folder.join("public")).unwrap();
    begun.files.iter().for_each(|(name, text)| alpha.write(name, text));
    alpha.serve(&[&["env"], begun.environment, &[DOLMEN, "agent", "alpha"]].concat());
    until("the first machine's control", WITHIN, || {
        (server(&bed, "alpha", "control-1")?["state"] == "healthy").then_some(())
    });
    bed
}

/// A bed in which all machines have joined, and everything is healthy.
pub fn joined() -> Bed {
    begun_as(&Begun::default())
}

pub fn joined_with(text: &str) -> Bed {
    begun_as(&Begun { site: text, ..Begun::default() })
}

pub fn begun_as(begun: &Begun<'_>) -> Bed {
    let mut bed = begin(begun);
    let all = if begun.join.is_empty() { &begun.machines[1..] } else { begun.join };
    for machine in all {
        let token = token(&bed, machine);
        let began = Instant::now();
        join(&bed, machine, &token).fine();
        bed.machine_mut(machine).serve(&[&["env"], begun.environment, &[DOLMEN, "agent"]].concat());
        let address = bed.address(machine, 80);
        until("an answer of the machine that joined", WITHIN, || get(address, "/hello.txt", &[]).ok());
        println!("{machine}: from `dolmen join` to an answer {:?}", began.elapsed());
    }
    if begun.join.is_empty() {
        until_healthy(&bed, begun.machines);
    }
    bed
}

/// A line of shell that runs a command under a clock that is an hour ahead.
pub fn an_hour_ahead(bed: &Bed, command: &str) -> String {
    let gamma = bed.machine("gamma");
    gamma.write(
        "clock.c",
        "#define _GNU_SOURCE\n#include <time.h>\n#include <dlfcn.h>\n\
         int clock_gettime(clockid_t id, struct timespec *t) {\n\
         int (*next)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, \"clock_gettime\");\n\
         int r = next(id, t); if (id == CLOCK_REALTIME) t->tv_sec += 3600; return r; }\n",
    );
    format!("cc -shared -fPIC -o clock.so clock.c && LD_PRELOAD=$PWD/clock.so {command}")
}

pub fn dolmen(bed: &Bed, machine: &str, arguments: &[&str]) -> Ran {
    bed.machine(machine).run(&[&[DOLMEN], arguments].concat())
}

#[track_caller]
pub fn token(bed: &Bed, machine: &str) -> String {
    token_from(bed, "alpha", machine)
}

#[track_caller]
pub fn token_from(bed: &Bed, issuer: &str, machine: &str) -> String {
    let ran = until("a token", WITHIN, || {
        let ran = dolmen(bed, issuer, &["token", machine]);
        (ran.code == 0).then_some(ran)
    });
    ran.out.trim().to_owned()
}

pub fn join(bed: &Bed, machine: &str, token: &str) -> Ran {
    dolmen(bed, machine, &["join", token])
}

pub fn status(bed: &Bed, machine: &str) -> Option<Value> {
    serde_json::from_str(&dolmen(bed, machine, &["status", "--json"]).out).ok()
}

pub fn server(bed: &Bed, machine: &str, name: &str) -> Option<Value> {
    let status = status(bed, machine)?;
    status["servers"].as_array()?.iter().find(|server| server["name"] == name).cloned()
}

/// Waits until each of these machines says that all is well.
#[track_caller]
pub fn until_healthy(bed: &Bed, machines: &[&str]) {
    for machine in machines {
        until(&format!("a healthy site, seen from {machine}"), WITHIN, || {
            (status(bed, machine)?["healthy"] == true).then_some(())
        });
    }
}

#[track_caller]
pub fn page(bed: &Bed, machine: &str) -> String {
    let response = get(bed.address(machine, 80), "/hello.txt", &[]).unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    response.text()
}
