//! Whether one target is up, decided from what was seen of it. Pure: no clock, no socket.

/// Failed connections in a row that take a target out without waiting for a check.
const CONNECTION_FAILURES: u32 = 3;

/// What was seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// None until the first check.
    up: Option<bool>,
    /// Checks in a row that speak against the present state.
    against: u32,
    connection_failures: u32,
}

/// The state is now another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub up: bool,
    /// Why, in words for the log.
    pub because: String,
    /// Whether nothing was known before.
    pub first: bool,
}

impl Health {
    pub fn is_known(&self) -> bool {
        self.up.is_some()
    }

    /// A check was good or bad. The first one decides alone: a server that has just begun should serve at once.
    pub fn checked(&mut self, good: bool, text: &str, rise: u32, fall: u32) -> Option<Change> {
        let Some(up) = self.up else {
            return Some(self.turn(good, format!("the first check {}", said(good, text)), true));
        };
        if good == up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if good { rise } else { fall };
        (self.against >= needed).then(|| {
            let because = match self.against {
                1 => format!("a check {}", said(good, text)),
                count => format!("{count} checks in a row {}", said(good, text)),
            };
            self.turn(good, because, false)
        })
    }

    /// A request found no connection, or it broke before an answer.
    pub fn connection_failed(&mut self, text: &str) -> Option<Change> {
        self.connection_failures += 1;
        let out = self.up == Some(true) && self.connection_failures >= CONNECTION_FAILURES;
        out.then(|| {
            let because = format!("{CONNECTION_FAILURES} requests in a row failed, the last: {text}");
            self.turn(false, because, false)
        })
    }

    /// A request was answered.
    pub fn connection_worked(&mut self) {
        self.connection_failures = 0;
    }

    fn turn(&mut self, up: bool, because: String, first: bool) -> Change {
        *self = Self { up: Some(up), against: 0, connection_failures: 0 };
        Change { up, because, first }
    }
}

fn said(good: bool, text: &str) -> String {
    if good { format!("was good: {text}") } else { format!("failed: {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up() -> Health {
        let mut health = Health::default();
        assert!(health.checked(true, "answered 200", 2, 3).unwrap().up);
        health
    }

    #[test]
    fn the_first_check_decides() {
        let mut health = Health::default();
        let change = health.checked(false, "answered 500", 2, 3).unwrap();
        assert_eq!((change.up, change.because.as_str()), (false, "the first check failed: answered 500"));
    }

    #[test]
    fn falls_and_rises_after_so_many_in_a_row() {
        let mut health = up();
        assert_eq!(health.checked(false, "x", 2, 3), None);
        assert_eq!(health.checked(false, "x", 2, 3), None);
        assert_eq!(health.checked(true, "x", 2, 3), None, "one good check begins the count again");
        assert_eq!(health.checked(false, "x", 2, 3), None);
        assert_eq!(health.checked(false, "x", 2, 3), None);
        let change = health.checked(false, "x", 2, 3).unwrap();
        assert_eq!(change.because, "3 checks in a row failed: x");
        assert_eq!(health.checked(true, "ok", 2, 3), None);
        assert!(health.checked(true, "ok", 2, 3).unwrap().up);
    }

    #[test]
    fn failed_connections_take_it_out_at_once() {
        let mut health = up();
        assert_eq!(health.connection_failed("refused"), None);
        health.connection_worked();
        assert_eq!(health.connection_failed("refused"), None);
        assert_eq!(health.connection_failed("refused"), None);
        let change = health.connection_failed("refused").unwrap();
        assert_eq!(change.because, "3 requests in a row failed, the last: refused");
        assert_eq!(health.connection_failed("refused"), None);
    }
}
