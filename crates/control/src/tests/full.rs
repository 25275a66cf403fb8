//! A full disk under the log of one voter.

use std::time::Duration;

use link::control::{ABSENT, Control};
use serde_json::json;
use testkit::SmallDisk;
use tokio::time::{Instant, sleep};

use super::killed::{Children, leader, spawn};
use super::stage::{DEADLINE, Stage, name};

const BLOCK: u8 = 144;

#[tokio::test]
async fn a_voter_whose_disk_is_full_says_so_and_the_others_go_on() {
    let stage = Stage::new(BLOCK, 3);
    let Some(disk) = SmallDisk::where_allowed(&stage.data(1), 1 << 20) else { return };
    let mut children = Children((1..=3).map(|number| spawn(&stage, number)).collect());
    leader(&stage).await;
    let client = stage.client(2);
    let mut version = client.propose("a", ABSENT, json!(0), DEADLINE).await.unwrap();
    disk.fill();
    // What it cannot write it has not acknowledged: it ends, whether or not it led.
    let end = Instant::now() + DEADLINE;
    while children.0[0].try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "it goes on with a full disk");
        version = client.propose("a", version, json!("x".repeat(1000)), DEADLINE).await.unwrap();
    }
    let said = std::fs::read_to_string(stage.folder.join(format!("{}.out", name(1)))).unwrap();
    assert!(said.contains("No space left on device"), "{said}");
    // A start on a full disk ends again, and harms nobody.
    children.0[0] = spawn(&stage, 1);
    version = client.propose("a", version, json!("without it"), DEADLINE).await.unwrap();
    while children.0[0].try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "it goes on with a full disk");
        sleep(Duration::from_millis(20)).await;
    }
    disk.make_room();
    children.0[0] = spawn(&stage, 1);
    // It is needed again: another one is gone.
    children.kill(1);
    let client = stage.client(3);
    version = client.propose("a", version, json!("with it"), DEADLINE).await.unwrap();
    let record = client.read("a", DEADLINE).await.unwrap().unwrap();
    assert_eq!((record.version, record.value), (version, json!("with it")));
}
