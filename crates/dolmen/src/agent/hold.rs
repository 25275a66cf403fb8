//! The listening sockets that an agent opens, and holds for as long as the plan names them.
//!
//! A server gets duplicates. While no server can take connections, the held socket is made to refuse them:
//! on Linux `shutdown` takes a listening socket out of the listening state and keeps its port, `listen` puts
//! it back. Closing and binding again would lose the port to somebody else in between.

use std::io;
use std::os::fd::OwnedFd;

use plan::{Listen, Server, SocketKind};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the kernel bounds it by net.core.somaxconn.
const BACKLOG: i32 = 4096;

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}")]
pub struct HoldError {
    pub address: std::net::SocketAddr,
    pub error: io::Error,
}

/// The sockets of one server, by their name in the plan.
#[derive(Debug, Default)]
pub struct Held {
    sockets: Vec<(String, OwnedFd)>,
}

impl Held {
    /// Opens all that the agent is to hold for this server. Streams do not take connections yet.
    pub fn open(server: &Server) -> Result<Self, HoldError> {
        let mut sockets = Vec::new();
        for listen in server.listen.iter().filter(|listen| listen.held) {
            for _ in 0..count(listen) {
                let socket = open(listen).map_err(|error| HoldError { address: listen.address, error })?;
                sockets.push((listen.name.clone(), socket));
            }
        }
        Ok(Self { sockets })
    }

    /// Takes back what a server that outlived an earlier agent gave us.
    pub fn taken_back(sockets: Vec<(String, OwnedFd)>) -> Self {
        Self { sockets }
    }

    pub fn each(&self) -> impl Iterator<Item = (&str, &OwnedFd)> {
        self.sockets.iter().map(|(name, socket)| (name.as_str(), socket))
    }

    /// Only what listens is shut down: on a socket that does not, `shutdown` would leave a mark that every
    /// connection accepted later inherits, and they would all look closed by their clients.
    pub fn refuse(&self) {
        for (name, socket) in self.streams().filter(|(_, socket)| listens(socket)) {
            if let Err(errno) = rustix::net::shutdown(socket, rustix::net::Shutdown::Both) {
                tracing::warn!("cannot make the socket {name} refuse connections: {errno}");
            }
        }
    }

    pub fn accept(&self) {
        for (name, socket) in self.streams() {
            if let Err(errno) = rustix::net::listen(socket, BACKLOG) {
                tracing::error!("cannot make the socket {name} take connections: {errno}");
            }
        }
    }

    fn streams(&self) -> impl Iterator<Item = (&str, &OwnedFd)> {
        let stream = rustix::net::SocketType::STREAM;
        self.each().filter(move |(_, socket)| rustix::net::sockopt::socket_type(socket) == Ok(stream))
    }
}

fn listens(socket: &OwnedFd) -> bool {
    rustix::net::sockopt::socket_acceptconn(socket).unwrap_or(false)
}

fn count(listen: &Listen) -> usize {
    match listen.sockets {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        fixed => usize::from(fixed),
    }
}

fn open(listen: &Listen) -> io::Result<OwnedFd> {
    let (kind, protocol) = match listen.kind {
        SocketKind::Tcp => (Type::STREAM, Protocol::TCP),
        SocketKind::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(listen.address), kind.nonblocking(), Some(protocol))?;
    if listen.kind == SocketKind::Tcp {
        // Without it a restart would fail while connections of the last run are in TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.bind(&listen.address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    fn server(address: SocketAddr, sockets: u16) -> Server {
        let listen = Listen { name: "http".into(), kind: SocketKind::Tcp, address, held: true, sockets };
        Server {
            name: "web-1".into(),
            role: plan::Role::Web,
            machine: "beta".into(),
            address: address.ip(),
            listen: vec![listen],
        }
    }

    fn connects(address: SocketAddr) -> bool {
        TcpStream::connect(address).is_ok()
    }

    /// A word from a client arrives at whoever accepts on one of the held sockets.
    fn passes(held: &Held, address: SocketAddr) {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"word").unwrap();
        let (_, socket) = held.each().next().unwrap();
        let listener = std::net::TcpListener::from(socket.try_clone().unwrap());
        listener.set_nonblocking(false).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        let mut word = [0; 4];
        accepted.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"word");
    }

    #[test]
    fn a_held_socket_refuses_and_accepts_without_losing_its_port() {
        let address: SocketAddr = "127.0.49.1:18081".parse().unwrap();
        let held = Held::open(&server(address, 1)).unwrap();
        assert!(!connects(address), "nothing is accepted before a server is ready");
        held.refuse();
        for _ in 0..3 {
            held.accept();
            passes(&held, address);
            held.refuse();
            held.refuse();
            assert!(!connects(address));
        }
    }

    #[test]
    fn a_taken_port_is_an_error_that_names_the_address() {
        let taken = std::net::TcpListener::bind("127.0.49.2:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = Held::open(&server(address, 1)).unwrap_err();
        assert_eq!(error.address, address);
    }
}
