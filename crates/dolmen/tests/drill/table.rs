//! What the drill saw, line by line.

use std::fmt;
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub struct Row {
    pub fault: &'static str,
    pub what: &'static str,
    pub outage: Duration,
    pub from: String,
    pub to: String,
    pub acknowledged: usize,
    /// Seen by clients on machines that were not struck.
    pub errors: usize,
    /// From the last step until everything was as before.
    pub rejoin: Duration,
    pub lost: usize,
}

#[derive(Debug)]
pub struct Table {
    began: Instant,
    rows: Vec<Row>,
}

impl Default for Table {
    fn default() -> Self {
        Self { began: Instant::now(), rows: Vec::new() }
    }
}

impl Table {
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub fn began(&self) -> Instant {
        self.began
    }

    pub fn last(&self) -> String {
        self.rows.last().map(ToString::to_string).unwrap_or_default()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<4} {:<52} {:>7.2} s {:>7.1} s {:>7} {:>7} {:>5}  {} -> {}",
            self.fault,
            self.what,
            self.outage.as_secs_f32(),
            self.rejoin.as_secs_f32(),
            self.acknowledged,
            self.errors,
            self.lost,
            self.from,
            self.to
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<57} {:>9} {:>9} {:>7} {:>7} {:>5}  primary",
            "fault", "outage", "rejoin", "writes", "errors", "lost"
        )?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}
