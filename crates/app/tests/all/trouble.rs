//! What goes wrong, and what the server says of it.

use std::time::{Duration, Instant};

use link::report::State;

use crate::site::{Site, lives, python, wait};

#[test]
fn a_command_that_exits_at_once_is_named_with_its_last_line() {
    let mut site = Site::new(21, &python("broken.py"));
    site.script("broken.py", "import nothing_like_this\n");
    site.app().workers = 1;
    let server = site.start();
    let why = "0 of 1 worker ready: worker 1 exited at once with status 1 \
               (ModuleNotFoundError: No module named 'nothing_like_this'), next try in";
    for wait in ["250 ms", "500 ms", "1 s"] {
        assert_eq!(server.says(&format!("{why} {wait}")).state, State::Unhealthy);
    }
    assert_eq!(server.get("/.dolmen/health").status, 503);
    let answer = server.get("/");
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("\r\nretry-after: 1"), "{}", answer.head);
    server.stop();
}

#[test]
fn a_command_that_is_nowhere() {
    let mut site = Site::new(22, "no-such-program --serve");
    site.app().workers = 1;
    let server = site.start();
    server.says(
        "0 of 1 worker ready: worker 1 cannot be started: \"no-such-program\" is neither in the application files, \
         nor beside dolmen, nor on PATH: install it, or correct [app] command, next try in 250 ms",
    );
    // It comes later, with a deploy perhaps.
    let interpreter = python("worker.py");
    let program = format!("#!/bin/sh\nexec {interpreter}\n");
    site.script("no-such-program.new", &program);
    let (new, place) = (site.files().join("no-such-program.new"), site.files().join("no-such-program"));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&new, mode).unwrap();
    std::fs::rename(new, place).unwrap();
    server.says("1 of 1 worker ready");
    server.stop();
}

#[test]
fn a_script_that_may_not_be_executed_or_has_no_interpreter() {
    for (last, mode, expect) in
        [(23, 0o644, "may not be executed: chmod +x it"), (24, 0o755, "the interpreter in")]
    {
        let mut site = Site::new(last, "./serve");
        site.script("serve", "#!/no/such/interpreter\n");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(site.files().join("serve"), mode).unwrap();
        site.app().workers = 1;
        let server = site.start();
        wait(|| server.report().because.contains(expect), || server.report().because);
        assert_eq!(server.report().state, State::Unhealthy);
        server.stop();
    }
}

#[test]
fn a_worker_that_never_answers_is_replaced() {
    let mut site = Site::new(25, &python("sleeper.py"));
    site.script("sleeper.py", "import time\ntime.sleep(1000)\n");
    site.app().workers = 1;
    site.app().start_ms = 400;
    let server = site.start();
    let begin = "0 of 1 worker ready: worker 1 was not healthy within 4";
    let end = "(GET /health: cannot connect: connection refused), next try in 500 ms";
    wait(
        || server.report().because.starts_with(begin) && server.report().because.ends_with(end),
        || server.report().because,
    );
    server.stop();
}

#[test]
fn a_worker_that_answers_badly_says_so() {
    let mut site = Site::new(26, &python("worker.py"));
    site.script("ill", "");
    site.app().workers = 1;
    site.app().start_ms = 2_000;
    let server = site.start();
    wait(
        || server.report().because.contains("(GET /health answered 500, not 2xx)"),
        || server.report().because,
    );
    std::fs::remove_file(site.files().join("ill")).unwrap();
    server.says("1 of 1 worker ready");
    server.stop();
}

#[test]
fn a_worker_that_falls_ill_is_taken_out_until_it_is_well() {
    let mut site = Site::new(27, &python("worker.py"));
    site.app().workers = 1;
    let server = site.start();
    server.says("1 of 1 worker ready");
    let pid = server.get("/").body;
    site.script("ill", "");
    wait(|| server.board.ready() == 0, || "it stays on the board".into());
    wait(|| server.report().because.contains("failed 3 health checks in a row"), || server.report().because);
    std::fs::remove_file(site.files().join("ill")).unwrap();
    server.says("1 of 1 worker ready");
    assert_eq!(server.get("/").body, pid, "the same process is back");
    server.stop();
}

#[test]
fn a_killed_worker_is_replaced_and_the_other_goes_on() {
    let site = Site::new(28, &python("worker.py"));
    let server = site.start();
    server.says("2 of 2 workers ready");
    let victim: i32 = server.get("/").body.parse().unwrap();
    kill(victim.cast_unsigned(), rustix::process::Signal::KILL);
    let begin = Instant::now();
    wait(|| server.report().because.contains("by signal 9"), || server.report().because);
    assert_eq!(server.report().state, State::Unhealthy);
    while server.report().state == State::Unhealthy {
        assert_eq!(server.get("/").status, 200, "the other worker answers");
        assert!(begin.elapsed() < crate::site::DEADLINE);
    }
    assert_eq!(server.says("2 of 2 workers ready").state, State::Healthy);
    assert!((0..4).all(|_| server.get("/").body != victim.to_string()));
    server.stop();
}

#[test]
fn the_children_of_a_worker_end_with_it() {
    let mut site = Site::new(29, &python("worker.py parent"));
    site.app().workers = 1;
    let server = site.start();
    server.says("1 of 1 worker ready");
    let child: u32 = std::fs::read_to_string(site.files().join("child")).unwrap().parse().unwrap();
    assert!(lives(child));
    kill(server.get("/").body.parse().unwrap(), rustix::process::Signal::KILL);
    wait(|| !lives(child), || "the child lives".into());
    server.stop();
}

pub(crate) fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn a_worker_whose_port_is_taken_gets_another() {
    let mut site = Site::new(30, &python("unlucky.py"));
    // The first process finds its port taken, as if somebody had been faster.
    let text = "import os, sys\nif not os.path.exists('once'):\n    open('once', 'w').close()\n    \
                sys.exit('OSError: [Errno 98] Address already in use')\nsys.argv = ['worker.py']\n\
                exec(open('worker.py').read())\n";
    site.script("unlucky.py", text);
    site.app().workers = 1;
    let begin = Instant::now();
    let server = site.start();
    server.says("1 of 1 worker ready");
    assert!(site.files().join("once").exists());
    assert!(begin.elapsed() < Duration::from_secs(10));
    server.stop();
}
