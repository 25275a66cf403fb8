//! Workers whose plan changes are replaced one after another: what clients saw meanwhile.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use link::Given;
use plan::Value;

use crate::site::{Running, Site, get, lives, python, wait};

fn given(site: &Site, generation: u64) -> Given {
    let mut plan = site.plan.clone();
    plan.generation = generation;
    let (files, programs, secrets) = (site.files(), site.root.join("programs"), site.secrets.clone());
    Given { plan, files, programs, secrets }
}

/// Gives this plan to the server while requests come without a pause; who answered them, and how few and how many
/// workers were ready at a time.
fn replaced(server: &Running, given: Given) -> (BTreeSet<u32>, usize, usize) {
    let (over, generation) = (AtomicBool::new(false), given.plan.generation);
    let ready = Mutex::new((usize::MAX, 0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut pids = BTreeSet::new();
                    while !over.load(Ordering::SeqCst) {
                        let answer = get(server.address, "/");
                        assert_eq!(answer.status, 200, "{answer:?}");
                        pids.insert(answer.body.parse().unwrap());
                    }
                    pids
                })
            })
            .collect();
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let now = server.board.ready();
                let mut ready = ready.lock().unwrap();
                *ready = (ready.0.min(now), ready.1.max(now));
                drop(ready);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        server.line.give(given);
        wait(|| server.line.last_taken() == Some(generation), || "the plan is not taken".into());
        // The last of the old ones leaves after the word.
        wait(|| server.board.ready() == 2, || format!("{} workers are ready", server.board.ready()));
        over.store(true, Ordering::SeqCst);
        let pids = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let (least, most) = *ready.lock().unwrap();
        (pids, least, most)
    })
}

fn pids(server: &Running) -> BTreeSet<u32> {
    (0..8).map(|_| server.get("/").body.parse().unwrap()).collect()
}

#[test]
fn one_after_another_and_each_request_is_answered() {
    let mut site = Site::new(31, &python("worker.py"));
    site.app().stop_ms = 60_000;
    let server = site.start();
    server.says("2 of 2 workers ready");
    let old = pids(&server);
    let address = server.address;
    let held = std::thread::spawn(move || get(address, "/hold"));
    wait(|| (0..2).any(|slot| server.board.busy(slot) == 1), || "no request is held".into());
    site.app().environment.insert("COLOUR".into(), Value::Plain("red".into()));
    let (answered, least, most) = replaced(&server, given(&site, 2));
    assert!(least >= 2, "{least} workers were ready at a time");
    assert!(most <= 3, "{most} workers were ready at a time");
    let new = pids(&server);
    assert!(new.is_disjoint(&old) && new.len() == 2, "{old:?} {new:?}");
    assert!(!answered.is_disjoint(&new), "{answered:?}");
    assert!(server.get("/environment").body.contains("\"COLOUR\": \"red\""));
    site.script("release", "");
    let held = held.join().unwrap();
    assert_eq!(held.status, 200);
    assert!(old.contains(&held.body.parse().unwrap()), "the old worker has finished what it had");
    wait(|| !old.iter().any(|pid| lives(*pid)), || format!("{old:?} live"));
    // And back, in the half of the board that is free again.
    site.app().environment.insert("COLOUR".into(), Value::Plain("blue".into()));
    let (_, least, most) = replaced(&server, given(&site, 3));
    assert!(least >= 2 && most <= 3, "{least} to {most} workers were ready at a time");
    wait(|| !new.iter().any(|pid| lives(*pid)), || format!("{new:?} live"));
    server.stop();
}

#[test]
fn the_old_ones_stay_when_the_first_new_one_does_not_become_ready() {
    let mut site = Site::new(32, &python("worker.py"));
    let server = site.start();
    server.says("2 of 2 workers ready");
    let old = pids(&server);
    site.app().command = python("nothing.py");
    let (answered, least, _) = replaced(&server, given(&site, 2));
    assert_eq!((answered, least), (old.clone(), 2));
    site.app().command = python("worker.py");
    site.app().workers = 3;
    server.line.give(given(&site, 3));
    server.says("3 of 3 workers ready");
    assert!(pids(&server).is_disjoint(&old));
    server.stop();
}

#[test]
fn a_change_that_is_none_of_theirs_leaves_them_alone() {
    let site = Site::new(33, &python("worker.py"));
    let server = site.start();
    server.says("2 of 2 workers ready");
    let old = pids(&server);
    server.line.give(given(&site, 2));
    wait(|| server.line.last_taken() == Some(2), || "the plan is not taken".into());
    assert_eq!(pids(&server), old);
    server.stop();
}
