//! `[tls]`: the certificate of the site. Checked now, served by a later version.

use crate::meant::Value;
use crate::mistake::Mistake;
use crate::typed::{Table, Written};

pub(crate) const NOT_SERVED: &str =
    "[tls] is checked, but this version does not serve it yet: the site answers HTTP only";

#[derive(Clone, Debug, Default)]
pub(crate) struct TlsSection;

impl TlsSection {
    pub(crate) fn read(mut table: Table<'_>) -> TlsSection {
        table.get("email").map(|item| item.checked(email));
        let certificate = table.text("certificate");
        let key = table.value("key");
        note_key_in_the_clear(key.as_ref(), &table);
        if certificate.is_some() && key.is_none() {
            table.require("key", "the private key of the certificate: `key = \"file:site.key\"`");
        }
        if key.is_some() && certificate.is_none() {
            table.require("certificate", "the file with the certificate: `certificate = \"site.pem\"`");
        }
        table.close();
        TlsSection
    }
}

fn note_key_in_the_clear(key: Option<&Written<Value>>, table: &Table<'_>) {
    if let Some(Written { value: Value::Plain(_), span }) = key {
        let hint = "write \"file:PATH\" or \"env:NAME\"";
        table
            .notes
            .note(Mistake::at(span.clone(), "the private key must come from elsewhere").hint(hint).secret());
    }
}

fn email(text: &str) -> Result<(), (String, String)> {
    let is_mail = text
        .split_once('@')
        .is_some_and(|(local, host)| !local.is_empty() && crate::address::host_name(host).is_ok());
    let wrong = || (format!("{text:?} is not a mail address"), "for example \"admin@foobar.com\"".to_owned());
    is_mail.then_some(()).ok_or_else(wrong)
}
