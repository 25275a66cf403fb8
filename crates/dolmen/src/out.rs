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

/// What looks as it should already, on standard error.
pub fn drawn(text: &str) {
    if let Err(error) = writeln!(std::io::stderr().lock(), "{}", text.trim_end()) {
        tracing::trace!("nobody reads the errors: {error}");
    }
}
