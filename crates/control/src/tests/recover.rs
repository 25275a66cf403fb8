//! Most voters lost for good, as processes: the last one begins anew by the operator's order alone.

use std::time::Duration;

use link::api::{Answer, ApiError, Ask, Identity, call};
use link::control::wire::{ControlAnswer, ControlAsk, MembersReport};
use link::control::{ABSENT, Control};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::killed::{Children, leader, spawn};
use super::stage::{DEADLINE, Stage};

const BLOCK: u8 = 149;
const BLOCK_OF_FIVE: u8 = 145;

/// Lets this one begin anew, once it knows that it has no leader.
async fn recover(stage: &Stage, operator: &Identity, children: &mut Children, number: usize) {
    let end = Instant::now() + DEADLINE;
    let mut began = Instant::now();
    while let Err(refused) = ask(operator, stage, number, ControlAsk::Recover).await {
        assert!(refused.to_string().contains("has a leader") && Instant::now() < end, "{refused}");
        sleep(Duration::from_millis(50)).await;
        began = Instant::now();
    }
    // Whoever held a lease of before is fenced by then.
    assert!(began.elapsed() >= Duration::from_millis(3280), "after {:?}", began.elapsed());
    ends_and_starts(stage, children, number).await;
}

/// It ends of itself; here the test is its agent.
async fn ends_and_starts(stage: &Stage, children: &mut Children, number: usize) {
    let end = Instant::now() + DEADLINE;
    while children.0[number - 1].try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "it does not end");
        sleep(Duration::from_millis(20)).await;
    }
    children.0[number - 1] = spawn(stage, number);
}

async fn ask(
    identity: &Identity,
    stage: &Stage,
    number: usize,
    ask: ControlAsk,
) -> Result<ControlAnswer, ApiError> {
    let asked = async {
        let (machine, address) = (stage.machine(number), stage.address(number));
        let mut conversation = call(identity, &stage.plan.site, &machine, address).await?;
        conversation.ask(&Ask::Control(ask)).await?;
        conversation.answer().await
    };
    match timeout(DEADLINE, asked).await.unwrap()? {
        Answer::Control(answer) => Ok(answer),
        other => panic!("{other:?}"),
    }
}

