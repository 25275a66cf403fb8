//! `[app]`: the program that answers requests.

use std::collections::BTreeMap;

use crate::address::is_variable;
use crate::command;
use crate::meant::{App, Value};
use crate::mistake::{Mistake, Notes};
use crate::section::patience::{APP_IDLE_MS, TimeoutKeys};
use crate::typed::{Item, On, Table, Written, or};

const WORKERS: u64 = 2;
const WORKERS_MAX: u64 = 256;
const HEALTH: &str = "/";
const START_MS: u64 = 30_000;
const STOP_MS: u64 = 10_000;
const PATIENCE_MS_MIN: u64 = 100;
const PATIENCE_MS_MAX: u64 = 3_600_000;

/// Given to every worker by the app server.
const OWN_VARIABLES: [&str; 2] = ["PORT", "HOST"];
/// Given to every worker when the site has a database.
const DATABASE_VARIABLES: [&str; 2] = ["DATABASE_URL", "DATABASE_REPLICA_URL"];

#[derive(Clone, Debug, Default)]
pub(crate) struct AppSection {
    pub(crate) on: On,
    pub(crate) port: Option<Written<u16>>,
    command: Option<Written<String>>,
    workers: Option<Written<u64>>,
    health: Option<Written<String>>,
    environment: Vec<(Written<String>, Written<Value>)>,
    start_ms: Option<Written<u64>>,
    stop_ms: Option<Written<u64>>,
    timeouts: TimeoutKeys,
}

impl AppSection {
    pub(crate) fn read(mut table: Table<'_>) -> AppSection {
        let section = AppSection {
            on: table.on(),
            port: table.port("port"),
            command: table.get("command").and_then(|item| command_line(&item)),
            workers: table.number("workers", 1, WORKERS_MAX),
            health: table.get("health").and_then(|item| item.url_path()),
            environment: table.get("environment").map(|item| environment(&item)).unwrap_or_default(),
            start_ms: table.duration_ms("start", PATIENCE_MS_MIN, PATIENCE_MS_MAX),
            stop_ms: table.duration_ms("stop", PATIENCE_MS_MIN, PATIENCE_MS_MAX),
            timeouts: TimeoutKeys::read(&mut table, "[app.timeouts]"),
        };
        table.require("command", "what starts the application: `command = \"python3 app.py\"`");
        table.close();
        section
    }

    pub(crate) fn mean(&self, has_database: bool, notes: &Notes) -> App {
        if has_database {
            self.note_database_variables(notes);
        }
        App {
            command: or(&self.command, String::new()),
            workers: u16::try_from(or(&self.workers, WORKERS)).unwrap_or(u16::MAX),
            health: or(&self.health, HEALTH.to_owned()),
            environment: self.variables(),
            start_ms: or(&self.start_ms, START_MS),
            stop_ms: or(&self.stop_ms, STOP_MS),
            timeouts: self.timeouts.mean(APP_IDLE_MS),
        }
    }

    fn variables(&self) -> BTreeMap<String, Value> {
        self.environment.iter().map(|(name, value)| (name.value.clone(), value.value.clone())).collect()
    }

    fn note_database_variables(&self, notes: &Notes) {
        for (name, _) in &self.environment {
            if DATABASE_VARIABLES.contains(&name.value.as_str()) {
                let message =
                    format!("`{}` is set for the application to reach the site's database", name.value);
                let hint =
                    "remove it; for a database run by somebody else write `[database] url = \"env:…\"`";
                notes.note(Mistake::at(name.span.clone(), message).hint(hint));
            }
        }
    }
}

fn command_line(item: &Item<'_>) -> Option<Written<String>> {
    // An empty command has its own message, so it is not read as any other text.
    let Some(text) = item.value.as_str() else { return item.text() };
    match command::words(text) {
        Ok(_) => item.text(),
        Err(error) => {
            item.note(error.to_string(), Some(error.hint()));
            None
        }
    }
}

fn environment(item: &Item<'_>) -> Vec<(Written<String>, Written<Value>)> {
    let Some(table) = item.table("[app.environment]") else { return Vec::new() };
    let variables = table.all();
    variables.iter().filter_map(variable).collect()
}

fn variable(item: &Item<'_>) -> Option<(Written<String>, Written<Value>)> {
    let name = Written { value: item.name.clone(), span: item.key_span.clone() };
    let at_name = |message: String| Mistake::at(item.key_span.clone(), message);
    if !is_variable(&item.name) {
        let message = format!("{:?} cannot name an environment variable", item.name);
        item.notes.note(at_name(message).hint("letters, digits and underscores: SECRET_KEY"));
    }
    if OWN_VARIABLES.contains(&item.name.as_str()) {
        let message = format!("`{}` is set by dolmen, for each worker another", item.name);
        item.notes
            .note(at_name(message).hint("remove it; `[app] port` is where the app server itself answers"));
    }
    let value = item.value()?;
    if matches!(&value.value, Value::Plain(text) if text.contains('\0')) {
        item.note(format!("`{}` has a zero byte, which no program can be given", item.name), None);
    }
    Some((name, value))
}
