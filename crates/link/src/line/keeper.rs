//! The thread that keeps a server's line up: it reads what comes down, and gives all that the server holds to each new
//! agent.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Down, Downward, Line, Order, Shared, Up, VERSION, connect};
use crate::{frame, short_path};

/// How long the thread waits between two tries to reach a new agent.
const RECONNECT: Duration = Duration::from_millis(50);

/// What the reader thread needs for the whole life of the server.
pub(crate) struct Keeper {
    pub(crate) server: String,
    pub(crate) socket: PathBuf,
    /// Whether this server carries out later plans by itself. One that does not has nothing to do about them.
    pub(crate) adapts: bool,
    /// Duplicates of all that the agent handed over, to give to its successor.
    pub(crate) holds: Vec<(String, OwnedFd)>,
}

/// Starts the thread that keeps the line up, on a connection whose welcome was read.
pub(crate) fn keep(mut keeper: Keeper, stream: UnixStream) -> std::io::Result<Line> {
    let shared = Arc::new(Shared::new(keeper.server.clone(), Some(stream.try_clone()?)));
    let (line, downward) = connect(Arc::clone(&shared));
    std::thread::Builder::new().name("link".into()).stack_size(256 * 1024).spawn(move || {
        let mut stream = stream;
        loop {
            listen(&stream, &downward, &shared, &mut keeper);
            shared.upward().stream = None;
            stream = reconnect(&keeper, &shared);
        }
    })?;
    Ok(line)
}

/// Reads orders until the connection ends.
fn listen(stream: &UnixStream, downward: &Downward, shared: &Shared, keeper: &mut Keeper) {
    loop {
        match frame::receive::<Down>(stream) {
            Ok((Down::Site(report), _)) => {
                downward.site.send_replace(Arc::new(report));
            }
            Ok((Down::Plan(given), _)) if keeper.adapts => {
                shared.hand(*given);
            }
            Ok((Down::Plan(given), _)) => shared.pass(*given),
            Ok((Down::Retire { within_ms }, _)) => {
                // Its successor holds them. Held here as well, they would go on taking connections that nobody accepts.
                keeper.holds.clear();
                downward.orders.send_if_modified(|order| {
                    let serves = *order == Order::Serve;
                    if serves {
                        *order = Order::Retire { within: Duration::from_millis(within_ms) };
                    }
                    serves
                });
            }
            Ok((Down::Stop { within_ms }, _)) => {
                downward.orders.send_replace(Order::Stop { within: Duration::from_millis(within_ms) });
            }
            Ok((Down::Admit, _)) => {
                downward.admitted.send_replace(true);
            }
            Ok((Down::Welcome(_) | Down::Adopted, _)) => {}
            Err(error) => {
                tracing::debug!("the line to the agent ended: {error}");
                return;
            }
        }
    }
}

/// Tries until a new agent takes us, however long that takes: traffic goes on meanwhile.
fn reconnect(keeper: &Keeper, shared: &Shared) -> UnixStream {
    loop {
        std::thread::sleep(RECONNECT);
        match adopt(keeper) {
            Ok(stream) => {
                let Ok(clone) = stream.try_clone() else { continue };
                let mut upward = shared.upward();
                upward.stream = Some(clone);
                let (last, counters) = (upward.last.clone(), upward.counters.clone());
                let traffic = upward.traffic.clone();
                upward.send(&Up::Report(last));
                upward.send(&Up::Counters(counters));
                upward.send(&Up::Traffic(traffic));
                if let Some(taken) = upward.took.clone() {
                    upward.send(&Up::Took(taken));
                }
                tracing::info!("{} is connected to a new agent", shared.server);
                return stream;
            }
            Err(error) => tracing::trace!("no agent yet: {error}"),
        }
    }
}

fn adopt(keeper: &Keeper) -> Result<UnixStream, frame::FrameError> {
    let stream = short_path::connect(&keeper.socket)?;
    let holds = keeper.holds.iter().map(|(name, _)| name.clone()).collect();
    let descriptors: Vec<_> = keeper.holds.iter().map(|(_, descriptor)| descriptor).collect();
    let hello = Up::Hello { version: VERSION, server: keeper.server.clone(), again: true, holds };
    frame::send(&stream, &hello, &descriptors)?;
    match frame::receive::<Down>(&stream)? {
        (Down::Adopted, _) => Ok(stream),
        (other, _) => Err(frame::FrameError::Unexpected(format!("{other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixListener;

    /// What comes down, as an agent says it.
    fn say(agent: &UnixStream, down: &Down) {
        frame::send(agent, down, &[] as &[OwnedFd]).unwrap();
    }

    #[test]
    fn a_process_that_retires_holds_no_socket_for_a_later_agent() {
        let folder = std::env::temp_dir().join(format!("dolmen-keeper-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("link.sock");
        let link = UnixListener::bind(&socket).unwrap();
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let (server, holds) = ("web-1".to_owned(), vec![("http".to_owned(), OwnedFd::from(held))]);
        let (agent, stream) = UnixStream::pair().unwrap();
        let line = keep(Keeper { server, socket, adapts: true, holds }, stream).unwrap();
        let meet = || {
            let (agent, _) = link.accept().unwrap();
            let (hello, _) = frame::receive::<Up>(&agent).unwrap();
            let Up::Hello { holds, .. } = hello else { panic!("{hello:?}") };
            say(&agent, &Down::Adopted);
            (agent, holds)
        };
        drop(agent);
        let (agent, holds) = meet();
        assert_eq!(holds, ["http"], "one that serves gives it to a new agent");
        TcpStream::connect(address).unwrap();
        say(&agent, &Down::Retire { within_ms: 1 });
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_ok() {
            assert!(std::time::Instant::now() < end, "nobody else has the socket, and it still listens");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(agent);
        let (_agent, holds) = meet();
        assert!(holds.is_empty(), "{holds:?}");
        drop(line);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
