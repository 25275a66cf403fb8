//! Whether the addresses of a plan are free, and if not, who has them.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use plan::{Plan, SocketKind};
use socket2::{Domain, Socket, Type};

/// One address that somebody else has.
#[derive(Debug)]
pub struct Taken {
    pub address: SocketAddr,
    /// Which of our servers is to have it.
    pub wanted_by: String,
    /// `nginx (process 4711)`, when we may know.
    pub by: Option<String>,
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} for {} is taken", self.address, self.wanted_by)?;
        self.by.iter().try_for_each(|by| write!(f, " by {by}"))
    }
}

/// All addresses of these machines that are taken.
pub fn taken(plan: &Plan, machines: &[&str]) -> Vec<Taken> {
    let on = |machine: &str| machines.contains(&machine);
    let agents = plan.machines.iter().filter(|machine| on(&machine.name));
    let agents =
        agents.map(|machine| (format!("the agent of {}", machine.name), SocketKind::Tcp, machine.agent));
    let servers = plan.servers.iter().filter(|server| on(&server.machine));
    let listens = servers.flat_map(|server| {
        server.listen.iter().map(|listen| (server.name.clone(), listen.kind, listen.address))
    });
    agents
        .chain(listens)
        .filter(|(_, kind, address)| !is_free(*kind, *address))
        .map(|(wanted_by, kind, address)| Taken { address, wanted_by, by: holder(kind, address) })
        .collect()
}

/// A plain bind, which sees a socket of anybody. SO_REUSEADDR only looks past connections in TIME_WAIT.
fn is_free(kind: SocketKind, address: SocketAddr) -> bool {
    let attempt = || {
        let stream = kind == SocketKind::Tcp;
        let socket_type = if stream { Type::STREAM } else { Type::DGRAM };
        let socket = Socket::new(Domain::for_address(address), socket_type, None)?;
        socket.set_reuse_address(stream)?;
        socket.bind(&address.into())?;
        if stream { socket.listen(1) } else { Ok(()) }
    };
    attempt().is_ok()
}

/// Finds the process that has the address, as far as this user may look.
fn holder(kind: SocketKind, address: SocketAddr) -> Option<String> {
    let inode = inode(kind, address)?;
    let wanted = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else { continue };
        let has = descriptors
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()));
        if has {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {pid})", name.trim()));
        }
    }
    None
}

/// The socket's inode in /proc/net (proc_pid_net(5)): local address in hexadecimal, host byte order by word.
fn inode(kind: SocketKind, address: SocketAddr) -> Option<u64> {
    let (stream, datagram, any) = match address.ip() {
        IpAddr::V4(_) => ("/proc/net/tcp", "/proc/net/udp", "00000000"),
        IpAddr::V6(_) => ("/proc/net/tcp6", "/proc/net/udp6", "00000000000000000000000000000000"),
    };
    let table = fs::read_to_string(if kind == SocketKind::Tcp { stream } else { datagram }).ok()?;
    let exact = format!("{}:{:04X}", words(address.ip()), address.port());
    let any = format!("{any}:{:04X}", address.port());
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = kind == SocketKind::Udp || fields.get(3) == Some(&"0A");
        let local = *fields.get(1)?;
        (listens && (local == exact || local == any)).then(|| fields.get(9)?.parse().ok())?
    })
}

fn words(ip: IpAddr) -> String {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let word = |bytes: &[u8]| bytes.iter().rev().map(|byte| format!("{byte:02X}")).collect::<String>();
    bytes.chunks(4).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.49.9:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(!is_free(SocketKind::Tcp, address));
        let holder = holder(SocketKind::Tcp, address).unwrap();
        assert!(holder.contains(&format!("(process {})", std::process::id())), "{holder}");
        drop(listener);
        assert!(is_free(SocketKind::Tcp, address));
    }

    #[test]
    fn a_port_taken_on_all_addresses_is_seen() {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let address = SocketAddr::new(IpAddr::from([127, 0, 49, 9]), socket.local_addr().unwrap().port());
        assert!(!is_free(SocketKind::Udp, address));
        assert!(holder(SocketKind::Udp, address).is_some());
    }
}
