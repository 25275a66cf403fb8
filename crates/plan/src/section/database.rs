//! `[database]`: PostgreSQL on the site's machines, or the address of one that somebody else runs.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::DeValue;

use crate::meant::{Database, LEASE_DEFAULT_MS, Value};
use crate::mistake::{Mistake, Notes};
use crate::typed::{Item, On, Table, Written, duration_text, or};

const NAME: &str = "app";
/// PostgreSQL cuts longer names off (NAMEDATALEN).
const NAME_LETTERS_MAX: usize = 63;
const TAKEN_NAMES: [&str; 3] = ["postgres", "template0", "template1"];

/// Neither an election of control nor a slow disk fits into a shorter lease, so that a healthy primary would be ended.
const LEASE_MS_MIN: u64 = 2_000;
/// Writes stand still for as long when the primary's machine is lost.
const LEASE_MS_MAX: u64 = 60_000;

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Synchronous {
    /// Nobody.
    No,
    /// A replica, as long as there is one.
    Yes,
    /// A replica, always.
    Strict,
}

/// Settings that must agree with the plan, and so are written by the database server alone.
const OWN_SETTINGS: [&str; 15] = [
    "archive_mode",
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "hot_standby",
    "ident_file",
    "listen_addresses",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "restore_command",
    "synchronous_standby_names",
    "unix_socket_directories",
    "wal_level",
];

#[derive(Clone, Debug, Default)]
pub(crate) struct DatabaseSection {
    pub(crate) on: On,
    pub(crate) port: Option<Written<u16>>,
    pub(crate) read_write_port: Option<Written<u16>>,
    pub(crate) read_only_port: Option<Written<u16>>,
    url: Option<Written<Value>>,
    /// Whether `url` is there at all, be it wrong.
    pub(crate) has_url: bool,
    synchronous: Option<Written<Synchronous>>,
    lease_ms: Option<Written<u64>>,
    name: Option<Written<String>>,
    settings: BTreeMap<String, String>,
    /// Where `settings` is written.
    settings_span: Option<Range<usize>>,
}

impl DatabaseSection {
    pub(crate) fn read(mut table: Table<'_>) -> DatabaseSection {
        let url = table.get("url");
        let settings_item = table.get("settings");
        let (read_write_port, read_only_port) = gate_ports(&mut table);
        let section = DatabaseSection {
            on: table.on(),
            port: table.port("port"),
            read_write_port,
            read_only_port,
            has_url: url.is_some(),
            url: url.and_then(|item| address(&item)),
            synchronous: table.get("synchronous").and_then(|item| synchronous(&item)),
            lease_ms: table.get("lease").and_then(|item| lease(&item)),
            name: table.get("name").and_then(|item| item.checked(database_name)),
            settings_span: settings_item.as_ref().map(|item| item.key_span.clone()),
            settings: settings_item.map(|item| settings(&item)).unwrap_or_default(),
        };
        table.close();
        section
    }

    /// `servers`: how many database servers there will be.
    pub(crate) fn mean(&self, servers: usize, notes: &Notes) -> Database {
        if self.has_url {
            self.note_useless_keys(notes);
        } else {
            self.note_missing_replica(servers, notes);
        }
        let synchronous = or(&self.synchronous, Synchronous::Yes);
        Database {
            url: self.url.as_ref().map(|url| url.value.clone()),
            synchronous: servers >= 2 && synchronous != Synchronous::No,
            strict: servers >= 2 && synchronous == Synchronous::Strict,
            lease_ms: or(&self.lease_ms, LEASE_DEFAULT_MS),
            name: or(&self.name, NAME.to_owned()),
            settings: self.settings.clone(),
        }
    }

    fn note_missing_replica(&self, servers: usize, notes: &Notes) {
        let wanted = self.synchronous.as_ref().filter(|written| written.value != Synchronous::No);
        let Some(written) = wanted.filter(|_| servers < 2) else { return };
        let message = "a synchronous commit needs a replica, but there is only one database server";
        let hint = "name a second machine in `on`, or remove `synchronous`";
        notes.note(Mistake::at(written.span.clone(), message).hint(hint));
    }

    /// What is ours to decide means nothing for a database that somebody else runs.
    fn note_useless_keys(&self, notes: &Notes) {
        let keys = [
            ("on", self.on.as_ref().map(|on| &on.span)),
            ("port", self.port.as_ref().map(|port| &port.span)),
            ("synchronous", self.synchronous.as_ref().map(|synchronous| &synchronous.span)),
            ("lease", self.lease_ms.as_ref().map(|lease| &lease.span)),
            ("name", self.name.as_ref().map(|name| &name.span)),
            ("settings", self.settings_span.as_ref()),
        ];
        for (key, span) in keys {
            let Some(span) = span else { continue };
            let message =
                format!("`{key}` means nothing beside `url`: that database is run by somebody else");
            let hint =
                format!("remove `{key}`, or remove `url` to have a database on the site's own machines");
            notes.note(Mistake::at(span.clone(), message).hint(hint));
        }
    }
}

fn synchronous(item: &Item<'_>) -> Option<Written<Synchronous>> {
    let value = match item.value {
        DeValue::Boolean(true) => Synchronous::Yes,
        DeValue::Boolean(false) => Synchronous::No,
        DeValue::String(text) if text == "strict" => Synchronous::Strict,
        _ => {
            let hint =
                "true: commits wait for a replica while there is one; \"strict\": always; false: never";
            item.note("`synchronous` must be true, false or \"strict\"", Some(hint));
            return None;
        }
    };
    Some(Written { value, span: item.span.clone() })
}

