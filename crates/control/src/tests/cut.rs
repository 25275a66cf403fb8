//! Networks that are cut between control servers.

use std::time::Duration;

use link::control::wire::{ControlAnswer, ControlAsk};
use link::control::{Change, Control, Outcome};
use serde_json::json;

use super::stage::{DEADLINE, Running, Stage, leader, name, until};

fn cut(all: &[Running], one: usize, other: usize) {
    all[one].core.peers.cut.lock().unwrap().insert(name(other + 1));
    all[other].core.peers.cut.lock().unwrap().insert(name(one + 1));
}

fn heal(all: &[Running]) {
    all.iter().for_each(|running| running.core.peers.cut.lock().unwrap().clear());
}

/// Proposes to this server alone.
async fn propose(running: &Running, version: u64) -> ControlAnswer {
    let change =
        Change { key: "a".into(), expected_version: version, value: json!(version), proposal: version };
    let ask = ControlAsk::Propose { change, within_ms: 500, forwarded: false };
    running.core.answer(ask).await.unwrap()
}

/// Proposes to one after another until it is made; a change is made once however often it is sent.
async fn propose_anywhere(all: &[&Running], version: u64) {
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        for running in all {
            if let ControlAnswer::Outcome(outcome) = propose(running, version).await {
                assert_eq!(outcome, Outcome::Made { version: version + 1 });
                return;
            }
        }
        assert!(tokio::time::Instant::now() < end, "nobody takes a change");
    }
}

#[tokio::test]
async fn a_leader_cut_off_decides_nothing_and_disturbs_nobody_when_it_returns() {
    let stage = Stage::new(104, 3);
    let all = stage.start_all().await;
    let old = until("there is a leader", || leader(&all)).await;
    propose_anywhere(&[&all[old]], 0).await;
    let others: Vec<usize> = (0..3).filter(|index| *index != old).collect();
    others.iter().for_each(|other| cut(&all, old, *other));
    assert!(matches!(propose(&all[old], 1).await, ControlAnswer::Unavailable { .. }));
    let majority = [&all[others[0]], &all[others[1]]];
    propose_anywhere(&majority, 1).await;
    until("the one cut off says that it has no majority", || (!all[old].core.is_in_contact()).then_some(()))
        .await;
    let now = others.iter().copied().find(|index| all[*index].core.is_leader()).unwrap();
    let term = all[now].core.members().term;

    heal(&all);
    until("the old leader follows", || {
        (!all[old].core.is_leader() && all[old].core.is_in_contact()).then_some(())
    })
    .await;
    propose_anywhere(&[&all[old]], 2).await;
    assert!(all[now].core.is_leader());
    assert_eq!(all[now].core.members().term, term);
    for running in all {
        running.stop().await;
    }
}

/// One machine sees both sides, which do not see each other, wherever the leader was before.
async fn a_bridge_keeps_deciding(block: u8, machines: usize) {
    let stage = Stage::new(block, machines);
    let all = stage.start_all().await;
    until("there is a leader", || leader(&all)).await;
    let everybody: Vec<&Running> = all.iter().collect();
    let mut version = 0;
    for bridge in 0..machines {
        propose_anywhere(&everybody, version).await;
        version += 1;
        let sides: Vec<usize> = (0..machines).filter(|index| *index != bridge).collect();
        let (left, right) = sides.split_at(sides.len() / 2);
        for one in left {
            right.iter().for_each(|other| cut(&all, *one, *other));
        }
        for _ in 0..3 {
            propose_anywhere(&everybody, version).await;
            version += 1;
        }
        heal(&all);
    }
    let record = stage.client(1).read("a", Duration::from_secs(30)).await.unwrap().unwrap();
    assert_eq!(record.version, version);
    for running in all {
        running.stop().await;
    }
}

#[tokio::test]
async fn three_voters_decide_over_a_bridge() {
    a_bridge_keeps_deciding(146, 3).await;
}

#[tokio::test]
async fn five_voters_decide_over_a_bridge() {
    a_bridge_keeps_deciding(147, 5).await;
}
