//! Finds the epoll of the runtime, which does not tell it: /proc does.

use std::fs;
use std::io;
use std::os::fd::RawFd;

/// The epoll instance of this process that watches this descriptor, and which one of its own descriptors is for.
pub(super) fn that_watches(descriptor: RawFd) -> io::Result<RawFd> {
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        let entry = entry?;
        // The descriptor by which the folder itself is read is gone by now.
        let Ok(info) = fs::read_to_string(entry.path()) else { continue };
        if watched(&info).any(|watched| watched == descriptor)
            && let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok())
        {
            return Ok(number);
        }
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "the runtime's epoll is not found in /proc"))
}

/// What an epoll instance watches, by proc(5); nothing for other descriptors.
fn watched(info: &str) -> impl Iterator<Item = RawFd> {
    info.lines()
        .filter_map(|line| line.strip_prefix("tfd:"))
        .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::event::{EventfdFlags, epoll, eventfd};

    use super::*;

    #[test]
    fn the_epoll_that_watches_a_descriptor_is_found_among_others() {
        let [one, other] = [(); 2].map(|()| epoll::create(epoll::CreateFlags::CLOEXEC).unwrap());
        let [watched, unwatched] = [(); 2].map(|()| eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let data = epoll::EventData::new_u64(0);
        epoll::add(&other, &watched, data, epoll::EventFlags::IN).unwrap();
        epoll::add(&one, &other, data, epoll::EventFlags::IN).unwrap();

        assert_eq!(that_watches(watched.as_raw_fd()).unwrap(), other.as_raw_fd());
        assert_eq!(that_watches(unwatched.as_raw_fd()).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
