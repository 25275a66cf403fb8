//! The servers of a plan, the addresses they listen on, and whether those are in each other's way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use crate::meant::{Listen, Machine, Place, Role, Server, SocketKind, Target};
use crate::mistake::{Mistake, Notes};
use crate::placement::Placement;
use crate::typed::{Typed, Written};

/// In the order of a request, and of the start: control comes before the database that needs it. The monitor
/// has no servers in this version.
const ROLES: [Role; 7] =
    [Role::Dns, Role::Balancer, Role::Web, Role::App, Role::Gate, Role::Control, Role::Database];

/// The port where users expect HTTP, and DNS, on real machines.
const HTTP_PORT: u16 = 80;
const DNS_PORT: u16 = 53;
const UP_HTTP_PORT: u16 = 8080;
const UP_DNS_PORT: u16 = 1053;
const WEB_PORT: u16 = 8081;
const APP_PORT: u16 = 8082;
const READ_WRITE_PORT: u16 = 6432;
const READ_ONLY_PORT: u16 = 6433;
const CONTROL_PORT: u16 = 7401;
const POSTGRES_PORT: u16 = 5432;

/// One socket per core.
const ALL_CORES: u16 = 0;

/// What is needed to place a server on its ports.
pub(crate) struct Given<'a> {
    pub(crate) typed: &'a Typed,
    pub(crate) place: Place,
    pub(crate) machines: &'a [Machine],
    /// Those of the plan that this one comes after.
    pub(crate) before: &'a [Server],
}

/// All servers, in the order of a request and of each `on`.
pub(crate) fn servers(placement: &Placement, given: &Given<'_>, notes: &Notes) -> Vec<Server> {
    let front = front(placement);
    let mut servers = Vec::new();
    for role in ROLES {
        let machines = placement.of(role);
        for (machine, name) in machines.iter().zip(names(role, machines, given.before)) {
            let Some(machine) = given.machines.iter().find(|known| known.name == *machine) else {
                continue;
            };
            servers.push(Server {
                name,
                role,
                machine: machine.name.clone(),
                address: machine.address,
                listen: listens(role, front, machine, given),
            });
        }
    }
    note_clashes(&servers, given, notes);
    servers
}

/// The names of one role's servers on these machines. A server keeps its name for as long as its machine has it,
/// whichever machines come and go: it stands in logs, metrics and cookies. Others get the lowest numbers that are free.
fn names(role: Role, machines: &[String], before: &[Server]) -> Vec<String> {
    let of_role: Vec<&Server> = before.iter().filter(|server| server.role == role).collect();
    let mut free =
        (1..).map(|number| format!("{role}-{number}")).filter(|name| of_role.iter().all(|b| b.name != *name));
    let kept = |machine: &String| of_role.iter().find(|server| server.machine == *machine);
    let name = |machine| kept(machine).map(|server| server.name.clone()).or_else(|| free.next());
    machines.iter().filter_map(name).collect()
}

/// The role that users' HTTP requests meet first.
fn front(placement: &Placement) -> Option<Role> {
    [Role::Balancer, Role::Web, Role::App].into_iter().find(|role| !placement.of(*role).is_empty())
}

fn listens(role: Role, front: Option<Role>, machine: &Machine, given: &Given<'_>) -> Vec<Listen> {
    let is_front = role == Role::Dns || front == Some(role);
    let address = if is_front { front_address(machine, given) } else { machine.address };
    let listen = |name: &str, kind: SocketKind| {
        let written = written_port(role, name, given.typed).map(|port| port.value);
        let port = written.unwrap_or_else(|| default_port(role, name, is_front, given.place));
        let held = role != Role::Database;
        let sockets = if held && role != Role::Control { ALL_CORES } else { 1 };
        Listen { name: name.to_owned(), kind, address: SocketAddr::new(address, port), held, sockets }
    };
    match role {
        Role::Dns => vec![listen("dns", SocketKind::Udp), listen("dns-tcp", SocketKind::Tcp)],
        Role::Balancer | Role::Web | Role::App => vec![listen("http", SocketKind::Tcp)],
        Role::Gate => vec![listen("read-write", SocketKind::Tcp), listen("read-only", SocketKind::Tcp)],
        Role::Database => vec![listen("postgres", SocketKind::Tcp)],
        Role::Control => vec![listen("control", SocketKind::Tcp)],
        Role::Monitor => Vec::new(),
    }
}

/// Users come by the public addresses of a machine, which a provider may translate so that the machine
/// itself never sees them. So a machine with public addresses, or with none written at all, answers in
/// front on every address that it has.
fn front_address(machine: &Machine, given: &Given<'_>) -> IpAddr {
    let everywhere = given.typed.machines.is_none() || !machine.public.is_empty();
    match given.place {
        Place::Machines if everywhere && machine.public.iter().any(IpAddr::is_ipv6) => {
            Ipv6Addr::UNSPECIFIED.into()
        }
        Place::Machines if everywhere => Ipv4Addr::UNSPECIFIED.into(),
        Place::Machines | Place::Up { .. } => machine.address,
    }
}

