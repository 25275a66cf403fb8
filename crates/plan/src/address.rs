//! Names and addresses as the site file writes them. Each check says what is wrong and what would be right.

use std::net::{IpAddr, SocketAddr};

/// What is wrong, and the hint.
pub(crate) type Wrong = (String, String);

const NAME_LETTERS_MAX: usize = 253;
const LABEL_LETTERS_MAX: usize = 63;
const PATH_LETTERS_MAX: usize = 1024;

/// The address of one machine.
pub(crate) fn ip(text: &str) -> Result<IpAddr, Wrong> {
    let hint = "for example \"10.0.0.1\" or \"2001:db8::1\"";
    let address: IpAddr = text.parse().map_err(|_| match text.parse::<SocketAddr>() {
        Ok(address) => (
            format!("{text:?} has a port, but only an address is wanted"),
            format!("write \"{}\"", address.ip()),
        ),
        Err(_) => (format!("{text:?} is not an IP address"), hint.to_owned()),
    })?;
    match address.is_unspecified() || address.is_multicast() || is_broadcast(address) {
        true => Err((format!("{text:?} is not the address of one machine"), hint.to_owned())),
        false => Ok(address),
    }
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

/// The address and port of one server.
pub(crate) fn socket(text: &str) -> Result<SocketAddr, Wrong> {
    let address: SocketAddr = text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => (format!("{text:?} has no port"), format!("for example \"{text}:80\"")),
        Ok(IpAddr::V6(_)) => (format!("{text:?} has no port"), format!("for example \"[{text}]:80\"")),
        Err(_) => {
            let hint = "an IP address and a port: \"10.0.0.1:80\" or \"[2001:db8::1]:80\"";
            (format!("{text:?} is not the address of a server"), hint.to_owned())
        }
    })?;
    ip(&address.ip().to_string())?;
    match address.port() {
        0 => Err((
            format!("{text:?} has port 0, where nothing can answer"),
            "ports are from 1 to 65535".to_owned(),
        )),
        _ => Ok(address),
    }
}

/// Where a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Address(SocketAddr),
    Name { host: String, port: u16 },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Address(address) => address.fmt(f),
            Place::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// The address or the name of one server, and its port.
pub(crate) fn server(text: &str) -> Result<Place, Wrong> {
    let begins_like_a_name = text.starts_with(|first: char| first.is_ascii_alphabetic());
    if !begins_like_a_name || text.contains("::") {
        return socket(text).map(Place::Address);
    }
    let Some((host, port)) = text.split_once(':') else {
        return Err((format!("{text:?} has no port"), format!("for example \"{text}:80\"")));
    };
    if port.starts_with("//") {
        return host_name(text).and_then(|_| socket(text)).map(Place::Address);
    }
    let host = host_name(host)?;
    match port.parse() {
        Ok(port) if port > 0 => Ok(Place::Name { host, port }),
        _ => Err((format!("{port:?} is no port"), format!("from 1 to 65535, for example \"{host}:8080\""))),
    }
}

/// A host name (RFC 1123 section 2.1), in lowercase and without the last dot.
pub(crate) fn host_name(text: &str) -> Result<String, Wrong> {
    let wrong = |why: &str, hint: &str| Err((format!("{text:?} is not a host name: {why}"), hint.to_owned()));
    if let Some((_, rest)) = text.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().and_then(|host| host.split(':').next()).unwrap_or_default();
        return wrong("it is a URL", &format!("write \"{host}\""));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name.parse::<IpAddr>().is_ok() {
        return wrong("it is an address", "for example \"www.foobar.com\"");
    }
    match wrong_name(&name) {
        None => Ok(name),
        Some(why) if !name.is_ascii() => wrong(&why, "write names of other scripts as DNS does, `xn--…`"),
        Some(why) => wrong(&why, "letters, digits and hyphens between dots: \"www.foobar.com\""),
    }
}

