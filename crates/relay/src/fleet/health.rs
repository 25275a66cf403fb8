//! Whether one target is up, decided from the checks of it. Pure: no clock, no socket.

/// What was seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// None until the first check.
    up: Option<bool>,
    /// Checks in a row that speak against the present state.
    against: u32,
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
    /// None: nothing is known.
    pub fn up(&self) -> Option<bool> {
        self.up
    }

    pub fn is_known(&self) -> bool {
        self.up.is_some()
    }

    /// A check was good or bad. The first one decides alone: a server that has just begun should serve at once.
    pub fn checked(&mut self, good: bool, text: &str, rise: u32, fall: u32) -> Option<Change> {
        let Some(up) = self.up else {
            return Some(self.turn(good, format!("the first check {}: {text}", said(good)), true));
        };
        if good == up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if good { rise } else { fall };
        (self.against >= needed).then(|| {
            let because = match self.against {
                1 => format!("a check {}: {text}", said(good)),
                count => {
                    format!("{count} checks in a row {}: {text}", if good { "were good" } else { "failed" })
                }
            };
            self.turn(good, because, false)
        })
    }

    /// There is nothing to check.
    pub fn gone(&mut self, because: &str) -> Option<Change> {
        let first = self.up.is_none();
        (self.up != Some(false)).then(|| self.turn(false, because.to_owned(), first))
    }

    fn turn(&mut self, up: bool, because: String, first: bool) -> Change {
        *self = Self { up: Some(up), against: 0 };
        Change { up, because, first }
    }
}

fn said(good: bool) -> &'static str {
    if good { "was good" } else { "failed" }
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
        let change = health.checked(true, "ok", 2, 3).unwrap();
        assert_eq!((change.up, change.because.as_str()), (true, "2 checks in a row were good: ok"));
    }
}
