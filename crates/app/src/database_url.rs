//! The addresses of the database in a worker's environment: always the gates of its own machine, which know
//! who is the primary at any moment, so that the application need not.

use std::net::SocketAddr;

/// The URL of our own database through a gate.
pub(crate) fn ours(name: &str, password: &str, gate: SocketAddr) -> String {
    // The role that owns the database has its name.
    let (name, password) = (encode(name), encode(password));
    format!("postgres://{name}:{password}@{gate}/{name}")
}

/// The URL of somebody else's database, through a gate where that changes nothing for the client.
///
/// A client that demands TLS would meet the gate's address where it expects the server's name: `verify-full`
/// fails on it, and services that tell their customers apart by the name in the TLS greeting refuse it. Then,
/// and when the URL has more than one host or is of another form, it goes to the worker as it is and the gate
/// is not used.
pub(crate) fn theirs(url: &str, gate: SocketAddr) -> String {
    through(url, gate).unwrap_or_else(|| url.to_owned())
}

fn through(url: &str, gate: SocketAddr) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (format!("{user}@"), host),
        None => (String::new(), authority),
    };
    let parameters = path.split_once('?').map_or("", |(_, parameters)| parameters);
    let own_host = parameters.split('&').any(|one| one.starts_with("host") || one.starts_with("port="));
    let plain = matches!(scheme, "postgres" | "postgresql") && !host.is_empty() && !host.contains(',');
    (plain && !own_host && !demands_tls(parameters)).then(|| format!("{scheme}://{user}{gate}{path}"))
}

fn demands_tls(parameters: &str) -> bool {
    let value = |name: &str| parameters.split('&').find_map(|one| one.strip_prefix(name)?.strip_prefix('='));
    !matches!(value("sslmode"), None | Some("disable" | "allow" | "prefer"))
        || value("sslnegotiation") == Some("direct")
        || value("ssl").is_some_and(|ssl| ssl != "false")
}

/// Everything but the unreserved characters of RFC 3986 section 2.3.
fn encode(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_may_have_any_character() {
        let gate = "127.0.42.2:6432".parse().unwrap();
        assert_eq!(
            ours("my-app", "a/b@c:d%e ü", gate),
            "postgres://my-app:a%2Fb%40c%3Ad%25e%20%C3%BC@127.0.42.2:6432/my-app"
        );
        let gate = "[2001:db8::1]:6432".parse().unwrap();
        assert_eq!(ours("app", "x", gate), "postgres://app:x@[2001:db8::1]:6432/app");
    }

    #[test]
    fn another_database_goes_through_the_gate_unless_tls_is_demanded() {
        let gate = "127.0.42.2:6432".parse().unwrap();
        for (url, expect) in [
            ("postgres://u:p@db.example:5432/name", "postgres://u:p@127.0.42.2:6432/name"),
            ("postgresql://u:p%40@db.example", "postgresql://u:p%40@127.0.42.2:6432"),
            ("postgres://db.example/n?sslmode=prefer", "postgres://127.0.42.2:6432/n?sslmode=prefer"),
            ("postgres://u@db.example/n?sslmode=require", "as is"),
            ("postgres://u@db.example/n?application_name=x&sslmode=verify-full", "as is"),
            ("postgres://u@a,b/n", "as is"),
            ("postgres:///n?host=/run/postgresql", "as is"),
            ("host=db.example user=u", "as is"),
        ] {
            assert_eq!(theirs(url, gate), if expect == "as is" { url } else { expect });
        }
    }
}
