//! `[dns]`: the zone that the site answers for, and the records beside the site's own.
//!
//! Names of records are relative to the zone (`mail`), or end with it; `@` is the zone itself. Names in
//! values with a dot in them are whole names, `mail` and `@` are relative as well.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use crate::address::is_record_name;
use crate::meant::{Dns, Record};
use crate::mistake::{Mistake, Notes};
use crate::typed::{Item, On, Table, Written, did_you_mean, or};

/// How long a resolver may hold an answer: short, so that a lost balancer is soon forgotten.
const TTL_S: u32 = 60;
/// RFC 2181 section 8.
const TTL_S_MAX: u32 = 0x7fff_ffff;
const RECORDS_MAX: usize = 2_000;
const TYPES: [&str; 8] = ["A", "AAAA", "CNAME", "MX", "TXT", "SRV", "CAA", "NS"];

#[derive(Clone, Debug, Default)]
pub(crate) struct DnsSection {
    /// Its name in the file.
    pub(crate) span: Range<usize>,
    pub(crate) on: On,
    pub(crate) port: Option<Written<u16>>,
    zone: Option<Written<String>>,
    /// Whether `zone` is there at all, be it wrong or mistyped.
    pub(crate) means_zone: bool,
    ttl_s: Option<Written<u32>>,
    mailbox: Option<Written<String>>,
    records: Vec<RecordEntry>,
}

#[derive(Clone, Debug)]
struct RecordEntry {
    name: Written<String>,
    kind: Written<String>,
    value: Written<String>,
    ttl_s: Option<Written<u32>>,
}

impl DnsSection {
    pub(crate) fn read(mut table: Table<'_>) -> DnsSection {
        let mut section = DnsSection {
            span: table.span.clone(),
            on: table.on(),
            port: table.port("port"),
            means_zone: false,
            zone: table.get("zone").and_then(|item| item.host_name()),
            ttl_s: table.get("ttl").and_then(|item| item.ttl_s(0..=TTL_S_MAX)),
            mailbox: table.get("mailbox").and_then(|item| item.checked(mailbox)),
            records: table.get("records").map(|item| records(&item)).unwrap_or_default(),
        };
        section.means_zone = table.means("zone");
        table.close();
        section
    }

    /// None, and noted, when there is no name to answer for.
    pub(crate) fn mean(&self, domain: Option<&Written<String>>, notes: &Notes) -> Option<Dns> {
        let site = domain.or(self.zone.as_ref())?.value.clone();
        let zone = or(&self.zone, site.clone());
        if let Some(written) = self.zone.as_ref().filter(|_| !is_within(&site, &zone)) {
            let message = format!("the domain {site} is not in the zone {zone}");
            let hint = "the zone is the domain or a parent of it, for www.foobar.com for example foobar.com";
            notes.note(Mistake::at(written.span.clone(), message).hint(hint));
        }
        let ttl_s = or(&self.ttl_s, TTL_S);
        let records: Vec<Record> =
            self.records.iter().filter_map(|entry| entry.mean(&zone, ttl_s, notes)).collect();
        self.note_conflicts(&zone, &site, notes);
        let mailbox = or(&self.mailbox, format!("hostmaster@{zone}"));
        Some(Dns { zone, site, ttl_s, mailbox, records })
    }

    /// A CNAME stands alone at its name, and never at the apex (RFC 1034 section 3.6.2).
    fn note_conflicts(&self, zone: &str, site: &str, notes: &Notes) {
        let named: Vec<(String, &RecordEntry)> = self
            .records
            .iter()
            .filter_map(|entry| Some((full_name(&entry.name.value, zone)?, entry)))
            .collect();
        for (index, (name, entry)) in named.iter().enumerate() {
            let at = |message: String| Mistake::at(entry.kind.span.clone(), message);
            if entry.kind.value == "CNAME" && (name == zone || name == site) {
                let hint = "write A and AAAA records; the site's own name is answered with its balancers";
                notes.note(at(format!("{name} cannot be a CNAME: it has other records")).hint(hint));
            }
            let clashes = |(other_name, other): &&(String, &RecordEntry)| {
                other_name == name && (other.kind.value == "CNAME" || entry.kind.value == "CNAME")
            };
            if named[..index].iter().any(|other| clashes(&other)) {
                let message = format!("{name} has a CNAME and another record");
                notes.note(at(message).hint("a CNAME must be the only record of its name"));
            }
        }
    }
}