/// Its bounds have reasons that whoever meets them should know.
fn lease(item: &Item<'_>) -> Option<Written<u64>> {
    let written = item.duration_ms(1, u64::MAX)?;
    let (low, high) = (duration_text(LEASE_MS_MIN), duration_text(LEASE_MS_MAX));
    let hint = match written.value {
        ..LEASE_MS_MIN => {
            "the voters of control need up to 1 s to replace their leader, and a disk its time: with less, a healthy \
             primary would be ended whenever either is slow"
        }
        LEASE_MS_MIN..=LEASE_MS_MAX => return Some(written),
        _ => "writes stand still for as long when the primary's machine is lost",
    };
    item.note(format!("`lease` must be from {low} to {high}"), Some(hint));
    None
}

fn gate_ports(table: &mut Table<'_>) -> (Option<Written<u16>>, Option<Written<u16>>) {
    let gates = table.get("gate-ports").and_then(|item| item.table("[database.gate-ports]"));
    let Some(mut gates) = gates else { return (None, None) };
    let ports = (gates.port("read-write"), gates.port("read-only"));
    gates.close();
    ports
}

fn address(item: &Item<'_>) -> Option<Written<Value>> {
    let written = item.value()?;
    let Value::Plain(url) = &written.value else { return Some(written) };
    match wrong_url(url) {
        None => Some(written),
        Some((message, hint)) => {
            item.notes.note(Mistake::at(item.span.clone(), message).hint(hint).secret());
            None
        }
    }
}

/// What is wrong with a database URL in the clear. The messages never repeat the URL.
fn wrong_url(url: &str) -> Option<(&'static str, &'static str)> {
    let example = "for example \"postgres://app@db.example.com/app\", or \"env:DATABASE_URL\"";
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let Some(rest) = rest else {
        return Some(("`url` is not the address of a PostgreSQL database", example));
    };
    let (authority, query) = match rest.split_once(['/', '?']) {
        Some((authority, query)) => (authority, query),
        None => (rest, ""),
    };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':')
        || query.contains("password=")
        || rest.contains(":") && rest.contains('@') && user.is_empty()
    {
        let hint = "put the whole URL in the environment or in a file, and write \"env:DATABASE_URL\" or \"file:PATH\"";
        return Some(("`url` has a password in the clear", hint));
    }
    (host.is_empty() && !query.contains("host=")).then_some(("`url` names no host", example))
}

fn database_name(text: &str) -> Result<String, (String, String)> {
    let mut bytes = text.bytes();
    let is_plain = bytes.next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !is_plain || text.len() > NAME_LETTERS_MAX {
        let message = format!("{text:?} cannot name the database and its owner");
        return Err((
            message,
            format!("up to {NAME_LETTERS_MAX} small letters, digits and underscores: \"shop\""),
        ));
    }
    if TAKEN_NAMES.contains(&text) || text.starts_with("pg_") || text.starts_with("dolmen") {
        let message = format!("the name {text:?} is taken by PostgreSQL or by dolmen itself");
        return Err((message, "choose another, for example \"shop\"".to_owned()));
    }
    Ok(text.to_owned())
}

fn settings(item: &Item<'_>) -> BTreeMap<String, String> {
    let Some(table) = item.table("[database.settings]") else { return BTreeMap::new() };
    let settings = table.all();
    settings.iter().filter_map(setting).collect()
}

fn setting(item: &Item<'_>) -> Option<(String, String)> {
    let at_name = |message: String| Mistake::at(item.key_span.clone(), message);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if item.name.is_empty() || !item.name.split('.').all(|part| !part.is_empty() && part.bytes().all(fits)) {
        let message = format!("{:?} cannot name a PostgreSQL setting", item.name);
        item.notes.note(at_name(message).hint("for example `max_connections = 200`"));
        return None;
    }
    if OWN_SETTINGS.contains(&item.name.to_ascii_lowercase().as_str()) {
        let message = format!("the setting `{}` is dolmen's own, and follows from the plan", item.name);
        item.notes.note(at_name(message).hint("remove it; `[database]` has `on`, `port` and `synchronous`"));
        return None;
    }
    Some((item.name.clone(), setting_value(item)?))
}

fn setting_value(item: &Item<'_>) -> Option<String> {
    match item.value {
        DeValue::String(text) if text.contains(['\n', '\0']) => {
            item.note(format!("the setting `{}` must be one line", item.name), None);
            None
        }
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(true) => Some("on".to_owned()),
        DeValue::Boolean(false) => Some("off".to_owned()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            let message = format!("the setting `{}` must be a text, a number, true or false", item.name);
            item.note(message, Some("for example `shared_buffers = \"256MB\"`"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_the_clear_is_found_wherever_it_stands() {
        for url in [
            "postgres://me:secret@db/app",
            "postgresql://db/app?user=me&password=secret",
            "postgres://me:se/cret@db/app",
        ] {
            assert!(wrong_url(url).is_some_and(|(message, _)| message.contains("password")), "{url}");
        }
        for url in ["postgres://me@db/app", "postgres://db:5433/app", "postgresql:///app?host=/run/pg"] {
            assert_eq!(wrong_url(url), None, "{url}");
        }
        assert!(wrong_url("mysql://db/app").is_some());
        assert!(wrong_url("postgres://").is_some());
    }
}
