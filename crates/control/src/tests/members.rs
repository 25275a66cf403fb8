//! Beginning, being taken in, being replaced, and who is let in at all.

use std::time::Duration;

use link::api::{Answer, Ask, Authority, Identity, call};
use link::control::wire::{ControlAnswer, ControlAsk, MemberReport};
use link::control::{ABSENT, Change, Client, Control, ControlError, VALUE_LIMIT};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::stage::{DEADLINE, Running, Stage, leader, name, plan, until};

#[tokio::test]
async fn one_machine_decides_alone_and_remembers() {
    let stage = Stage::new(100, 1);
    let all = stage.start_all().await;
    let client = stage.client(1);
    assert_eq!(client.propose("a", ABSENT, json!({ "n": 1 }), DEADLINE).await, Ok(1));
    for running in all {
        running.stop().await;
    }
    let again = stage.start(1).await;
    let record = client.read("a", DEADLINE).await.unwrap().unwrap();
    assert_eq!((record.version, record.value), (1, json!({ "n": 1 })));
    let large = json!("x".repeat(VALUE_LIMIT + 1));
    assert!(matches!(client.propose("a", 1, large, DEADLINE).await, Err(ControlError::Refused(_))));
    again.stop().await;
}

#[tokio::test]
async fn three_agree_and_any_of_them_can_be_asked() {
    let stage = Stage::new(101, 3);
    let begin = Instant::now();
    let all = stage.start_all().await;
    until("there is a leader", || leader(&all)).await;
    println!("three empty control servers had a leader after {} ms", begin.elapsed().as_millis());
    let mut seen = stage.client(3).watch("a");
    for number in 1..=3_u64 {
        let client = stage.client(number as usize);
        assert_eq!(client.propose("a", number - 1, json!(number), DEADLINE).await, Ok(number));
        let stale = client.propose("a", number - 1, json!("late"), DEADLINE).await;
        let Err(ControlError::Changed(Some(current))) = stale else { panic!("{stale:?}") };
        assert_eq!(current.version, number);
    }
    seen.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.record.version == 3)).await.unwrap();
    for running in all {
        running.stop().await;
    }
}

#[tokio::test]
async fn a_voter_with_a_wiped_disk_learns_until_it_is_put_in_its_own_place() {
    let stage = Stage::new(102, 3);
    let mut all = stage.start_all().await;
    until("there is a leader", || leader(&all)).await;
    let wiped = (0..3).find(|index| Some(*index) != leader(&all)).unwrap();
    let old = all[wiped].core.node;
    all.remove(wiped).stop().await;
    std::fs::remove_dir_all(stage.data(wiped + 1)).unwrap();
    let back = stage.start(wiped + 1).await;
    all.insert(wiped, back);
    let node = all[wiped].core.node;
    assert_ne!(old, node);
    let role = |votes| {
        leader(&all).and_then(|index| {
            let members = all[index].core.members().members;
            members.into_iter().find(|member| member.node == node && member.votes == votes)
        })
    };
    until("it learns", || role(false)).await;
    let client = stage.client(wiped + 1);
    assert_eq!(client.propose("a", ABSENT, json!(1), DEADLINE).await, Ok(1));
    let name = name(wiped + 1);
    let ask = ControlAsk::Replace { old: name.clone(), new: name };
    let answer = all[leader(&all).unwrap()].core.answer(ask).await;
    assert!(matches!(answer, Ok(ControlAnswer::Done)), "{answer:?}");
    until("it votes", || role(true)).await;
    for running in all {
        running.stop().await;
    }
}

/// Who votes and who only learns, as the leader has it.
fn members(all: &[Running]) -> Option<(Vec<String>, Vec<String>)> {
    let members = all[leader(all)?].core.members().members;
    let (mut vote, mut learn): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| member.votes);
    [&mut vote, &mut learn].into_iter().for_each(|some| some.sort_by(|a, b| a.server.cmp(&b.server)));
    let names = |some: Vec<MemberReport>| some.into_iter().map(|member| member.server).collect();
    Some((names(vote), names(learn)))
}

