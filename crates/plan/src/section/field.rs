//! Changes to header fields: `{ set = { x-tier = "api" }, add = { … }, remove = ["x-powered-by"] }`. Part of `[[route]]`.

use crate::meant::FieldEdits;
use crate::mistake::Mistake;
use crate::section::pool::field_name;
use crate::typed::{Item, Table};

const VALUE_LETTERS_MAX: usize = 4_096;
const FIELDS_MAX: usize = 50;

/// Fields that say where a message ends or who sent it. A change would let two readers understand two things.
const OURS: [&str; 20] = [
    "connection",
    "content-length",
    "date",
    "expect",
    "forwarded",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

pub(crate) fn edits(item: &Item<'_>) -> FieldEdits {
    let title = format!("`{}`", item.name);
    let Some(mut table) = item.table(&title) else { return FieldEdits::default() };
    let edits = FieldEdits {
        set: table.get("set").and_then(|item| item.table("`set`")).map(pairs).unwrap_or_default(),
        add: table.get("add").and_then(|item| item.table("`add`")).map(pairs).unwrap_or_default(),
        remove: table.get("remove").map(|item| removed(&item)).unwrap_or_default(),
    };
    table.close();
    edits
}

/// Names and values, in the order of the file.
fn pairs(table: Table<'_>) -> Vec<(String, String)> {
    let items = table.all();
    if items.len() > FIELDS_MAX {
        let message = format!("more than {FIELDS_MAX} header fields");
        table.notes.note(Mistake::at(table.span.clone(), message));
    }
    let pair = |item: &Item<'_>| {
        let name = item.name.to_ascii_lowercase();
        if let Err((message, hint)) = field_name(&name).and_then(|_| may_change(&name)) {
            item.notes.note(Mistake::at(item.key_span.clone(), message).hint(hint));
        }
        Some((name, item.checked(value)?.value))
    };
    items.iter().take(FIELDS_MAX).filter_map(pair).collect()
}

fn removed(item: &Item<'_>) -> Vec<String> {
    let names = item.list("remove = [\"x-powered-by\"]").unwrap_or_default();
    names.iter().take(FIELDS_MAX).filter_map(|item| Some(item.checked(removable)?.value)).collect()
}

fn removable(text: &str) -> Result<String, (String, String)> {
    let name = field_name(text)?.to_ascii_lowercase();
    if name == "host" {
        return Err(("a request cannot be without `host`".into(), "set another one in its place".into()));
    }
    may_change(&name).map(|()| name)
}

fn may_change(name: &str) -> Result<(), (String, String)> {
    match OURS.contains(&name) {
        true => Err((
            format!("the field `{name}` cannot be changed"),
            "it belongs to the connection, or says who the client is; the balancer writes it".into(),
        )),
        false => Ok(()),
    }
}

fn value(text: &str) -> Result<String, (String, String)> {
    let fits = text.len() <= VALUE_LETTERS_MAX && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let wrong =
        || ("this cannot be the value of a header field".into(), "letters of ASCII on one line".into());
    fits.then(|| text.trim().to_owned()).ok_or_else(wrong)
}
