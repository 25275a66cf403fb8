//! The settings file: ours, then the user's, and which the user may not set.
//!
//! It stands outside of the data directory and reads the `postgresql.conf` in there first, so that what initdb
//! found out (time zone, text search) and what somebody wrote there by hand stays in force, unless it is ours.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use crate::folder::Folder;

/// A setting that cannot be in `[database.settings]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[database.settings] {key}: {why}")]
pub struct RefusedSetting {
    pub key: String,
    pub why: &'static str,
}

/// A replica that never comes back must not fill the disk of the primary.
pub(crate) const SLOT_LIMIT: &str = "10GB";

const MINE: &str = "dolmen sets this itself; remove it";
const SAFETY: &str = "any other value may lose what was acknowledged; remove it";

/// What is ours, and why nobody else may set it.
const OWNED: [(&str, &str); 34] = [
    ("cluster_name", MINE),
    ("config_file", MINE),
    ("data_directory", MINE),
    ("external_pid_file", MINE),
    ("fsync", SAFETY),
    ("full_page_writes", SAFETY),
    ("hba_file", "who may connect follows from the site file; remove it"),
    ("hot_standby", MINE),
    ("ident_file", MINE),
    ("ignore_checksum_failure", SAFETY),
    ("include", "write the settings into the site file"),
    ("include_dir", "write the settings into the site file"),
    ("include_if_exists", "write the settings into the site file"),
    ("listen_addresses", "the address follows from [machines]; remove it"),
    ("log_destination", MINE),
    ("log_directory", MINE),
    ("log_filename", MINE),
    ("logging_collector", MINE),
    ("max_slot_wal_keep_size", MINE),
    ("password_encryption", MINE),
    ("port", "the port follows from the plan; remove it"),
    ("primary_conninfo", MINE),
    ("primary_slot_name", MINE),
    ("promote_trigger_file", MINE),
    ("recovery_min_apply_delay", "a failover would wait for it; remove it"),
    ("recovery_target", MINE),
    ("recovery_target_timeline", MINE),
    ("restart_after_crash", MINE),
    ("synchronous_standby_names", "write [database] synchronous instead"),
    ("unix_socket_directories", MINE),
    ("unix_socket_group", MINE),
    ("unix_socket_permissions", MINE),
    ("wal_retrieve_retry_interval", MINE),
    ("zero_damaged_pages", SAFETY),
];

/// Settings of which only some values are safe: the name and those values.
const LIMITED: [(&str, &[&str], &str); 2] = [
    ("wal_level", &["replica", "logical"], "a replica needs replica or logical"),
    ("synchronous_commit", &["on", "remote_apply", "true", "yes", "1"], SAFETY),
];

/// Every setting that is refused, so that `dolmen check` can name them all at once.
pub fn check_settings(settings: &BTreeMap<String, String>) -> Vec<RefusedSetting> {
    settings.iter().filter_map(|(key, value)| refuse(key, value)).collect()
}

fn refuse(key: &str, value: &str) -> Option<RefusedSetting> {
    let because = |why| Some(RefusedSetting { key: key.to_owned(), why });
    let name = key.to_ascii_lowercase();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    if name.is_empty() || !name.bytes().all(word) || name.starts_with(|first: char| first.is_ascii_digit()) {
        return because("a setting's name has only letters, digits, underscores and dots");
    }
    if value.contains(['\n', '\r', '\0']) {
        return because("a value is one line");
    }
    if let Some((_, why)) = OWNED.iter().find(|(owned, _)| *owned == name) {
        return because(why);
    }
    if name.starts_with("recovery_target") {
        return because(MINE);
    }
    let limited = LIMITED.iter().find(|(limited, ..)| *limited == name);
    limited
        .filter(|(_, values, _)| !values.contains(&value.to_ascii_lowercase().as_str()))
        .and_then(|(.., why)| because(why))
}

/// What one settings file depends on.
#[derive(Debug)]
pub(crate) struct Settings<'a> {
    pub(crate) name: &'a str,
    pub(crate) listen: SocketAddr,
    pub(crate) folder: &'a Folder,
    pub(crate) synchronous_names: &'a str,
    /// On a replica: the primary's address.
    pub(crate) primary: Option<SocketAddr>,
    pub(crate) user: &'a BTreeMap<String, String>,
}

