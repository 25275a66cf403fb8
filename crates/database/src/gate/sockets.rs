//! Sockets: source address, keepalive, the limit on open files.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use super::targets::Address;

/// How long one try to connect may take.
pub(crate) const CONNECT: Duration = Duration::from_secs(2);

/// A peer that acknowledges nothing for this long is gone: a machine that lost its power sends no end.
/// One of our own servers may take as long as its lease.
const SERVER_SILENT: Duration = Duration::from_secs(3);
const EXTERNAL_SILENT: Duration = Duration::from_secs(5);
const CLIENT_SILENT: Duration = Duration::from_secs(30);

/// Descriptors for everything that is not a client's connection.
const RESERVED_FILES: u64 = 64;

/// Raises the soft limit on open files to the hard one; returns how many connections fit, two files each.
pub(crate) fn raise_file_limit(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let fit = files.map_or(u64::MAX, |files| files.saturating_sub(RESERVED_FILES) / 2);
    wanted.min(usize::try_from(fit).unwrap_or(usize::MAX)).max(1)
}

/// Connects from our machine's own address, so that machines can be told apart.
pub(crate) async fn connect(address: &Address, from: IpAddr) -> io::Result<TcpStream> {
    let stream = match tokio::time::timeout(CONNECT, try_connect(address, from)).await {
        Ok(stream) => stream?,
        Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer to the connection")),
    };
    let silent = match address {
        Address::Ours(_) => SERVER_SILENT,
        Address::External { .. } => EXTERNAL_SILENT,
    };
    tune(&stream, silent)?;
    Ok(stream)
}

async fn try_connect(address: &Address, from: IpAddr) -> io::Result<TcpStream> {
    match address {
        Address::Ours(address) => {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.bind(SocketAddr::new(from, 0))?;
            socket.connect(*address).await
        }
        Address::External { host, port } => TcpStream::connect((host.as_str(), *port)).await,
    }
}

pub(crate) fn tune_client(client: &TcpStream) -> io::Result<()> {
    tune(client, CLIENT_SILENT)
}

fn tune(stream: &TcpStream, silent: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let interval = (silent / 5).max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new().with_time(silent).with_interval(interval).with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(silent))?;
    socket.set_tcp_nodelay(true)
}
