//! What a request for a file is answered: all of it, a part, or that the client has it already
//! (RFC 9110 section 13.2.2). Pure: from the request's fields and the file's.

use std::ops::Range;
use std::time::SystemTime;

use crate::range::{self, Asked};

/// The fields of a request that matter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Conditions<'a> {
    pub(crate) if_match: Option<&'a str>,
    pub(crate) if_none_match: Option<&'a str>,
    pub(crate) if_modified_since: Option<&'a str>,
    pub(crate) if_unmodified_since: Option<&'a str>,
    pub(crate) if_range: Option<&'a str>,
    pub(crate) range: Option<&'a str>,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Whole,
    Part(Range<u64>),
    NotModified,
    PreconditionFailed,
    NotSatisfiable,
}

/// Decides, in the order of the RFC. `tag` is the file's strong tag with its quotes.
pub(crate) fn to(conditions: &Conditions<'_>, size: u64, modified: SystemTime, tag: &str) -> Answer {
    let holds = match (conditions.if_match, conditions.if_unmodified_since) {
        (Some(tags), _) => names(tags, tag, Comparison::Strong),
        (None, Some(date)) => parse(date).is_none_or(|date| modified <= date),
        (None, None) => true,
    };
    if !holds {
        return Answer::PreconditionFailed;
    }
    let has_it = match (conditions.if_none_match, conditions.if_modified_since) {
        (Some(tags), _) => names(tags, tag, Comparison::Weak),
        (None, Some(date)) => parse(date).is_some_and(|date| modified <= date),
        (None, None) => false,
    };
    if has_it {
        return Answer::NotModified;
    }
    let is_same = conditions.if_range.is_none_or(|validator| match validator.starts_with('"') {
        true => validator == tag,
        false => parse(validator).is_some_and(|date| modified == date),
    });
    match range::asked(conditions.range.filter(|_| is_same), size) {
        Asked::Whole => Answer::Whole,
        Asked::Part(part) => Answer::Part(part),
        Asked::Beyond => Answer::NotSatisfiable,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a list of tags names this one. Our tags have no comma, so a list can be split at them.
fn names(list: &str, tag: &str, comparison: Comparison) -> bool {
    list.trim() == "*"
        || list.split(',').map(str::trim).any(|listed| match comparison {
            Comparison::Strong => listed == tag,
            Comparison::Weak => listed.strip_prefix("W/").unwrap_or(listed) == tag,
        })
}

fn parse(date: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(date).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn check(conditions: Conditions<'_>, expect: Answer) {
        let modified = UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(to(&conditions, 10, modified, "\"t\""), expect, "{conditions:?}");
    }

    #[test]
    fn section_13_1_2_if_none_match_goes_before_the_date() {
        let none = Conditions::default();
        check(none, Answer::Whole);
        check(Conditions { if_none_match: Some("\"t\""), ..none }, Answer::NotModified);
        check(Conditions { if_none_match: Some("\"a\", W/\"t\""), ..none }, Answer::NotModified);
        check(Conditions { if_none_match: Some("*"), ..none }, Answer::NotModified);
        let other = Conditions { if_none_match: Some("\"a\""), if_modified_since: Some(NOW), ..none };
        check(other, Answer::Whole);
    }

    #[test]
    fn section_13_1_3_and_4_dates() {
        let none = Conditions::default();
        check(Conditions { if_modified_since: Some(NOW), ..none }, Answer::NotModified);
        check(Conditions { if_modified_since: Some(BEFORE), ..none }, Answer::Whole);
        check(Conditions { if_modified_since: Some("yesterday"), ..none }, Answer::Whole);
        check(Conditions { if_unmodified_since: Some(BEFORE), ..none }, Answer::PreconditionFailed);
        check(Conditions { if_unmodified_since: Some(NOW), ..none }, Answer::Whole);
    }

    #[test]
    fn section_13_1_1_if_match_is_strong() {
        let none = Conditions::default();
        check(Conditions { if_match: Some("\"t\""), ..none }, Answer::Whole);
        check(Conditions { if_match: Some("W/\"t\""), ..none }, Answer::PreconditionFailed);
    }

    #[test]
    fn section_13_1_5_if_range() {
        let part = Conditions { range: Some("bytes=0-1"), ..Conditions::default() };
        check(part, Answer::Part(0..2));
        check(Conditions { if_range: Some("\"t\""), ..part }, Answer::Part(0..2));
        check(Conditions { if_range: Some("\"a\""), ..part }, Answer::Whole);
        check(Conditions { if_range: Some("W/\"t\""), ..part }, Answer::Whole);
        check(Conditions { if_range: Some(NOW), ..part }, Answer::Part(0..2));
        check(Conditions { if_range: Some(BEFORE), ..part }, Answer::Whole);
        check(Conditions { range: Some("bytes=10-"), ..part }, Answer::NotSatisfiable);
    }
}