fn records(item: &Item<'_>) -> Vec<RecordEntry> {
    let items = item.list("[[dns.records]]").unwrap_or_default();
    if items.len() > RECORDS_MAX {
        item.note(format!("`{}` has more than {RECORDS_MAX} records", item.name), None);
    }
    items.iter().take(RECORDS_MAX).filter_map(record).collect()
}

fn record(item: &Item<'_>) -> Option<RecordEntry> {
    let mut table = item.table("the record")?;
    table.span = item.span.clone();
    let name = table.text("name");
    let kind = table.get("type").and_then(|item| record_type(&item));
    let value = table.text("value");
    let ttl_s = table.get("ttl").and_then(|item| item.ttl_s(0..=TTL_S_MAX));
    table.require("name", "for example `name = \"mail\"`, or \"@\" for the zone itself");
    table.require("type", "for example `type = \"A\"`");
    table.require("value", "for example `value = \"203.0.113.25\"`");
    table.close();
    Some(RecordEntry { name: name?, kind: kind?, value: value?, ttl_s })
}

fn record_type(item: &Item<'_>) -> Option<Written<String>> {
    let text = item.text()?;
    let kind = text.value.to_ascii_uppercase();
    if TYPES.contains(&kind.as_str()) {
        return Some(text.map(|_| kind));
    }
    let all = || format!("it can be {}", TYPES.join(", "));
    let hint = did_you_mean(&text.value, TYPES).unwrap_or_else(all);
    item.note(format!("unknown type of record {:?}", text.value), Some(&hint));
    None
}

impl RecordEntry {
    fn mean(&self, zone: &str, ttl_s: u32, notes: &Notes) -> Option<Record> {
        let Some(name) = full_name(&self.name.value, zone) else {
            let message = format!("{:?} cannot be the name of a record", self.name.value);
            let hint =
                format!("a name in {zone}: \"mail\", \"*.shop\", \"_dmarc\", or \"@\" for the zone itself");
            notes.note(Mistake::at(self.name.span.clone(), message).hint(hint));
            return None;
        };
        let Some(value) = value(&self.kind.value, &self.value.value, zone) else {
            let message =
                format!("{:?} is not the value of a record of type {}", self.value.value, self.kind.value);
            notes.note(Mistake::at(self.value.span.clone(), message).hint(example(&self.kind.value)));
            return None;
        };
        Some(Record { name, kind: self.kind.value.clone(), value, ttl_s: or(&self.ttl_s, ttl_s) })
    }
}

fn example(kind: &str) -> &'static str {
    match kind {
        "A" => "an IPv4 address: \"203.0.113.25\"",
        "AAAA" => "an IPv6 address: \"2001:db8::25\"",
        "MX" => "a preference and a name: \"10 mail.foobar.com\"",
        "SRV" => "priority, weight, port and a name: \"0 5 5060 sip.foobar.com\"",
        "CAA" => "flags, a tag and a text: 0 issue \"letsencrypt.org\"",
        "TXT" => "a text; one with quotes in it must have them in pairs",
        _ => "a name: \"other.foobar.com\"",
    }
}

/// The whole name, without the last dot; None when it is no name.
fn full_name(name: &str, zone: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let full = match name.strip_suffix('.') {
        _ if name == "@" => zone.to_owned(),
        Some(absolute) if !is_within(absolute, zone) => return None,
        Some(absolute) => absolute.to_owned(),
        None if is_within(&name, zone) => name,
        None => format!("{name}.{zone}"),
    };
    is_record_name(&full).then_some(full)
}

fn is_within(name: &str, zone: &str) -> bool {
    name == zone || name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'))
}

/// The value in presentation format with whole names, or None when it does not fit the type.
fn value(kind: &str, text: &str, zone: &str) -> Option<String> {
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    match (kind, fields.as_slice()) {
        ("A", [address]) => Some(address.parse::<Ipv4Addr>().ok()?.to_string()),
        ("AAAA", [address]) => Some(address.parse::<Ipv6Addr>().ok()?.to_string()),
        ("CNAME" | "NS", [name]) => host(name, zone),
        ("MX", [preference, name]) => Some(format!("{} {}", number(preference)?, mail_host(name, zone)?)),
        ("SRV", [priority, weight, port, name]) => {
            let (priority, weight, port) = (number(priority)?, number(weight)?, number(port)?);
            Some(format!("{priority} {weight} {port} {}", mail_host(name, zone)?))
        }
        ("CAA", [flags, tag, _, ..]) => {
            let flags: u8 = flags.parse().ok()?;
            let is_tag = !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let rest = text.trim_start().splitn(3, |letter: char| letter.is_ascii_whitespace()).nth(2)?;
            is_tag.then(|| Some(format!("{flags} {tag} {}", quoted(rest.trim())?)))?
        }
        ("TXT", [_, ..]) => quoted(text),
        _ => None,
    }
}

