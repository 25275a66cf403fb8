//! Ends: in order, late, and sudden.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use link::report::State;
use rustix::process::Signal;

use crate::site::{Site, get, lives, python, wait};
use crate::trouble::kill;

#[test]
fn a_request_under_way_is_finished_and_nothing_is_left() {
    let site = Site::new(41, &python("worker.py"));
    let server = site.start();
    server.says("2 of 2 workers ready");
    let pids: Vec<u32> = (0..2).map(|_| server.get("/").body.parse().unwrap()).collect();
    let (address, worker) = (server.address, server.board.worker(0).unwrap().into());
    let through = std::thread::spawn(move || get(address, "/slow"));
    // As the web server on this machine does it.
    let claim = server.board.claim(link::board::Column::Web, |slot| slot != 0).unwrap();
    let direct = std::thread::spawn(move || {
        let answer = get(worker, "/slow");
        drop(claim);
        answer
    });
    wait(|| server.board.busy(0) + server.board.busy(1) == 2, || format!("{:?}", server.board));
    server.order_stop(Duration::from_secs(5));
    assert_eq!(through.join().unwrap().status, 200);
    assert_eq!(direct.join().unwrap().status, 200);
    assert_eq!(server.report().state, State::Draining);
    let board = server.board.clone();
    assert!(server.wait() < Duration::from_secs(2), "it does not wait for the whole time");
    assert_eq!(board.ready(), 0);
    assert!(!pids.iter().any(|pid| lives(*pid)));
}

#[test]
fn one_that_does_not_listen_is_killed_in_time() {
    let mut site = Site::new(42, &python("worker.py deaf"));
    site.app().stop_ms = 1_000;
    let server = site.start();
    server.says("2 of 2 workers ready");
    let pids: Vec<u32> = (0..2).map(|_| server.get("/").body.parse().unwrap()).collect();
    server.order_stop(Duration::from_secs(10));
    assert!(server.wait() < Duration::from_secs(3));
    assert!(!pids.iter().any(|pid| lives(*pid)));
}

#[test]
fn a_stop_while_workers_start_or_wait() {
    for (last, command) in [(43, python("sleeper.py")), (44, python("nothing.py"))] {
        let site = Site::new(last, &command);
        site.script("sleeper.py", "import time\ntime.sleep(1000)\n");
        let server = site.start();
        wait(|| last == 43 || server.report().state == State::Unhealthy, || server.report().because);
        server.order_stop(Duration::from_secs(5));
        assert!(server.wait() < Duration::from_secs(3));
    }
}

const PROCESS: &str = "DOLMEN_TEST_APP_SERVER";

/// Not a test by itself: the app server of the test below, as a process of its own.
#[test]
fn app_server_as_a_process() {
    let Some(root) = std::env::var_os(PROCESS) else { return };
    let site = Site::at(root.into(), 45, &python("worker.py parent"));
    let (start, running) = site.prepare();
    let line = running.line.clone();
    std::thread::spawn(move || {
        wait(|| line.last_report().state == State::Healthy, || line.last_report().because);
        let pids: Vec<_> = (0..2).map(|_| running.get("/").body).collect();
        println!("\nworkers {}", pids.join(" "));
        std::mem::forget(running);
    });
    app::run(start).unwrap();
}

#[test]
fn a_killed_app_server_leaves_no_worker_and_the_next_ends_their_children() {
    let site = Site::new(45, &python("worker.py parent"));
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "end::app_server_as_a_process", "--nocapture"])
        .env(PROCESS, &site.root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.starts_with("workers ")).unwrap();
    let pids: Vec<u32> = line.split(' ').skip(1).map(|pid| pid.parse().unwrap()).collect();
    let child: u32 = std::fs::read_to_string(site.files().join("child")).unwrap().parse().unwrap();
    assert!(pids.len() == 2 && pids.iter().all(|pid| lives(*pid)) && lives(child));
    kill(server.id(), Signal::KILL);
    server.wait().unwrap();
    wait(|| !pids.iter().any(|pid| lives(*pid)), || format!("{pids:?} live"));
    assert!(lives(child), "the kernel ends only the workers themselves");
    let begin = Instant::now();
    let next = site.start();
    next.says("2 of 2 workers ready");
    assert!(!lives(child), "after {:?}", begin.elapsed());
    next.stop();
}

#[test]
fn a_child_that_left_its_group_is_ended_too() {
    let site = Site::new(47, &python("parent.py"));
    site.script(
        "parent.py",
        "import os, subprocess\n\
         child = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n\
         open(f'child.{os.getpid()}', 'w').write(str(child.pid))\n\
         os.execvp('python3', ['python3', 'worker.py'])\n",
    );
    let server = site.start();
    server.says("2 of 2 workers ready");
    let children: Vec<u32> = (0..2)
        .map(|_| {
            let worker = server.get("/").body;
            std::fs::read_to_string(site.files().join(format!("child.{worker}"))).unwrap().parse().unwrap()
        })
        .collect();
    assert!(children.iter().all(|pid| lives(*pid)));
    server.order_stop(Duration::from_secs(5));
    server.wait();
    assert!(!children.iter().any(|pid| lives(*pid)));
}
