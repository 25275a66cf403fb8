//! The floor of the classic way: a proxy that passes bytes on without looking at them.
//!
//! One thread, epoll, and for each request the four system calls that nobody saves who uses it: receive and send
//! there, receive and send back. It knows nothing of HTTP: what comes from a client goes to a server in turn, what
//! comes from there goes to the client, and then the connection to the server is free. So it is right only for a
//! load of small requests and answers, and no proxy that anybody could use; it says what the kernel alone costs.
//!
//! `floor LISTEN SERVER…`

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

const BUFFER_BYTES: usize = 16 * 1024;
const EVENTS: usize = 256;

const EPOLL_CLOEXEC: i32 = 0o2000000;
const EPOLL_CTL_ADD: i32 = 1;
const EPOLLIN: u32 = 1;
const EPOLLRDHUP: u32 = 1 << 13;
const EPOLLET: u32 = 1 << 31;

#[derive(Clone, Copy)]
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
struct Event {
    events: u32,
    descriptor: u64,
}

// SAFETY: as epoll_create(2), epoll_ctl(2) and epoll_wait(2) declare them.
unsafe extern "C" {
    fn epoll_create1(flags: i32) -> i32;
    fn epoll_ctl(epoll: i32, operation: i32, descriptor: i32, event: *mut Event) -> i32;
    fn epoll_wait(epoll: i32, events: *mut Event, most: i32, timeout_ms: i32) -> i32;
}

struct Connection {
    stream: TcpStream,
    /// The server that it leads to; None: it is a client's.
    server: Option<usize>,
    /// The other end of what is under way.
    other: Option<RawFd>,
}

struct Floor {
    epoll: i32,
    servers: Vec<String>,
    turn: usize,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
    /// Free connections to each server.
    free: Vec<Vec<RawFd>>,
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [listen, servers @ ..] = &words[..] else {
        return Err(io::Error::other("usage: floor LISTEN SERVER…"));
    };
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    // SAFETY: no memory is passed.
    let epoll = unsafe { epoll_create1(EPOLL_CLOEXEC) };
    let free = servers.iter().map(|_| Vec::new()).collect();
    let mut floor = Floor { epoll, servers: servers.to_vec(), turn: 0, connections: Vec::new(), free };
    floor.watch(listener.as_raw_fd(), EPOLLIN)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let mut events = [Event { events: 0, descriptor: 0 }; EVENTS];
        // SAFETY: the array is as long as is said.
        let count = unsafe { epoll_wait(epoll, events.as_mut_ptr(), EVENTS as i32, -1) };
        for event in &events[..count.max(0) as usize] {
            let descriptor = event.descriptor as RawFd;
            if descriptor == listener.as_raw_fd() {
                floor.accept(&listener)?;
            } else {
                floor.pass_on(descriptor, &mut buffer)?;
            }
        }
    }
}

impl Floor {
    fn watch(&self, descriptor: RawFd, events: u32) -> io::Result<()> {
        let mut event = Event { events, descriptor: descriptor as u64 };
        // SAFETY: the event lives during the call.
        match unsafe { epoll_ctl(self.epoll, EPOLL_CTL_ADD, descriptor, &raw mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn add(&mut self, stream: TcpStream, server: Option<usize>, other: Option<RawFd>) -> io::Result<RawFd> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let descriptor = stream.as_raw_fd();
        self.watch(descriptor, EPOLLIN | EPOLLRDHUP | EPOLLET)?;
        let place = descriptor as usize;
        if self.connections.len() <= place {
            self.connections.resize_with(place + 1, || None);
        }
        self.connections[place] = Some(Connection { stream, server, other });
        Ok(descriptor)
    }

    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        while let Ok((stream, _)) = listener.accept() {
            self.add(stream, None, None)?;
        }
        Ok(())
    }

    fn pass_on(&mut self, from: RawFd, buffer: &mut [u8]) -> io::Result<()> {
        let Some(connection) = self.at(from) else { return Ok(()) };
        let count = match connection.stream.read(buffer) {
            Ok(count @ 1..) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            _ => {
                self.connections[from as usize] = None;
                self.free.iter_mut().for_each(|free| free.retain(|one| *one != from));
                return Ok(());
            }
        };
        let to = match connection.server {
            Some(server) => {
                let other = connection.other;
                self.free[server].push(from);
                other
            }
            None => Some(self.to_server(from)?),
        };
        if let Some(to) = to.and_then(|to| self.at(to)) {
            to.stream.write_all(&buffer[..count])?;
        }
        Ok(())
    }

    fn at(&mut self, descriptor: RawFd) -> Option<&mut Connection> {
        self.connections.get_mut(descriptor as usize)?.as_mut()
    }

    fn to_server(&mut self, client: RawFd) -> io::Result<RawFd> {
        self.turn = (self.turn + 1) % self.servers.len();
        let server = self.turn;
        if let Some(free) = self.free[server].pop()
            && let Some(connection) = self.at(free)
        {
            connection.other = Some(client);
            return Ok(free);
        }
        self.add(TcpStream::connect(&self.servers[server])?, Some(server), Some(client))
    }
}
