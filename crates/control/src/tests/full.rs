//! A full disk under the log of one voter.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use link::control::{ABSENT, Control};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::killed::{Children, leader, spawn};
use super::stage::{DEADLINE, Stage, name};

const BLOCK: u8 = 144;

/// A file system in memory, unmounted when it goes.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where mounting is not allowed: without root, and in most containers.
    fn mount(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder).output().unwrap();
        if mounted.status.success() {
            return Some(Self(folder.to_owned()));
        }
        println!("no small disk: {}", String::from_utf8_lossy(&mounted.stderr));
        None
    }

    /// Until nothing more fits on it; says with which file.
    fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        let mut fill = Command::new("dd");
        fill.args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", filler.display())).stderr(Stdio::null());
        assert!(!fill.status().unwrap().success(), "dd ends when the disk is full");
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().unwrap();
    }
}

#[tokio::test]
async fn a_voter_whose_disk_is_full_says_so_and_the_others_go_on() {
    let stage = Stage::new(BLOCK, 3);
    let Some(disk) = SmallDisk::mount(&stage.data(1)) else { return };
    let mut children = Children((1..=3).map(|number| spawn(&stage, number)).collect());
    leader(&stage).await;
    let client = stage.client(2);
    let mut version = client.propose("a", ABSENT, json!(0), DEADLINE).await.unwrap();
    let filler = disk.fill();
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
    std::fs::remove_file(filler).unwrap();
    children.0[0] = spawn(&stage, 1);
    // It is needed again: another one is gone.
    children.kill(1);
    let client = stage.client(3);
    version = client.propose("a", version, json!("with it"), DEADLINE).await.unwrap();
    let record = client.read("a", DEADLINE).await.unwrap().unwrap();
    assert_eq!((record.version, record.value), (version, json!("with it")));
}
