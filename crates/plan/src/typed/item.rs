//! One value of the file, and the ways to read it. Each either gives a value with its place, or notes what
//! is wrong and gives nothing, so that reading goes on.

use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};

use toml::de::{DeTable, DeValue};

use super::similar::did_you_mean;
use super::table::Table;
use super::unit::{bytes, bytes_text, duration_ms, duration_text};
use super::{Written, kind};
use crate::address;
use crate::meant::Value;
use crate::mistake::{Mistake, Notes};

/// A value with its name and its place.
#[derive(Clone)]
pub(crate) struct Item<'a> {
    /// Its key; for what stands in a list, the key of the list.
    pub(crate) name: String,
    pub(crate) key_span: Range<usize>,
    pub(crate) value: &'a DeValue<'a>,
    pub(crate) span: Range<usize>,
    pub(crate) notes: &'a Notes,
}

impl<'a> Item<'a> {
    pub(crate) fn note(&self, message: impl Into<String>, hint: Option<&str>) {
        let mistake = Mistake::at(self.span.clone(), message);
        self.notes.note(mistake.maybe_hint(hint.map(str::to_owned)));
    }

    fn wrong_kind<T>(&self, wanted: &str, example: &str) -> Option<T> {
        let message = format!("`{}` must be {wanted}, but this is {}", self.name, kind(self.value));
        self.note(message, Some(&format!("for example {example}")));
        None
    }

    fn written<T>(&self, value: T) -> Option<Written<T>> {
        Some(Written { value, span: self.span.clone() })
    }

    /// A text that is not empty.
    pub(crate) fn text(&self) -> Option<Written<String>> {
        match self.value.as_str() {
            Some(text) if text.trim().is_empty() => {
                self.note(format!("`{}` is empty", self.name), None);
                None
            }
            Some(text) => self.written(text.to_owned()),
            None => self.wrong_kind("a text in quotes", &format!("{} = \"…\"", self.name)),
        }
    }

    pub(crate) fn boolean(&self) -> Option<Written<bool>> {
        match self.value.as_bool() {
            Some(value) => self.written(value),
            None => self.wrong_kind("true or false", &format!("{} = true", self.name)),
        }
    }

    pub(crate) fn number(&self, low: u64, high: u64) -> Option<Written<u64>> {
        let Some(integer) = self.value.as_integer() else {
            return self.wrong_kind("a whole number", &format!("{} = {low}", self.name));
        };
        match i128::from_str_radix(integer.as_str(), integer.radix()).ok().and_then(|n| u64::try_from(n).ok())
        {
            Some(number) if (low..=high).contains(&number) => self.written(number),
            Some(_) | None => {
                self.note(format!("`{}` must be from {low} to {high}", self.name), None);
                None
            }
        }
    }

    pub(crate) fn port(&self) -> Option<Written<u16>> {
        let number = self.number(1, u64::from(u16::MAX))?;
        let port = u16::try_from(number.value).expect("the range was checked");
        self.written(port)
    }

    pub(crate) fn duration_ms(&self, low: u64, high: u64) -> Option<Written<u64>> {
        let Some(text) = self.value.as_str() else {
            return self.wrong_kind("a duration in quotes", &format!("{} = \"2s\"", self.name));
        };
        match duration_ms(text) {
            Some(duration) if (low..=high).contains(&duration) => self.written(duration),
            Some(_) => {
                let (low, high) = (duration_text(low), duration_text(high));
                self.note(format!("`{}` must be from {low} to {high}", self.name), None);
                None
            }
            None => {
                let message = format!("`{}` must be a duration, but this is {text:?}", self.name);
                self.note(message, Some("a whole number and its unit: \"500ms\", \"2s\", \"1m\", \"1h\""));
                None
            }
        }
    }

    /// A size in bytes.
    pub(crate) fn bytes(&self, low: u64, high: u64) -> Option<Written<u64>> {
        let Some(text) = self.value.as_str() else {
            return self.wrong_kind("a size in quotes", &format!("{} = \"10MiB\"", self.name));
        };
        match bytes(text) {
            Some(size) if (low..=high).contains(&size) => self.written(size),
            Some(_) => {
                self.note(
                    format!("`{}` must be from {} to {}", self.name, bytes_text(low), bytes_text(high)),
                    None,
                );
                None
            }
            None => {
                let message = format!("`{}` must be a size, but this is {text:?}", self.name);
                self.note(
                    message,
                    Some("a whole number and its unit: \"512B\", \"64KiB\", \"10MiB\", \"1GB\""),
                );
                None
            }
        }
    }

