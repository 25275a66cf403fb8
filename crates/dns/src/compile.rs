//! From the plan to a snapshot: the site's addresses, the name servers, the SOA, and the extra records.
//!
//! All mistakes are found at once. A zone with a mistake is not served in part: a name server that knows half
//! of a zone denies the other half, and resolvers remember that.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;

use domain::base::Name as Parsed;
use domain::base::rdata::ComposeRecordData;
use domain::zonefile::inplace::{Entry, Zonefile};
use plan::{Dns, Plan, Record, Role};

use crate::name::{self, Key};
use crate::snapshot::{CLASS_IN, Node, Set, Snapshot, kind};

/// How long a resolver may believe that a name is not there, at most: a new record should not wait an hour.
const NEGATIVE_TTL_LIMIT_S: u32 = 300;
/// When other servers of the zone ask again, retry, and give up (RIPE-203); only zone transfers would use them.
const REFRESH_S: u32 = 86_400;
const RETRY_S: u32 = 7_200;
const EXPIRE_S: u32 = 3_600_000;
/// A TTL is 31 bits (RFC 2181 section 8).
const TTL_LIMIT_S: u32 = 0x7fff_ffff;

/// Something in the plan that no zone can say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    #[error("the plan has no [dns]")]
    NoDns,
    #[error("\"{0}\" is not a domain name")]
    NotAName(String),
    #[error("{name} is not within the zone {zone}: write a name that ends with it")]
    Outside { name: String, zone: String },
    #[error("the {kind} record of {name} cannot be read: {why}")]
    Unreadable { name: String, kind: String, why: String },
    #[error("the {kind} record of {name} is made by dolmen: remove it from the file")]
    Ours { name: String, kind: String },
    #[error("{0} has a CNAME and other records: a CNAME stands alone (RFC 1034 section 3.6.2)")]
    CnameBeside(String),
    #[error("{0} has NS records: a wildcard cannot be delegated (RFC 4592 section 4.2)")]
    WildcardCut(String),
}

/// All mistakes of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "the zone cannot be served: {}", all.join("; "))
    }
}

impl std::error::Error for Mistakes {}

impl Snapshot {
    /// Compiles what the plan says about names.
    pub fn compile(plan: &Plan) -> Result<Self, Mistakes> {
        let dns = plan.dns.as_ref().ok_or_else(|| Mistakes(vec![Mistake::NoDns]))?;
        let not_a_name = |text: &String| Mistakes(vec![Mistake::NotAName(text.clone())]);
        let zone = name::parse(&dns.zone).ok_or_else(|| not_a_name(&dns.zone))?;
        let site = name::parse(&dns.site).ok_or_else(|| not_a_name(&dns.site))?;
        let mut draft = Draft { zone, sets: BTreeMap::new(), mistakes: Vec::new() };
        draft.add_site(plan, dns, &site);
        draft.add_name_servers(plan, dns);
        for record in &dns.records {
            draft.add_record(record, &site);
        }
        draft.check();
        if draft.mistakes.is_empty() {
            Ok(draft.finish(dns, plan.generation))
        } else {
            Err(Mistakes(draft.mistakes))
        }
    }
}

/// The records of one name while a zone is put together: by type, the TTL and the data of each.
type Kinds = BTreeMap<u16, (u32, Vec<Vec<u8>>)>;

/// A zone while it is put together.
struct Draft {
    zone: Key,
    sets: BTreeMap<Key, Kinds>,
    mistakes: Vec<Mistake>,
}

impl Draft {
    fn add(&mut self, owner: &[u8], kind: u16, ttl: u32, data: Vec<u8>) {
        if !name::is_within(owner, &self.zone) {
            let (name, zone) = (name::show(owner), name::show(&self.zone));
            self.mistakes.push(Mistake::Outside { name, zone });
            return;
        }
        let kinds = self.sets.entry(owner.into()).or_default();
        let (least, all) = kinds.entry(kind).or_insert((ttl, Vec::new()));
        // Records of one set have one TTL and are all different (RFC 2181 section 5).
        *least = ttl.min(*least);
        if !all.contains(&data) {
            all.push(data);
        }
    }