fn number(text: &str) -> Option<u16> {
    text.parse().ok()
}

/// `.` says that there is no such service (RFC 7505, RFC 2782).
fn mail_host(name: &str, zone: &str) -> Option<String> {
    if name == "." { Some(name.to_owned()) } else { host(name, zone) }
}

fn host(name: &str, zone: &str) -> Option<String> {
    let whole = match name.strip_suffix('.') {
        _ if name == "@" => zone.to_owned(),
        Some(absolute) => absolute.to_ascii_lowercase(),
        None if name.contains('.') => name.to_ascii_lowercase(),
        None => format!("{}.{zone}", name.to_ascii_lowercase()),
    };
    (is_record_name(&whole) && !whole.starts_with('*')).then(|| format!("{whole}."))
}

/// A character string takes 255 bytes (RFC 1035 section 3.3); a longer text is cut into several.
const STRING_BYTES_MAX: usize = 255;
const TEXT_BYTES_MAX: usize = 60_000;

/// Text in quotes, as it stands if the user wrote the quotes.
fn quoted(text: &str) -> Option<String> {
    let strange = text.chars().any(char::is_control) || text.len() > TEXT_BYTES_MAX;
    if strange {
        return None;
    }
    if text.starts_with('"') {
        return is_quoted(text).then(|| text.to_owned());
    }
    let strings: Vec<String> = text.as_bytes().chunks(STRING_BYTES_MAX).map(escaped).collect();
    Some(strings.join(" "))
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\{byte:03}")),
        }
    }
    text.push('"');
    text
}

/// Whether a text is one or more strings in quotes, with blanks between them.
fn is_quoted(text: &str) -> bool {
    let (mut inside, mut after_backslash) = (false, false);
    for letter in text.chars() {
        match letter {
            _ if after_backslash => after_backslash = false,
            '\\' => after_backslash = true,
            '"' => inside = !inside,
            _ if !inside && letter != ' ' => return false,
            _ => {}
        }
    }
    !inside && !after_backslash
}

fn mailbox(text: &str) -> Result<String, (String, String)> {
    let wrong =
        || (format!("{text:?} is not a mail address"), "for example \"hostmaster@foobar.com\"".to_owned());
    let (local, host) = text.split_once('@').ok_or_else(wrong)?;
    let host = crate::address::host_name(host).map_err(|_| wrong())?;
    let is_local = (1..=63).contains(&local.len())
        && local.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-_".contains(&byte));
    if is_local { Ok(format!("{local}@{host}")) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: &str, text: &str, expect: Option<&str>) {
        assert_eq!(value(kind, text, "foobar.com").as_deref(), expect, "{kind} {text}");
    }

    #[test]
    fn values_are_made_whole() {
        check("A", "203.0.113.25", Some("203.0.113.25"));
        check("A", "2001:db8::25", None);
        check("CNAME", "shop", Some("shop.foobar.com."));
        check("CNAME", "shop.example.org", Some("shop.example.org."));
        check("MX", "10 mail.foobar.com.", Some("10 mail.foobar.com."));
        check("MX", "mail.foobar.com", None);
        check("MX", "0 .", Some("0 ."));
        check("SRV", "0 5 5060 @", Some("0 5 5060 foobar.com."));
        check("CAA", "0 issue letsencrypt.org", Some("0 issue \"letsencrypt.org\""));
        check("CAA", "0  issue", None);
        check("TXT", "v=spf1 -all; \"x\"", Some("\"v=spf1 -all; \\\"x\\\"\""));
        check("TXT", "\"a\" \"b\"", Some("\"a\" \"b\""));
        check("TXT", "\"a", None);
    }

    #[test]
    fn long_texts_are_cut_into_strings() {
        let text = value("TXT", &"x".repeat(300), "foobar.com").expect("it fits");
        assert_eq!(text.len(), 300 + 5);
    }

    #[test]
    fn names_are_relative_to_the_zone() {
        let full = |name| full_name(name, "foobar.com");
        assert_eq!(full("@").as_deref(), Some("foobar.com"));
        assert_eq!(full("Mail").as_deref(), Some("mail.foobar.com"));
        assert_eq!(full("a.foobar.com").as_deref(), Some("a.foobar.com"));
        assert_eq!(full("afoobar.com").as_deref(), Some("afoobar.com.foobar.com"));
        assert_eq!(full("a.example.org."), None);
    }
}
