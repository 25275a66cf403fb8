//! What the user typed, with the place of every value, and not one system call.
//!
//! The text is walked by hand rather than through serde, since a derived reader stops at its first mistake.

mod item;
mod similar;
mod table;
mod unit;

use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

pub(crate) use item::Item;
pub(crate) use similar::did_you_mean;
pub(crate) use table::Table;
pub(crate) use unit::{bytes_text, duration_text};

use crate::mistake::{Mistake, Notes};
use crate::section::app::AppSection;
use crate::section::balancer::BalancerSection;
use crate::section::control::ControlSection;
use crate::section::database::DatabaseSection;
use crate::section::dns::DnsSection;
use crate::section::firewall::FirewallSection;
use crate::section::machines::{self, MachineEntry};
use crate::section::monitor::MonitorSection;
use crate::section::network::NetworkSection;
use crate::section::route::{self, PoolEntry, RouteEntry};
use crate::section::tls::TlsSection;
use crate::section::web::WebSection;

/// So many mistakes of TOML itself are reported; in a text that is no TOML every line has one.
const SYNTAX_MISTAKES_LIMIT: usize = 5;
/// So many are looked at for that.
const SYNTAX_ERRORS_LIMIT: usize = 100;

const MINIMAL_SITE: &str = "a whole site is a name and a program:\n\ndomain = \"www.foobar.com\"\n[app]\ncommand = \"python3 app.py\"\n\n`dolmen init` writes one for the application in this folder";

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

impl<T> Written<T> {
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Written<U> {
        Written { value: change(self.value), span: self.span }
    }
}

/// The value of an optional key, or its default.
pub(crate) fn or<T: Clone>(written: &Option<Written<T>>, default: T) -> T {
    written.as_ref().map_or(default, |written| written.value.clone())
}

/// The machines that a part shall run on, as written.
pub(crate) type On = Option<Written<Vec<Written<String>>>>;

/// Which parts a file names; one that is mistyped or wrong is named as well, so that its absence is not
/// reported besides.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Names {
    pub(crate) domain: bool,
    pub(crate) machines: bool,
    pub(crate) dns: bool,
    pub(crate) balancer: bool,
    pub(crate) web: bool,
    pub(crate) app: bool,
    pub(crate) database: bool,
}

/// A whole site file. A section that is absent is None; one whose keys are all wrong is there but empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Typed {
    pub(crate) domain: Option<Written<String>>,
    /// What the file means to have, be it written wrong.
    pub(crate) names: Names,
    /// None: no `[machines]`.
    pub(crate) machines: Option<Vec<MachineEntry>>,
    pub(crate) dns: Option<DnsSection>,
    pub(crate) balancer: Option<BalancerSection>,
    pub(crate) pools: Vec<PoolEntry>,
    pub(crate) routes: Vec<RouteEntry>,
    pub(crate) web: Option<WebSection>,
    pub(crate) app: Option<AppSection>,
    pub(crate) database: Option<DatabaseSection>,
    pub(crate) firewall: Option<FirewallSection>,
    pub(crate) monitor: Option<MonitorSection>,
    pub(crate) control: Option<ControlSection>,
    pub(crate) tls: Option<TlsSection>,
    pub(crate) network: Option<NetworkSection>,
}

/// Reads a text. None when it is not TOML or holds nothing, which is then the only thing noted.
pub(crate) fn read(text: &str, notes: &Notes) -> Option<Typed> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        note_syntax(text, &errors, notes);
        return None;
    }
    if root.get_ref().is_empty() {
        notes.note(Mistake::of_file("the site file is empty").hint(MINIMAL_SITE));
        return None;
    }
    let table = Table::new(table::ROOT, 0..0, root.get_ref(), notes);
    Some(read_sections(table))
}

/// The first mistake of each line: what recovery finds after it on the same line is mostly its echo.
fn note_syntax(text: &str, errors: &[Error], notes: &Notes) {
    let mut lines = Vec::new();
    for error in errors.iter().take(SYNTAX_ERRORS_LIMIT) {
        let span = error.span().unwrap_or(0..0);
        let line = text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count();
        if !lines.contains(&line) && lines.len() < SYNTAX_MISTAKES_LIMIT {
            lines.push(line);
            notes.note(Mistake::at(span, format!("this is not TOML: {}", error.message())));
        }
    }
}

fn read_sections(mut root: Table<'_>) -> Typed {
    let mut typed = Typed {
        names: Names::default(),
        domain: root.get("domain").and_then(|item| item.host_name()),
        machines: root.section("machines", machines::read),
        dns: root.section("dns", DnsSection::read),
        balancer: root.section("balancer", BalancerSection::read),
        pools: root.section("pool", route::read_pools).unwrap_or_default(),
        routes: root.get("route").map(|item| route::read_routes(&item)).unwrap_or_default(),
        web: root.section("web", WebSection::read),
        app: root.section("app", AppSection::read),
        database: root.section("database", DatabaseSection::read),
        firewall: root.section("firewall", FirewallSection::read),
        monitor: root.section("monitor", MonitorSection::read),
        control: root.section("control", ControlSection::read),
        tls: root.section("tls", TlsSection::read),
        network: root.section("network", NetworkSection::read),
    };
    typed.names = Names {
        domain: root.means("domain"),
        machines: root.means("machines"),
        dns: root.means("dns"),
        balancer: root.means("balancer"),
        web: root.means("web"),
        app: root.means("app"),
        database: root.means("database"),
    };
    root.close();
    typed
}

/// What a value is, in the words of a message.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