    fn add_address(&mut self, owner: &[u8], ttl: u32, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.add(owner, kind::A, ttl, address.octets().to_vec()),
            IpAddr::V6(address) => self.add(owner, kind::AAAA, ttl, address.octets().to_vec()),
        }
    }

    /// The site's name answers with the addresses of the balancers' machines.
    fn add_site(&mut self, plan: &Plan, dns: &Dns, site: &[u8]) {
        for address in balancers(plan) {
            self.add_address(site, dns.ttl_s, address);
        }
    }

    /// `ns1`, `ns2`, … for the machines with a DNS server.
    fn add_name_servers(&mut self, plan: &Plan, dns: &Dns) {
        for (index, server) in plan.role(Role::Dns).enumerate() {
            let Some(host) = self.name_server(index + 1) else { continue };
            self.add(&self.zone.clone(), kind::NS, dns.ttl_s, host.to_vec());
            for address in machine_addresses(plan, &server.machine) {
                self.add_address(&host, dns.ttl_s, address);
            }
        }
    }

    fn name_server(&mut self, number: usize) -> Option<Key> {
        let text = format!("ns{number}.{}", name::show(&self.zone));
        let parsed = name::parse(&text);
        if parsed.is_none() {
            self.mistakes.push(Mistake::NotAName(text));
        }
        parsed
    }

    fn add_record(&mut self, record: &Record, site: &[u8]) {
        match self.read(record) {
            Ok((owner, kind, data)) => {
                let is_site = *owner == *site && matches!(kind, kind::A | kind::AAAA | kind::CNAME);
                let ours = kind == kind::SOA || is_site && self.sets.contains_key(&owner);
                if ours {
                    let (name, kind) = (record.name.clone(), record.kind.clone());
                    self.mistakes.push(Mistake::Ours { name, kind });
                } else {
                    self.add(&owner, kind, record.ttl_s, data);
                }
            }
            Err(mistake) => self.mistakes.push(mistake),
        }
    }

    /// Reads one record as a line of a zone file; names in its value without a last dot are relative to the zone.
    fn read(&self, record: &Record) -> Result<(Key, u16, Vec<u8>), Mistake> {
        let why =
            |why: String| Mistake::Unreadable { name: record.name.clone(), kind: record.kind.clone(), why };
        let owner = name::parse(&record.name).ok_or_else(|| Mistake::NotAName(record.name.clone()))?;
        if record.kind.contains(|letter: char| !letter.is_ascii_alphanumeric()) {
            return Err(why("its type is not one word".into()));
        }
        let line = format!("@ {} IN {} {}\n", record.ttl_s.min(TTL_LIMIT_S), record.kind, record.value);
        let mut file = Zonefile::from(line.as_str());
        let origin =
            Parsed::bytes_from_str(&name::show(&self.zone)).map_err(|error| why(error.to_string()))?;
        file.set_origin(origin);
        let first = file.next_entry().map_err(|error| why(error.to_string()))?;
        let Some(Entry::Record(parsed)) = first else { return Err(why("there is no value".into())) };
        if !matches!(file.next_entry(), Ok(None)) {
            return Err(why("there is more than one value: write one record for each".into()));
        }
        let mut data = Vec::new();
        let Ok(()) = parsed.data().compose_rdata(&mut data);
        if data.len() > usize::from(u16::MAX) {
            return Err(why("the value is longer than a record can be".into()));
        }
        Ok((owner, parsed.rtype().to_int(), data))
    }

    fn check(&mut self) {
        for (owner, kinds) in &self.sets {
            let aliases = kinds.get(&kind::CNAME).map_or(0, |(_, all)| all.len());
            if aliases > 1 || aliases == 1 && (kinds.len() > 1 || *owner == self.zone) {
                self.mistakes.push(Mistake::CnameBeside(name::show(owner)));
            }
            if owner.starts_with(b"\x01*") && kinds.contains_key(&kind::NS) {
                self.mistakes.push(Mistake::WildcardCut(name::show(owner)));
            }
        }
    }

    fn finish(mut self, dns: &Dns, generation: u64) -> Snapshot {
        let negative_ttl = dns.ttl_s.min(NEGATIVE_TTL_LIMIT_S);
        let soa = self.soa(dns, generation, negative_ttl);
        let zone = self.zone.clone();
        self.add(&zone, kind::SOA, dns.ttl_s, soa.clone());
        let mut nodes: HashMap<Key, Node> = HashMap::new();
        for owner in self.sets.keys() {
            self.add_with_parents(&mut nodes, owner);
        }
        for (owner, kinds) in &self.sets {
            let sets = kinds.iter().map(|(kind, (ttl, all))| self.set(*kind, *ttl, all)).collect();
            nodes.entry(owner.clone()).or_default().sets = sets;
        }
        Snapshot {
            negative: self.set(kind::SOA, negative_ttl, &[soa]),
            everything: self.set(kind::HINFO, dns.ttl_s, &[b"\x07RFC8482\x00".to_vec()]),
            nodes,
            zone,
        }
    }

    /// Makes the node and those of all names between it and the zone's own.
    fn add_with_parents(&self, nodes: &mut HashMap<Key, Node>, owner: &Key) {
        let mut next: Option<&[u8]> = Some(owner);
        while let Some(name) = next.filter(|name| name.len() >= self.zone.len()) {
            nodes.entry(name.into()).or_default().cut = self.cut_above(name);
            next = name::parent(name);
            if let Some(parent) = next.filter(|_| name.starts_with(b"\x01*")) {
                nodes.entry(parent.into()).or_default().has_wildcard = true;
            }
        }
    }

    /// The delegation nearest to the zone's own name, among this name and those above it.
    fn cut_above(&self, name: &[u8]) -> Option<Key> {
        let mut cut = None;
        let mut next = Some(name);
        while let Some(name) = next.filter(|name| name.len() > self.zone.len()) {
            if self.sets.get(name).is_some_and(|kinds| kinds.contains_key(&kind::NS)) {
                cut = Some(name.into());
            }
            next = name::parent(name);
        }
        cut
    }

    fn set(&self, kind: u16, ttl: u32, all: &[Vec<u8>]) -> Set {
        let inside = |data: &Vec<u8>| target(kind, data).filter(|name| name::is_within(name, &self.zone));
        let alias = all.first().filter(|_| kind == kind::CNAME).and_then(inside);
        let targets = if kind == kind::CNAME { Vec::new() } else { all.iter().filter_map(inside).collect() };
        Set { kind, records: all.iter().map(|data| record(kind, ttl, data)).collect(), targets, alias }
    }

    fn soa(&self, dns: &Dns, generation: u64, negative_ttl: u32) -> Vec<u8> {
        let mut data = [b"\x03ns1", &*self.zone].concat();
        data.extend(mailbox(&dns.mailbox).unwrap_or_else(|| [b"\x0ahostmaster", &*self.zone].concat()));
        // The serial is 32 bits wide and may wrap (RFC 1982).
        for number in [generation as u32, REFRESH_S, RETRY_S, EXPIRE_S, negative_ttl] {
            data.extend(number.to_be_bytes());
        }
        data
    }
}