/// The same on every server. Times and sizes are PostgreSQL's own words.
const SHARED: [(&str, &str); 22] = [
    ("unix_socket_directories", "../socket"), // relative to the data directory: a path has at most 107 bytes
    ("unix_socket_permissions", "0700"),
    ("password_encryption", "scram-sha-256"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    ("wal_level", "replica"),
    ("hot_standby", "on"),
    ("max_wal_senders", "16"),
    ("max_replication_slots", "16"),
    ("wal_keep_size", "1GB"), // a rewind needs the log from before the fork
    ("max_slot_wal_keep_size", SLOT_LIMIT),
    ("wal_retrieve_retry_interval", "100ms"), // at 5 s, the default, a promotion can take as long
    ("wal_sender_timeout", "5s"),
    ("wal_receiver_timeout", "5s"),
    ("wal_receiver_status_interval", "1s"),
    ("recovery_target_timeline", "latest"),
    ("restart_after_crash", "off"), // one place decides on restarts: the manager
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("lc_messages", "C"), // the manager quotes the log
];

/// To standard error, which is a file that the manager keeps short; a collector would outlive its postgres.
const LOG: [(&str, &str); 3] =
    [("log_destination", "stderr"), ("logging_collector", "off"), ("log_line_prefix", "%m [%p] %q%u@%d ")];

/// The whole file.
pub(crate) fn render(settings: &Settings) -> String {
    let folder = settings.folder;
    let mut text = String::from(
        "# Written by dolmen at every start; changes belong in [database.settings] of the site file.\n",
    );
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key} = {}\n", quote(value)));
    line("include_if_exists", &path(&folder.data().join("postgresql.conf")));
    line("cluster_name", settings.name);
    line("listen_addresses", &settings.listen.ip().to_string());
    line("port", &settings.listen.port().to_string());
    line("hba_file", &path(&folder.access()));
    line("ident_file", &path(&folder.accounts()));
    SHARED.iter().chain(&LOG).for_each(|(key, value)| line(key, value));
    line("synchronous_standby_names", settings.synchronous_names);
    if let Some(primary) = settings.primary {
        line("primary_conninfo", &primary_connection(settings.name, primary, &folder.passwords()));
        line("primary_slot_name", &slot(settings.name));
    }
    settings.user.iter().for_each(|(key, value)| line(key, value));
    text
}

/// How a replica reaches the primary; the password is in a file that only our account can read.
pub(crate) fn primary_connection(application_name: &str, primary: SocketAddr, passwords: &Path) -> String {
    let passwords = path(passwords).replace('\\', "\\\\").replace('\'', "\\'");
    format!(
        "host={} port={} user={REPLICATOR} application_name={application_name} passfile='{passwords}' \
         connect_timeout=3 keepalives_idle=5 keepalives_interval=2 keepalives_count=3 tcp_user_timeout=5000 \
         gssencmode=disable",
        primary.ip(),
        primary.port()
    )
}

/// The role that replicas connect as.
pub(crate) const REPLICATOR: &str = "replicator";

/// The name of a replica's slot: PostgreSQL allows no hyphen in it.
pub(crate) fn slot(server: &str) -> String {
    server.replace('-', "_")
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// As PostgreSQL reads it (manual, section 20.1.2): backslashes are escapes in a quoted value.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> Vec<RefusedSetting> {
        check_settings(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn what_is_ours_is_refused_and_the_rest_is_not() {
        for key in
            ["port", "PORT", "listen_addresses", "primary_conninfo", "synchronous_standby_names", "fsync"]
        {
            assert_eq!(one(key, "x").len(), 1, "{key}");
        }
        assert_eq!(one("recovery_target_time", "x").len(), 1);
        assert_eq!(one("work_mem = 1 #", "x").len(), 1);
        assert_eq!(one("work_mem", "1MB\nfsync = off").len(), 1);
        assert_eq!(one("synchronous_commit", "off").len(), 1);
        assert_eq!(one("synchronous_commit", "remote_apply").len(), 0);
        assert_eq!(one("wal_level", "minimal").len(), 1);
        assert_eq!(one("work_mem", "8MB").len(), 0);
        assert_eq!(one("pg_stat_statements.max", "8").len(), 0);
        let refused = one("port", "1").remove(0).to_string();
        assert_eq!(refused, "[database.settings] port: the port follows from the plan; remove it");
    }

    #[test]
    fn the_users_settings_come_last_and_are_quoted() {
        let folder =
            Folder::prepare(&std::env::temp_dir().join(format!("dolmen-settings-{}", std::process::id())))
                .unwrap();
        let user = BTreeMap::from([("search_path".to_owned(), r#"it's "a\b""#.to_owned())]);
        let settings = Settings {
            name: "database-2",
            listen: "127.0.0.1:5432".parse().unwrap(),
            folder: &folder,
            synchronous_names: "",
            primary: Some("127.0.0.2:5432".parse().unwrap()),
            user: &user,
        };
        let text = render(&settings);
        assert_eq!(text.lines().last().unwrap(), r#"search_path = 'it''s "a\\b"'"#);
        assert!(text.contains("primary_slot_name = 'database_2'\n"), "{text}");
        assert!(text.contains("application_name=database-2 "), "{text}");
        std::fs::remove_dir_all(folder.root()).unwrap();
    }
}
