//! Control for tests of real processes: the same records, in the memory of the test, over a Unix socket. Frames are
//! lines of JSON. What Raft adds (several machines, disks, elections) is tested where Raft is.

#![allow(clippy::unwrap_used)] // a test
#![allow(dead_code)] // each program that includes this uses one end

use std::path::{Path, PathBuf};
use std::time::Duration;

use link::control::{Control, ControlError, Memory, Record, Seen, Soon, since_boot};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// How soon a watcher comes back after its connection ended.
const AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    Propose { key: String, version: u64, value: Value },
    Read { key: String },
    Watch { key: String },
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Made(u64),
    Changed(Option<Record>),
    Refused(String),
    Unavailable(String),
    Record(Option<Record>),
}

/// Answers for as long as the process lives.
pub(crate) fn serve(memory: Memory, socket: &Path) {
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = UnixListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(converse(memory.clone(), stream));
            }
        });
    });
}

/// Until the other end goes.
async fn converse(memory: Memory, stream: UnixStream) -> Option<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await.ok()? {
        let answer = match serde_json::from_str(&line).unwrap() {
            Ask::Propose { key, version, value } => {
                match memory.propose(&key, version, value, Duration::MAX).await {
                    Ok(version) => Answer::Made(version),
                    Err(ControlError::Changed(record)) => Answer::Changed(record),
                    Err(ControlError::Refused(why)) => Answer::Refused(why),
                    // An answer that is lost.
                    Err(ControlError::Unknown(_)) => continue,
                    Err(ControlError::Unavailable(why)) => Answer::Unavailable(why),
                }
            }
            Ask::Read { key } => match memory.read(&key, Duration::MAX).await {
                Ok(record) => Answer::Record(record),
                Err(error) => Answer::Unavailable(error.to_string()),
            },
            Ask::Watch { key } => {
                let mut seen = memory.watch(&key);
                loop {
                    let record = seen.borrow_and_update().clone().map(|seen| seen.record);
                    write.write_all(&encoded(&Answer::Record(record))).await.ok()?;
                    seen.changed().await.ok()?;
                }
            }
        };
        write.write_all(&encoded(&answer)).await.ok()?;
    }
    None
}

fn encoded(frame: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(frame).unwrap();
    line.push(b'\n');
    line
}

/// The other end.
#[derive(Clone, Debug)]
pub(crate) struct Remote(pub(crate) PathBuf);

impl Remote {
    async fn ask(&self, ask: &Ask, within: Duration) -> Result<Answer, ControlError> {
        let answered = async {
            let mut stream = UnixStream::connect(&self.0).await?;
            stream.write_all(&encoded(ask)).await?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).await?;
            Ok::<_, std::io::Error>(serde_json::from_str(&line)?)
        };
        let unknown = |error: &dyn std::fmt::Display| ControlError::Unknown(error.to_string());
        match tokio::time::timeout(within, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(unknown(&error)),
            Err(late) => Err(unknown(&late)),
        }
    }

    /// Shows everything that comes until the connection ends.
    async fn follow(&self, key: &str, seen: &watch::Sender<Option<Seen>>) -> std::io::Result<()> {
        let mut stream = UnixStream::connect(&self.0).await?;
        stream.write_all(&encoded(&Ask::Watch { key: key.to_owned() })).await?;
        let mut lines = BufReader::new(stream).lines();
        while let Some(line) = lines.next_line().await? {
            if let Answer::Record(Some(record)) = serde_json::from_str(&line)? {
                seen.send_if_modified(|last| {
                    let newer = last.as_ref().is_none_or(|last| record.version > last.record.version);
                    if newer {
                        *last = Some(Seen { record, at: since_boot() });
                    }
                    newer
                });
            }
        }
        Ok(())
    }
}

impl Control for Remote {
    fn propose<'a>(&'a self, key: &'a str, version: u64, value: Value, within: Duration) -> Soon<'a, u64> {
        Box::pin(async move {
            match self.ask(&Ask::Propose { key: key.to_owned(), version, value }, within).await? {
                Answer::Made(version) => Ok(version),
                Answer::Changed(record) => Err(ControlError::Changed(record)),
                Answer::Refused(why) => Err(ControlError::Refused(why)),
                Answer::Unavailable(why) => Err(ControlError::Unavailable(why)),
                other @ Answer::Record(_) => Err(ControlError::Unknown(format!("{other:?}"))),
            }
        })
    }

    fn read<'a>(&'a self, key: &'a str, within: Duration) -> Soon<'a, Option<Record>> {
        Box::pin(async move {
            match self.ask(&Ask::Read { key: key.to_owned() }, within).await? {
                Answer::Record(record) => Ok(record),
                other => Err(ControlError::Unavailable(format!("{other:?}"))),
            }
        })
    }

    fn watch(&self, key: &str) -> watch::Receiver<Option<Seen>> {
        let (sender, seen) = watch::channel(None);
        let (remote, key) = (self.clone(), key.to_owned());
        tokio::spawn(async move {
            while !sender.is_closed() {
                // Whatever ended it, it begins again.
                drop(remote.follow(&key, &sender).await);
                tokio::time::sleep(AGAIN).await;
            }
        });
        seen
    }
}