/// `host.master@foobar.com` as a name whose first label is the local part (RFC 1035 section 8).
fn mailbox(text: &str) -> Option<Vec<u8>> {
    let Some((local, host)) = text.split_once('@') else { return name::parse(text).map(Vec::from) };
    let length = u8::try_from(local.len()).ok().filter(|length| (1..=63).contains(length))?;
    let name = [&[length], local.as_bytes(), &*name::parse(host)?].concat();
    name::length(&name).map(|_| name)
}

/// The name inside the data of a record that leads to another name.
fn target(kind: u16, data: &[u8]) -> Option<Key> {
    let skip = match kind {
        kind::NS | kind::CNAME => 0,
        kind::MX => 2,
        kind::SRV => 6,
        _ => return None,
    };
    Some(data.get(skip..)?.to_ascii_lowercase().into_boxed_slice())
}

fn record(kind: u16, ttl: u32, data: &[u8]) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(10 + data.len());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    bytes.extend(ttl.min(TTL_LIMIT_S).to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes.into_boxed_slice()
}

/// Without those that were ordered out of rotation, unless that is all of them: no address would be no site.
fn balancers(plan: &Plan) -> Vec<IpAddr> {
    let at = |with_drained: bool| {
        let named = plan
            .role(Role::Balancer)
            .filter(move |server| with_drained || !plan.drained.contains(&server.name));
        named.flat_map(|server| machine_addresses(plan, &server.machine)).collect::<Vec<_>>()
    };
    let serving = at(false);
    if serving.is_empty() { at(true) } else { serving }
}

/// What the world sees of a machine.
fn machine_addresses(plan: &Plan, name: &str) -> Vec<IpAddr> {
    match plan.machine(name) {
        Some(machine) if machine.public.is_empty() => vec![machine.address],
        Some(machine) => machine.public.clone(),
        None => Vec::new(),
    }
}
