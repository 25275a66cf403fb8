//! Who may connect to a database server: pg_hba.conf and pg_ident.conf, from the plan.
//!
//! The superuser comes in by the Unix socket alone, as the account that the server runs under: the kernel
//! says who is at the other end (peer), so that a wrong mode on a folder is not yet a way in. `trust` lost for
//! that reason, a superuser's password because somebody would have to keep it. Everyone else shows a password,
//! by SCRAM, from the address of one of the site's machines.

use std::net::{IpAddr, Ipv4Addr};

use plan::{Place, Plan};

use crate::settings::REPLICATOR;

/// The superuser's name, on every system the same.
pub(crate) const SUPERUSER: &str = "postgres";

/// Those that this plan has no more. Their applications go on until they leave, for whoever still has their address.
pub(crate) fn going(old: &Plan, new: &Plan) -> Vec<IpAddr> {
    let gone = old.machines.iter().filter(|machine| new.machine(&machine.name).is_none());
    gone.map(|machine| machine.address).collect()
}

/// pg_hba.conf. `going`: machines that the plan has no more, and that may still come in.
pub(crate) fn rules(plan: &Plan, going: &[IpAddr], database: &str) -> String {
    let mut text = format!(
        "# Written by dolmen from the plan; changes here are lost.\n\
         local all {SUPERUSER} peer map=dolmen\n\
         local all all scram-sha-256\n"
    );
    let app = quote(database);
    for address in plan.machines.iter().map(|machine| machine.address).chain(going.iter().copied()) {
        let address = one(address);
        text += &format!("host {app} {app} {address} scram-sha-256\n");
    }
    // A replica asks in the database `postgres` which cluster this is, before it follows it.
    for address in replica_addresses(plan) {
        let address = one(address);
        text += &format!("host replication {REPLICATOR} {address} scram-sha-256\n");
        text += &format!("host postgres {REPLICATOR} {address} scram-sha-256\n");
    }
    text
}

/// Where replicas come from. On `up` that is also 127.0.0.1: PostgreSQL's own client library cannot choose
/// its source address, and the kernel takes this one for every loopback address.
fn replica_addresses(plan: &Plan) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = plan.role(plan::Role::Database).map(|server| server.address).collect();
    if matches!(plan.place, Place::Up { .. }) {
        addresses.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    addresses.sort();
    addresses.dedup();
    addresses
}

/// pg_ident.conf: the account that we run under, and root, may be the superuser.
pub(crate) fn accounts(account: &str) -> String {
    let mut text = String::from("# Written by dolmen; changes here are lost.\n");
    for name in [account, "root"] {
        text += &format!("dolmen {} {SUPERUSER}\n", quote(name));
    }
    text
}

/// A line of a .pgpass file: any host, any database, since the file serves one connection only.
pub(crate) fn password_line(password: &str) -> String {
    format!("*:*:*:{REPLICATOR}:{}\n", password.replace('\\', "\\\\").replace(':', "\\:"))
}

fn one(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// Quoted, a name is never a keyword such as `all` or `replication`.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_comes_in_without_a_password_but_the_account_itself() {
        let machine = |name: &str, address: &str| plan::Machine {
            name: name.into(),
            address: address.parse().unwrap(),
            public: Vec::new(),
            agent: format!("{address}:7400").parse().unwrap(),
        };
        let server = |number: u8, address: &str| plan::Server {
            name: format!("database-{number}"),
            role: plan::Role::Database,
            machine: "beta".into(),
            address: address.parse().unwrap(),
            listen: Vec::new(),
        };
        let mut plan = Plan {
            format: plan::FORMAT,
            generation: 1,
            site: "test".into(),
            domain: None,
            place: Place::Machines,
            machines: vec![machine("alpha", "10.0.0.1"), machine("beta", "10.0.0.2")],
            servers: vec![server(1, "10.0.0.2")],
            dns: None,
            balancer: None,
            web: None,
            app: None,
            database: None,
            drained: Vec::new(),
            control: None,
            encrypted: false,
            not_served: Vec::new(),
        };
        let expect = "# Written by dolmen from the plan; changes here are lost.\n\
                      local all postgres peer map=dolmen\n\
                      local all all scram-sha-256\n\
                      host \"all\" \"all\" 10.0.0.1/32 scram-sha-256\n\
                      host \"all\" \"all\" 10.0.0.2/32 scram-sha-256\n\
                      host replication replicator 10.0.0.2/32 scram-sha-256\n\
                      host postgres replicator 10.0.0.2/32 scram-sha-256\n";
        // A database that is called `all` is only that one database.
        assert_eq!(rules(&plan, &[], "all"), expect);
        let fewer = Plan { machines: plan.machines[1..].to_vec(), ..plan.clone() };
        let (still, gone) =
            (rules(&fewer, &going(&plan, &fewer), "all"), rules(&fewer, &going(&fewer, &fewer), "all"));
        assert!(still.contains("10.0.0.1/32") && !gone.contains("10.0.0.1/32"), "{still}\n{gone}");
        plan.place = Place::Up { block: 1 };
        assert!(
            rules(&plan, &[], "app").contains("host replication replicator 127.0.0.1/32 scram-sha-256\n")
        );
        assert_eq!(password_line("a:b\\c"), "*:*:*:replicator:a\\:b\\\\c\n");
        assert!(accounts("web").contains("dolmen \"web\" postgres\n"));
    }
}