fn default_port(role: Role, listen: &str, is_front: bool, place: Place) -> u16 {
    match (role, place) {
        (Role::Dns, Place::Up { .. }) => UP_DNS_PORT,
        (Role::Dns, Place::Machines) => DNS_PORT,
        (Role::Balancer | Role::Web | Role::App, Place::Machines) if is_front => HTTP_PORT,
        (Role::Balancer, _) => UP_HTTP_PORT,
        (Role::Web, _) => WEB_PORT,
        (Role::App, _) => APP_PORT,
        (Role::Gate, _) if listen == "read-only" => READ_ONLY_PORT,
        (Role::Gate, _) => READ_WRITE_PORT,
        (Role::Control, _) => CONTROL_PORT,
        (Role::Database | Role::Monitor, _) => POSTGRES_PORT,
    }
}

fn written_port<'a>(role: Role, listen: &str, typed: &'a Typed) -> Option<&'a Written<u16>> {
    let database = typed.database.as_ref();
    match role {
        Role::Dns => typed.dns.as_ref()?.port.as_ref(),
        Role::Balancer => typed.balancer.as_ref()?.port.as_ref(),
        Role::Web => typed.web.as_ref()?.port.as_ref(),
        Role::App => typed.app.as_ref()?.port.as_ref(),
        Role::Gate if listen == "read-only" => database?.read_only_port.as_ref(),
        Role::Gate => database?.read_write_port.as_ref(),
        Role::Database => database?.port.as_ref(),
        Role::Control | Role::Monitor => None,
    }
}

/// Our own servers of a role, as the tier before them sees them.
pub(crate) fn targets(servers: &[Server], role: Role) -> Vec<Target> {
    let target = |server: &Server| {
        let port = server.listens("http")?.port();
        Some(Target {
            name: server.name.clone(),
            address: SocketAddr::new(server.address, port),
            lookup: None,
            machine: Some(server.machine.clone()),
            weight: 1,
            backup: false,
            max_connections: None,
        })
    };
    servers.iter().filter(|server| server.role == role).filter_map(target).collect()
}

/// Something that takes a port of a machine.
struct Taker<'a> {
    machine: &'a str,
    name: String,
    /// The same for all servers of a role, so that one clash is noted once and not on every machine.
    kind_of_taker: String,
    kind: SocketKind,
    address: SocketAddr,
    span: Option<Range<usize>>,
}

fn note_clashes(servers: &[Server], given: &Given<'_>, notes: &Notes) {
    let mut takers: Vec<Taker<'_>> = given.machines.iter().map(agent).collect();
    takers.extend(
        servers
            .iter()
            .flat_map(|server| server.listen.iter().map(move |listen| taker(server, listen, given.typed))),
    );
    let mut noted: Vec<(&str, &str)> = Vec::new();
    for (index, taker) in takers.iter().enumerate() {
        for other in takers[..index].iter().filter(|other| clash(other, taker)) {
            let pair = (other.kind_of_taker.as_str(), taker.kind_of_taker.as_str());
            if !noted.contains(&pair) {
                noted.push(pair);
                notes.note(clash_mistake(other, taker));
            }
        }
    }
}

fn agent(machine: &Machine) -> Taker<'_> {
    Taker {
        machine: &machine.name,
        name: "the agent".to_owned(),
        kind_of_taker: "agent".to_owned(),
        kind: SocketKind::Tcp,
        address: machine.agent,
        span: None,
    }
}

fn taker<'a>(server: &'a Server, listen: &Listen, typed: &Typed) -> Taker<'a> {
    Taker {
        machine: &server.machine,
        name: format!("{} ({})", server.name, listen.name),
        kind_of_taker: format!("{} {}", server.role, listen.name),
        kind: listen.kind,
        address: listen.address,
        span: written_port(server.role, &listen.name, typed).map(|port| port.span.clone()),
    }
}

fn clash(one: &Taker<'_>, other: &Taker<'_>) -> bool {
    let (here, there) = (one.address.ip(), other.address.ip());
    one.machine == other.machine
        && one.kind == other.kind
        && one.address.port() == other.address.port()
        && (here == there || here.is_unspecified() || there.is_unspecified())
}

fn clash_mistake(one: &Taker<'_>, other: &Taker<'_>) -> Mistake {
    let port = other.address.port();
    let message =
        format!("port {port} is taken twice on {}: by {} and by {}", one.machine, one.name, other.name);
    let hint = "choose another port for one of them, or another machine";
    match other.span.clone().or_else(|| one.span.clone()) {
        Some(span) => Mistake::at(span, message).hint(hint),
        None => Mistake::of_file(message).hint(hint),
    }
}