/// What a server says of the members, once it is as wanted.
async fn members(
    stage: &Stage,
    operator: &Identity,
    number: usize,
    wanted: impl Fn(&MembersReport) -> bool,
) -> MembersReport {
    let end = Instant::now() + DEADLINE;
    loop {
        let answer = ask(operator, stage, number, ControlAsk::Members).await;
        match answer {
            Ok(ControlAnswer::Members(report)) if wanted(&report) => return report,
            other => assert!(Instant::now() < end, "control-{number}: {other:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn voters(report: &MembersReport) -> usize {
    report.members.iter().filter(|member| member.votes).count()
}

#[tokio::test]
async fn the_last_voter_begins_anew_by_order_and_takes_the_others_in() {
    let stage = Stage::new(BLOCK, 3);
    let operator = stage.operator();
    let mut children = Children((1..=3).map(|number| spawn(&stage, number)).collect());
    leader(&stage).await;
    assert_eq!(stage.client(1).propose("a", ABSENT, json!("kept"), DEADLINE).await, Ok(1));
    // While there is a majority nothing is recovered, and a machine may not order it at all.
    let refused = ask(&operator, &stage, 1, ControlAsk::Recover).await.unwrap_err().to_string();
    assert!(refused.contains("has a leader"), "{refused}");
    let machine = stage.identity(&stage.machine(2));
    let refused = ask(&machine, &stage, 1, ControlAsk::Recover).await.unwrap_err().to_string();
    assert!(refused.contains("only the operator"), "{refused}");
    members(&stage, &operator, 1, |report| report.applied >= 2).await;

    (0..3).for_each(|index| children.kill(index));
    [2, 3].into_iter().for_each(|number| std::fs::remove_dir_all(stage.data(number)).unwrap());
    (0..3).for_each(|index| children.0[index] = spawn(&stage, index + 1));
    let lost = members(&stage, &operator, 1, |_| true).await;
    assert_eq!(voters(&lost), 3);
    members(&stage, &operator, 2, |_| true).await;
    let refused = ask(&operator, &stage, 2, ControlAsk::Recover).await.unwrap_err().to_string();
    assert!(refused.contains("no state to recover from"), "{refused}");
    recover(&stage, &operator, &mut children, 1).await;
    let record = stage.client(1).read("a", DEADLINE).await.unwrap().unwrap();
    assert_eq!(record.value, json!("kept"));
    assert!(record.version > 1_000, "version {} may be taken for old news", record.version);
    assert!(stage.data(1).join("before-recovery/log").exists());
    // The two with empty disks are voters of the plan, so they vote again as they come.
    members(&stage, &operator, 1, |report| voters(report) == 3).await;
    let client = stage.client(2);
    assert_eq!(client.propose("a", record.version, json!("new"), DEADLINE).await, Ok(record.version + 1));
    // And the new cluster bears the loss of the one that it began with.
    children.kill(0);
    let record = client.read("a", DEADLINE).await.unwrap().unwrap();
    assert_eq!(record.value, json!("new"));
}

#[tokio::test]
async fn a_voter_that_was_left_over_forgets_and_is_taken_in() {
    let stage = Stage::new(BLOCK_OF_FIVE, 5);
    let operator = stage.operator();
    let mut children = Children((1..=5).map(|number| spawn(&stage, number)).collect());
    leader(&stage).await;
    assert_eq!(stage.client(1).propose("a", ABSENT, json!("kept"), DEADLINE).await, Ok(1));
    let all_know = |report: &MembersReport| report.applied >= 2;
    members(&stage, &operator, 1, all_know).await;
    members(&stage, &operator, 2, all_know).await;
    let forget = async |number| ask(&operator, &stage, number, ControlAsk::Forget).await;
    let refused = forget(2).await.unwrap_err().to_string();
    assert!(refused.contains("nothing was changed"), "{refused}");

    (0..5).for_each(|index| children.kill(index));
    (3..=5).for_each(|number| std::fs::remove_dir_all(stage.data(number)).unwrap());
    (0..5).for_each(|index| children.0[index] = spawn(&stage, index + 1));
    // Which one it is does not matter: both know the same, or the other one is named.
    let know = [1, 2].map(|number| members(&stage, &operator, number, |_| true));
    let [one, two] = know;
    let (one, two) = (one.await, two.await);
    let (first, left) = if (two.log_term, two.log) > (one.log_term, one.log) { (2, 1) } else { (1, 2) };
    // For some moments after each start it believes in the leader of before.
    let forget_alone = async || {
        let end = Instant::now() + DEADLINE;
        loop {
            match forget(left).await {
                Err(error) if error.to_string().contains("has a leader") && Instant::now() < end => {
                    sleep(Duration::from_millis(50)).await;
                }
                other => return other.map_err(|error| error.to_string()),
            }
        }
    };
    let refused = forget_alone().await.unwrap_err();
    assert!(refused.contains("may be the one that counts"), "{refused}");
    recover(&stage, &operator, &mut children, first).await;
    members(&stage, &operator, first, |report| report.leads()).await;

    // The one that is left over still counts on the lost ones, and is of no use.
    let alone = members(&stage, &operator, left, |_| true).await;
    assert_eq!((voters(&alone), alone.members.len()), (5, 5));
    forget_alone().await.unwrap();
    ends_and_starts(&stage, &mut children, left).await;
    assert!(stage.data(left).join("before-recovery/log").exists());
    members(&stage, &operator, first, |report| voters(report) == 5).await;
    let record = stage.client(left).read("a", DEADLINE).await.unwrap().unwrap();
    assert_eq!(record.value, json!("kept"));
}
