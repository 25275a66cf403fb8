//! One table of the file. The keys that a section asks for are the keys it knows: what is left over when
//! the table is closed was mistyped. So no list of known keys can differ from what is read.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::item::Item;
use super::similar::closest;
use super::{On, Written};
use crate::meant::Value;
use crate::mistake::{Mistake, Notes};

/// How the file as a whole is named in messages.
pub(crate) const ROOT: &str = "the site file";
/// Keys that stand above the first section, and the sections; for hints only.
const TOP_KEYS: [&str; 1] = ["domain"];

struct Entry<'a> {
    key: &'a str,
    key_span: Range<usize>,
    value: &'a Spanned<DeValue<'a>>,
}

/// A table while it is read.
pub(crate) struct Table<'a> {
    title: String,
    /// Where the table as a whole is pointed at: its name.
    pub(crate) span: Range<usize>,
    /// In the order of the file.
    entries: Vec<Entry<'a>>,
    asked: Vec<&'static str>,
    required: Vec<(&'static str, &'static str)>,
    pub(crate) notes: &'a Notes,
}

impl<'a> Table<'a> {
    pub(crate) fn new(
        title: impl Into<String>,
        span: Range<usize>,
        table: &'a DeTable<'a>,
        notes: &'a Notes,
    ) -> Table<'a> {
        let mut entries: Vec<Entry<'a>> = table
            .iter()
            .map(|(key, value)| Entry { key: key.get_ref(), key_span: key.span(), value })
            .collect();
        entries.sort_by_key(|entry| entry.key_span.start);
        Table { title: title.into(), span, entries, asked: Vec::new(), required: Vec::new(), notes }
    }

    /// The value of a key, which is then known.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.asked.push(key);
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.item(entry))
    }

    /// All values, for tables whose keys are the user's own names.
    pub(crate) fn all(&self) -> Vec<Item<'a>> {
        self.entries.iter().map(|entry| self.item(entry)).collect()
    }

    fn item(&self, entry: &Entry<'a>) -> Item<'a> {
        Item {
            name: entry.key.to_owned(),
            key_span: entry.key_span.clone(),
            value: entry.value.get_ref(),
            span: entry.value.span(),
            notes: self.notes,
        }
    }

    /// Says that a key has to be there; noted when the table is closed.
    pub(crate) fn require(&mut self, key: &'static str, hint: &'static str) {
        self.required.push((key, hint));
    }

    /// Reads a section, `[name]`, which closes itself.
    pub(crate) fn section<T>(&mut self, name: &'static str, read: fn(Table<'a>) -> T) -> Option<T> {
        let table = self.get(name)?.table(&format!("[{name}]"))?;
        Some(read(table))
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Option<Written<String>> {
        self.get(key)?.text()
    }

    pub(crate) fn on(&mut self) -> On {
        let item = self.get("on")?;
        let names: Vec<_> = item.list("on = [\"alpha\"]")?.iter().filter_map(Item::text).collect();
        let written = Written { value: names, span: item.span.clone() };
        if item.is_empty_list() {
            item.note("`on` names no machine", Some("name one, or remove the key to have the default"));
        }
        Some(written)
    }

    pub(crate) fn port(&mut self, key: &'static str) -> Option<Written<u16>> {
        self.get(key)?.port()
    }

    pub(crate) fn duration_ms(&mut self, key: &'static str, low: u64, high: u64) -> Option<Written<u64>> {
        self.get(key)?.duration_ms(low, high)
    }

    pub(crate) fn number(&mut self, key: &'static str, low: u64, high: u64) -> Option<Written<u64>> {
        self.get(key)?.number(low, high)
    }

    pub(crate) fn value(&mut self, key: &'static str) -> Option<Written<Value>> {
        self.get(key)?.value()
    }

    /// Whether a key is there, be its value wrong, or be it mistyped but clearly meant; then nothing needs to
    /// be said about its absence. To be asked last, when all keys are known.
    pub(crate) fn means(&self, key: &'static str) -> bool {
        let meant = |entry: &Entry<'_>| {
            entry.key == key || !self.asked.contains(&entry.key) && self.closest(entry) == Some(key)
        };
        self.entries.iter().any(meant)
    }

    /// Notes every key that nobody asked for, and every required one that is missing.
    pub(crate) fn close(self) {
        let unknown: Vec<&Entry<'_>> =
            self.entries.iter().filter(|entry| !self.asked.contains(&entry.key)).collect();
        for (key, hint) in &self.required {
            if !self.means(key) {
                let message = format!("{} needs `{key}`", self.title);
                self.notes.note(Mistake::at(self.span.clone(), message).hint(*hint));
            }
        }
        for entry in unknown {
            self.note_unknown(entry);
        }
    }

    fn closest(&self, entry: &Entry<'_>) -> Option<&'static str> {
        closest(entry.key, self.asked.iter().copied())
    }

    fn note_unknown(&self, entry: &Entry<'_>) {
        let is_root = self.title == ROOT;
        let is_section = is_root && entry.value.get_ref().is_table();
        let message = match is_section {
            true => format!("unknown section [{}]", entry.key),
            false => format!("unknown key `{}` in {}", entry.key, self.title),
        };
        let meant = self.closest(entry).map(|key| match is_section {
            true => format!("did you mean [{key}]?"),
            false => format!("did you mean `{key}`?"),
        });
        let hint = match TOP_KEYS.contains(&entry.key) && !is_root {
            true => Some(format!("`{}` stands at the top of the file, before the first section", entry.key)),
            false => meant.or_else(|| self.known()),
        };
        self.notes.note(Mistake::at(entry.key_span.clone(), message).maybe_hint(hint));
    }

    fn known(&self) -> Option<String> {
        let keys: Vec<String> = self.asked.iter().map(|key| format!("`{key}`")).collect();
        (!keys.is_empty()).then(|| format!("known here: {}", keys.join(", ")))
    }
}