#[tokio::test]
async fn servers_come_go_and_come_back_with_the_plan_while_control_runs() {
    const BLOCK: u8 = 105;
    let mut stage = Stage::new(BLOCK, 5);
    let names = |numbers: std::ops::RangeInclusive<usize>| numbers.map(name).collect::<Vec<_>>();
    stage.plan = plan(BLOCK, 3);
    let mut all = stage.start_all().await;
    until("there is a leader", || leader(&all)).await;
    stage.plan = plan(BLOCK, 4);
    all.push(stage.start(4).await);
    let follow = |all: &[Running], plan: &plan::Plan| {
        all.iter().for_each(|running| running.core.peers.follow(plan));
    };
    let are = async |all: &[Running], vote: Vec<String>, learn: Vec<String>| {
        let wanted = (vote, learn);
        until("the members are those of the plan", || (members(all)? == wanted).then_some(())).await;
    };
    // The others do not know the fourth yet.
    let meet = ControlAsk::Meet { server: name(4), node: 4 };
    let because = all[0].core.answer(meet).await.unwrap_err();
    assert_eq!(because, "the plan has no control-4");
    follow(&all[..3], &plan(BLOCK, 4));
    are(&all, names(1..=3), names(4..=4)).await;
    assert_eq!(stage.client(4).propose("a", ABSENT, json!(1), DEADLINE).await, Ok(1));

    // It is let go, and taken in again, as the one that it was.
    let node = all[3].core.node;
    follow(&all[..3], &plan(BLOCK, 3));
    are(&all, names(1..=3), vec![]).await;
    until("it notices", || (!all[3].core.is_in_contact()).then_some(())).await;
    follow(&all[..3], &plan(BLOCK, 4));
    are(&all, names(1..=3), names(4..=4)).await;
    assert!(all[leader(&all).unwrap()].core.members().members.iter().any(|member| member.node == node));
    assert_eq!(stage.client(4).propose("a", 1, json!(2), DEADLINE).await, Ok(2));

    // With a fifth two more vote, and when the plan wants fewer again, those lose their votes and go on learning.
    stage.plan = plan(BLOCK, 5);
    follow(&all, &stage.plan);
    all.push(stage.start(5).await);
    are(&all, names(1..=5), vec![]).await;
    let mut fewer = stage.plan.clone();
    fewer.control.as_mut().unwrap().voters.truncate(3);
    follow(&all, &fewer);
    are(&all, names(1..=3), names(4..=5)).await;
    assert_eq!(stage.client(5).propose("a", 2, json!(3), DEADLINE).await, Ok(3));
    for running in all {
        running.stop().await;
    }
}

#[tokio::test]
async fn what_the_site_is_changes_only_who_gives_orders() {
    let stage = Stage::new(109, 3);
    let all = stage.start_all().await;
    until("there is a leader", || leader(&all)).await;
    for number in 1..=3 {
        // The key of a machine, also in the words of a control server that passes something on.
        for (key, forwarded) in [("site/machines", false), ("site/plan", true), ("vault/beta", true)] {
            let change = Change { key: key.into(), expected_version: ABSENT, value: json!(1), proposal: 1 };
            let ask = ControlAsk::Propose { change, within_ms: 1000, forwarded };
            let machine = stage.machine(number);
            let identity = stage.identity(&machine);
            let mut conversation =
                call(&identity, &stage.plan.site, &machine, stage.address(number)).await.unwrap();
            conversation.ask(&Ask::Control(ask)).await.unwrap();
            assert!(conversation.answer().await.unwrap_err().to_string().contains("only the operator"));
        }
        let replace = ControlAsk::Replace { old: name(1), new: name(2) };
        let machine = stage.machine(number);
        let mut conversation =
            call(&stage.identity(&machine), &stage.plan.site, &machine, stage.address(number)).await.unwrap();
        conversation.ask(&Ask::Control(replace)).await.unwrap();
        assert!(conversation.answer().await.unwrap_err().to_string().contains("only the operator"));
    }
    assert_eq!(stage.client(2).read("site/machines", DEADLINE).await, Ok(None));
    assert_eq!(stage.client(2).propose("database", ABSENT, json!(1), DEADLINE).await, Ok(1));
    // The operator finds the leader, whichever of them is asked first.
    for number in 1..=3 {
        let key = format!("site/{number}");
        let client = Client::new(stage.operator(), &stage.plan, &stage.machine(number));
        assert_eq!(client.propose(&key, ABSENT, json!(1), DEADLINE).await, Ok(1));
    }
    for running in all {
        running.stop().await;
    }
}

#[tokio::test]
async fn strangers_and_impossible_frames_get_nothing() {
    let stage = Stage::new(103, 1);
    let all = stage.start_all().await;
    until("there is a leader", || leader(&all)).await;
    let other = stage.folder.join("stranger");
    std::fs::create_dir_all(&other).unwrap();
    Authority::open(&other).unwrap().issue("alpha", &other).unwrap();
    let stranger = Identity::open(&other).unwrap();
    let site = &stage.plan.site;
    assert!(call(&stranger, site, &stage.machine(1), stage.address(1)).await.is_err());

    // What claims to be ten gigabytes, without TLS and within it.
    let mut plain = tokio::net::TcpStream::connect(stage.address(1)).await.unwrap();
    plain.write_all(&[0xff; 64]).await.unwrap();
    let mut rest = Vec::new();
    drop(tokio::time::timeout(DEADLINE, plain.read_to_end(&mut rest)).await.unwrap());

    let machine = stage.machine(1);
    let identity = stage.identity(&machine);
    let mut conversation = call(&identity, site, &machine, stage.address(1)).await.unwrap();
    let replace = ControlAsk::Replace { old: name(1), new: name(1) };
    conversation.ask(&Ask::Control(replace)).await.unwrap();
    assert!(conversation.answer().await.unwrap_err().to_string().contains("only the operator"));
    conversation.ask(&Ask::Control(ControlAsk::Members)).await.unwrap();
    let Answer::Control(ControlAnswer::Members(report)) = conversation.answer().await.unwrap() else {
        panic!()
    };
    assert_eq!(report.members.len(), 1);
    let client = stage.client(1);
    assert_eq!(client.propose("a", ABSENT, json!(1), Duration::from_secs(30)).await, Ok(1));
    for running in all {
        running.stop().await;
    }
}
