//! What can be tested without a database; tests/guestbook.rs has the rest.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::entry::{Draft, DraftError, MESSAGE_LIMIT, NAME_LIMIT};
use crate::hops::passed;
use crate::settings::{Settings, SettingsError};

fn draft(name: &str, message: &str) -> Result<Draft, String> {
    Draft { name: name.to_owned(), message: message.to_owned() }.checked().map_err(|error| error.to_string())
}

#[test]
fn a_draft_is_trimmed_and_lines_end_in_one_way() {
    let checked = draft("  Ada ", "\r\none\r\ntwo\r\n").unwrap();
    assert_eq!(checked, Draft { name: "Ada".to_owned(), message: "one\ntwo".to_owned() });
}

#[test]
fn a_draft_that_does_not_fit_is_refused_with_a_reason() {
    assert_eq!(draft(" \t", "x").unwrap_err(), "the name is empty");
    assert_eq!(draft("x", "\n").unwrap_err(), "the message is empty");
    assert_eq!(draft("a\nb", "x").unwrap_err(), "the name has a control character in it");
    assert_eq!(draft("a", "x\0y").unwrap_err(), "the message has a control character in it");
    assert_eq!(
        draft(&"é".repeat(NAME_LIMIT + 1), "x").unwrap_err(),
        "the name has 61 characters; at most 60 fit"
    );
}

#[test]
fn limits_count_characters_not_bytes() {
    assert!(draft(&"é".repeat(NAME_LIMIT), &"石".repeat(MESSAGE_LIMIT)).is_ok());
    let long = Draft { name: "a".to_owned(), message: "石".repeat(MESSAGE_LIMIT + 1) };
    assert!(matches!(long.checked(), Err(DraftError::TooLong { count, .. }) if count == MESSAGE_LIMIT + 1));
}

fn hops(via: &[&'static str], server: Option<&str>) -> String {
    let mut headers = HeaderMap::new();
    for line in via {
        headers.append(header::VIA, HeaderValue::from_static(line));
    }
    passed(&headers, server).join(" > ")
}

#[test]
fn the_way_is_read_from_via_and_ends_with_our_server() {
    let way = "balancer-1 > web-2 > app-2";
    assert_eq!(hops(&["1.1 balancer-1, 1.1 web-2"], Some("app-2")), way);
    assert_eq!(hops(&["1.1 balancer-1", "1.1 web-2, HTTP/1.1 app-2 (dolmen)"], Some("app-2")), way);
    assert_eq!(hops(&[], None), "");
    assert_eq!(hops(&["odd", ",,", "1.1"], None), "");
}

fn settings(set: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    Settings::from_environment(|name| {
        set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn the_environment_is_read_with_defaults() {
    let url = "postgres://u:p@127.0.0.1/d";
    let read = settings(&[("PORT", "8000"), ("DATABASE_URL", url), ("DATABASE_REPLICA_URL", url)]).unwrap();
    assert_eq!((read.host.as_str(), read.port), ("127.0.0.1", 8000));
    assert!(read.replica.is_none(), "the same address twice is one database");
}

#[test]
fn a_mistake_in_the_environment_names_the_variable_and_no_secret() {
    let told = |set: &[(&str, &str)]| settings(set).unwrap_err().to_string();
    let url = ("DATABASE_URL", "postgres://u:p@127.0.0.1/d");
    assert!(told(&[]).contains("DATABASE_URL is not set"));
    assert!(told(&[url]).contains("PORT is not set"));
    assert!(told(&[url, ("PORT", "70000")]).contains("70000"));
    let odd = told(&[("PORT", "1"), ("DATABASE_URL", "postgres://u:secret@h:x/d")]);
    assert!(odd.contains("DATABASE_URL") && !odd.contains("secret"), "{odd}");
}