    /// Seconds, as the number that DNS people write or as a duration.
    pub(crate) fn ttl_s(&self, range: RangeInclusive<u32>) -> Option<Written<u32>> {
        let (low, high) = (u64::from(*range.start()), u64::from(*range.end()));
        let seconds = match self.value {
            DeValue::Integer(_) => self.number(low, high)?,
            _ => self.duration_ms(low * 1000, high * 1000)?.map(|milliseconds| milliseconds / 1000),
        };
        Some(seconds.map(|seconds| u32::try_from(seconds).unwrap_or(*range.end())))
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<Written<T>> {
        let text = self.text()?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return self.written(*value);
        }
        let known = words.iter().map(|(word, _)| *word);
        let hint = did_you_mean(&text.value, known.clone()).unwrap_or_else(|| {
            let words: Vec<String> = known.map(|word| format!("`{word}`")).collect();
            format!("it can be {}", words.join(" or "))
        });
        self.note(format!("unknown {} {:?}", self.name, text.value), Some(&hint));
        None
    }

    /// The elements of a list.
    pub(crate) fn list(&self, example: &str) -> Option<Vec<Item<'a>>> {
        let Some(array) = self.value.as_array() else {
            return self.wrong_kind("a list", example);
        };
        let element = |value: &'a toml::Spanned<DeValue<'a>>| Item {
            value: value.get_ref(),
            span: value.span(),
            ..self.clone()
        };
        Some(array.iter().map(element).collect())
    }

    pub(crate) fn is_empty_list(&self) -> bool {
        self.value.as_array().is_some_and(|array| array.iter().next().is_none())
    }

    /// A table, which the caller closes. `title` names it in messages.
    pub(crate) fn table(&self, title: &str) -> Option<Table<'a>> {
        match self.value.as_table() {
            Some(table) => Some(self.opened(title, table)),
            None => self.wrong_kind("a table", if title.starts_with('[') { title } else { "{ … }" }),
        }
    }

    fn opened(&self, title: &str, table: &'a DeTable<'a>) -> Table<'a> {
        Table::new(title, self.key_span.clone(), table, self.notes)
    }

    pub(crate) fn ip(&self) -> Option<Written<IpAddr>> {
        self.checked(address::ip)
    }

    /// An address or a name, and a port.
    pub(crate) fn server(&self) -> Option<Written<address::Place>> {
        self.checked(address::server)
    }

    pub(crate) fn host_name(&self) -> Option<Written<String>> {
        self.checked(address::host_name)
    }

    /// The path of a URL.
    pub(crate) fn url_path(&self) -> Option<Written<String>> {
        self.checked(address::url_path)
    }

    /// A text that a function accepts, or says why not with a hint.
    pub(crate) fn checked<T>(&self, check: fn(&str) -> Result<T, (String, String)>) -> Option<Written<T>> {
        match check(&self.text()?.value) {
            Ok(value) => self.written(value),
            Err((message, hint)) => {
                self.note(message, Some(&hint));
                None
            }
        }
    }

    /// A value that may come from elsewhere: plain, `env:NAME` or `file:PATH`.
    pub(crate) fn value(&self) -> Option<Written<Value>> {
        let Some(text) = self.value.as_str() else {
            return self.wrong_kind("a text in quotes", &format!("{} = \"env:NAME\"", self.name));
        };
        let value = match text.split_once(':') {
            Some(("env", name)) if address::is_variable(name) => Value::Env(name.to_owned()),
            Some(("env", name)) => {
                let hint = "letters, digits and underscores: \"env:DATABASE_URL\"";
                self.note(format!("{name:?} is no name of an environment variable"), Some(hint));
                return None;
            }
            Some(("file", "")) => {
                self.note("`file:` names no file", Some("for example \"file:secrets/database-url\""));
                return None;
            }
            Some(("file", path)) => Value::File(path.into()),
            Some(_) | None => Value::Plain(text.to_owned()),
        };
        self.written(value)
    }
}
