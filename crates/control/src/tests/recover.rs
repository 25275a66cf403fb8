//! Most voters lost for good, as processes: the last one begins anew by the operator's order alone.

use link::api::{Answer, ApiError, Ask, Authority, Identity, OPERATOR, call};
use link::control::wire::{ControlAnswer, ControlAsk, MembersReport};
use link::control::{ABSENT, Control};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::killed::{Children, leader, spawn};
use super::stage::{DEADLINE, Stage};

const BLOCK: u8 = 149;

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
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn voters(report: &MembersReport) -> usize {
    report.members.iter().filter(|member| member.votes).count()
}

#[tokio::test]
async fn the_last_voter_begins_anew_by_order_and_takes_the_others_in() {
    let stage = Stage::new(BLOCK, 3);
    let folder = stage.folder.join(OPERATOR);
    std::fs::create_dir_all(&folder).unwrap();
    Authority::open(&stage.folder.join("authority")).unwrap().issue(OPERATOR, &folder).unwrap();
    let operator = Identity::open(&folder).unwrap();
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
    // For a moment it believes that it still leads.
    let end = Instant::now() + DEADLINE;
    while let Err(refused) = ask(&operator, &stage, 1, ControlAsk::Recover).await {
        assert!(refused.to_string().contains("has a leader") && Instant::now() < end, "{refused}");
        sleep(std::time::Duration::from_millis(50)).await;
    }

    // It ends, and is started again.
    let end = Instant::now() + DEADLINE;
    while children.0[0].try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "it does not end");
        sleep(std::time::Duration::from_millis(20)).await;
    }
    children.0[0] = spawn(&stage, 1);
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