/// Why a lowercase name without the last dot is no host name.
fn wrong_name(name: &str) -> Option<String> {
    if name.len() > NAME_LETTERS_MAX {
        return Some(format!("it is longer than {NAME_LETTERS_MAX} letters"));
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some("its last part is a number".to_owned());
    }
    name.split('.').find_map(wrong_label)
}

/// Why a lowercase text is no label of a host name.
pub(crate) fn wrong_label(label: &str) -> Option<String> {
    let strange = label.chars().find(|letter| !matches!(letter, 'a'..='z' | '0'..='9' | '-'));
    match strange {
        _ if label.is_empty() => Some("a part between the dots is empty".to_owned()),
        _ if label.len() > LABEL_LETTERS_MAX => {
            Some(format!("a part of it is longer than {LABEL_LETTERS_MAX} letters"))
        }
        Some(letter) => Some(format!("{letter:?} cannot be in it")),
        None if label.starts_with('-') || label.ends_with('-') => {
            Some("a part of it begins or ends with a hyphen".to_owned())
        }
        None => None,
    }
}

/// A name inside DNS, where services begin with an underscore and a first label may be `*`.
pub(crate) fn is_record_name(name: &str) -> bool {
    let labels = name.strip_prefix("*.").unwrap_or(name);
    let fits = |label: &str| {
        let plain = label.strip_prefix('_').unwrap_or(label).replace('_', "-");
        label.len() <= LABEL_LETTERS_MAX && wrong_label(&plain).is_none()
    };
    name.len() <= NAME_LETTERS_MAX && labels.split('.').all(fits)
}

pub(crate) fn url_path(text: &str) -> Result<String, Wrong> {
    let hint = "for example \"/healthz\"".to_owned();
    if !text.starts_with('/') {
        return Err((format!("the path {text:?} does not begin with `/`"), hint));
    }
    let strange = |byte: u8| !byte.is_ascii_graphic() || byte == b'#';
    if text.len() > PATH_LETTERS_MAX || text.bytes().any(strange) {
        return Err((format!("the path {text:?} cannot be asked for as it stands"), hint));
    }
    Ok(text.to_owned())
}

/// A name that a shell would accept for a variable.
pub(crate) fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        assert_eq!(host_name("WWW.Foobar.com.").as_deref(), Ok("www.foobar.com"));
        assert_eq!(host_name("localhost").as_deref(), Ok("localhost"));
        let long = "a".repeat(64);
        for wrong in ["", "a..b", "-a.b", "a_b.c", "http://a.b/", "10.0.0.1", "bücher.de", "a.1", &long] {
            assert!(host_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn record_names() {
        for right in ["*.foobar.com", "_dmarc.foobar.com", "_sip._tcp.foobar.com", "a_b.c"] {
            assert!(is_record_name(right), "{right}");
        }
        for wrong in ["", "a.*.b", "a b", "_", "a..b"] {
            assert!(!is_record_name(wrong), "{wrong}");
        }
    }

    #[test]
    fn servers_have_addresses_or_names() {
        let name = |host: &str, port| Ok(Place::Name { host: host.into(), port });
        assert_eq!(server("App.Internal:8080"), name("app.internal", 8080));
        assert_eq!(server("localhost:80"), name("localhost", 80));
        for right in ["10.0.0.1:80", "[fe80::1]:80"] {
            assert!(matches!(server(right), Ok(Place::Address(_))), "{right}");
        }
        for wrong in
            ["localhost", "a_b:80", "a:0", "a:x", "a:99999", "http://a:80", "fe80::1", "a.1:80", "10.0.0.1"]
        {
            assert!(server(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sockets() {
        assert!(socket("10.0.0.1:80").is_ok() && socket("[::1]:80").is_ok());
        for wrong in ["10.0.0.1", "::1", "a:80", "10.0.0.1:0", "0.0.0.0:80", "10.0.0.1:99999"] {
            assert!(socket(wrong).is_err(), "{wrong}");
        }
    }
}
