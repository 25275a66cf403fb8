//! Many datagrams in one system call: recvmmsg(2) and sendmmsg(2).
//!
//! At a hundred thousand queries a second the system calls cost more than the answers; under load one pair of
//! them serves up to [`SIZE`] queries, and when it is quiet a batch is one query and nobody waits for a second.
#![allow(unsafe_code)] // two system calls that no safe crate offers; each use has its SAFETY reason

use std::io;
use std::mem::size_of;
use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// The most datagrams in one call.
pub(crate) const SIZE: usize = 64;
/// The longest query in bytes: longer ones arrive cut off and are malformed. Real ones have a tenth of this.
const QUERY: usize = 2048;

/// Memory for one batch, made once for each thread. The boxes never move and never change their size, so the
/// pointers between them, set in [`Batch::new`], stay valid as long as the batch.
pub(crate) struct Batch {
    queries: Box<[[u8; QUERY]]>,
    peers: Box<[libc::sockaddr_storage]>,
    /// Points to `queries`; read by the kernel only.
    _spaces: Box<[libc::iovec]>,
    inbound: Box<[libc::mmsghdr]>,
    answers: Box<[libc::iovec]>,
    outbound: Box<[libc::mmsghdr]>,
}

/// An answer in a buffer, and the number of the query that it belongs to.
pub(crate) struct Reply {
    pub(crate) query: usize,
    pub(crate) bytes: Range<usize>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        // SAFETY: all three are plain C structures, for which zero bytes are a valid value.
        let (peer, header): (libc::sockaddr_storage, libc::mmsghdr) = unsafe { std::mem::zeroed() };
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut queries = vec![[0; QUERY]; SIZE].into_boxed_slice();
        let mut peers = vec![peer; SIZE].into_boxed_slice();
        let space =
            |query: &mut [u8; QUERY]| libc::iovec { iov_base: query.as_mut_ptr().cast(), iov_len: QUERY };
        let mut spaces: Box<[_]> = queries.iter_mut().map(space).collect();
        let mut inbound = vec![header; SIZE].into_boxed_slice();
        for ((header, space), peer) in inbound.iter_mut().zip(&mut spaces).zip(&mut peers) {
            header.msg_hdr.msg_iov = space;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = std::ptr::from_mut(peer).cast();
        }
        let answers = vec![nothing; SIZE].into_boxed_slice();
        let outbound = vec![header; SIZE].into_boxed_slice();
        Self { queries, peers, _spaces: spaces, inbound, answers, outbound }
    }

    /// Waits for one datagram, as long as the socket's read time-out says, and takes what else is there.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        for header in &mut self.inbound {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
        }
        // SAFETY: the array has SIZE headers; each points to one vector over its own query buffer of QUERY
        // bytes and to its own address of the length just set, all owned by self and borrowed mutably.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.inbound.as_mut_ptr(),
                SIZE as u32,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// The query of this number, after a `receive` that counted further.
    pub(crate) fn query(&self, index: usize) -> &[u8] {
        let length = self.inbound[index].msg_len as usize;
        &self.queries[index][..length.min(QUERY)]
    }

    /// Sends the answers to where their queries came from. One that cannot be sent is left out, as the network
    /// would do; gives how many those were.
    pub(crate) fn send(&mut self, socket: &UdpSocket, buffer: &[u8], replies: &[Reply]) -> usize {
        let replies = &replies[..replies.len().min(SIZE)];
        for (index, reply) in replies.iter().enumerate() {
            let bytes = &buffer[reply.bytes.clone()];
            // The kernel only reads it, though the structure has no const pointer.
            self.answers[index] =
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let header = &mut self.outbound[index].msg_hdr;
            header.msg_iov = &raw mut self.answers[index];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut self.peers[reply.query]).cast();
            header.msg_namelen = self.inbound[reply.query].msg_hdr.msg_namelen;
        }
        let (mut sent, mut failed) = (0, 0);
        while sent < replies.len() {
            let rest = &mut self.outbound[sent..replies.len()];
            // SAFETY: `rest` has that many headers; each was pointed above to a vector over `buffer`, which is
            // borrowed until the end of this function, and to an address that self owns.
            let count = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, libc::MSG_NOSIGNAL)
            };
            match usize::try_from(count) {
                Ok(count) => sent += count,
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                Err(_) => (sent, failed) = (sent + 1, failed + 1),
            }
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_batch_comes_in_and_goes_back() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for text in ["one", "two", "three"] {
            client.send_to(text.as_bytes(), server.local_addr().unwrap()).unwrap();
        }
        let mut batch = Batch::new();
        assert_eq!(batch.receive(&server).unwrap(), 3);
        assert_eq!(batch.query(2), b"three");
        let replies = [Reply { query: 2, bytes: 0..5 }, Reply { query: 0, bytes: 5..8 }];
        assert_eq!(batch.send(&server, b"THREEONE", &replies), 0);
        let mut buffer = [0; 16];
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"THREE");
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"ONE");
    }

    #[test]
    fn silence_ends_with_the_time_out() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let error = Batch::new().receive(&server).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
