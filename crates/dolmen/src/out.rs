//! What people see: plain text on a pipe, colour on a terminal unless `NO_COLOR` is set.

use std::io::{IsTerminal, Write};

use link::report::State;

/// Set by `up --detach` for the process in the background, whose output the one in front passes on.
pub const COLOUR: &str = "DOLMEN_COLOUR";

pub fn has_colour() -> bool {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    wanted && (std::io::stdout().is_terminal() || std::env::var_os(COLOUR).is_some())
}

fn paint(code: &str, text: &str) -> String {
    if has_colour() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

pub fn strong(text: &str) -> String {
    paint("1", text)
}

pub fn faint(text: &str) -> String {
    paint("2", text)
}

/// A text in the colour of a state.
pub fn state(state: State, text: &str) -> String {
    match state {
        State::Healthy => paint("32", text),
        State::Starting | State::Draining => paint("33", text),
        State::Unhealthy | State::Down => paint("31", text),
    }
}

/// A moment for people: milliseconds since 1970 as `2026-11-23 03:06:49`, in UTC.
pub fn moment(ms: u64) -> String {
    let (day, second) = (ms / 86_400_000, ms / 1000 % 86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The date that is this many days after 1970-01-01. A year is counted from March, so that its leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year, if month < 10 { month + 3 } else { month - 9 });
    (year + u64::from(month <= 2), month, date)
}

/// A line on standard output. That nobody reads it any more is no reason to fail.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        tracing::trace!("nobody reads the output: {error}");
    }
}

/// An error, with its hints on lines of their own.
pub fn error(message: &str) {
    drawn(&format!("{} {message}", paint("31;1", "error:")));
}

/// What is for people beside the output of a command, on standard error.
pub fn error_line(text: &str) {
    drawn(text);
}

/// What looks as it should already, on standard error.
pub fn drawn(text: &str) {
    if let Err(error) = writeln!(std::io::stderr().lock(), "{}", text.trim_end()) {
        tracing::trace!("nobody reads the errors: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn a_moment_is_a_date_of_the_calendar() {
        for (ms, expect) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_735_689_599_999, "2024-12-31 23:59:59"),
            (1_795_403_209_000, "2026-11-23 03:06:49"),
        ] {
            assert_eq!(moment(ms), expect);
        }
    }
}
