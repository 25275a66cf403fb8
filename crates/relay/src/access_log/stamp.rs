//! Times as logs write them, in UTC, the date made once a second.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The texts of one second.
#[derive(Debug)]
pub(super) struct Stamp {
    second: u64,
    /// `23/Nov/2026:01:50:16`, of Apache's logs and HAProxy's.
    clf: String,
    /// `2026-11-23T01:50:16` (RFC 3339).
    iso: String,
}

impl Default for Stamp {
    fn default() -> Self {
        Self { second: u64::MAX, clf: String::new(), iso: String::new() }
    }
}

impl Stamp {
    /// `23/Nov/2026:01:50:16`, and the milliseconds after it.
    pub(super) fn clf(&mut self, at: SystemTime) -> (&str, u32) {
        let ms = self.turn(at);
        (&self.clf, ms)
    }

    /// `2026-11-23T01:50:16`, and the milliseconds after it.
    pub(super) fn iso(&mut self, at: SystemTime) -> (&str, u32) {
        let ms = self.turn(at);
        (&self.iso, ms)
    }

    fn turn(&mut self, at: SystemTime) -> u32 {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        if since.as_secs() != self.second {
            self.second = since.as_secs();
            let (year, month, day) = civil(self.second / 86_400);
            let (hour, minute, second) = (self.second / 3_600 % 24, self.second / 60 % 60, self.second % 60);
            let name = MONTHS[month as usize - 1];
            self.clf = format!("{day:02}/{name}/{year}:{hour:02}:{minute:02}:{second:02}");
            self.iso = format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        }
        since.subsec_millis()
    }
}

/// Year, month and day of so many days after 1 January 1970. A year is counted from March, so that the day that
/// some years lack is its last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    proptest::proptest! {
        #[test]
        fn dates_are_those_of_http(second in 0u64..253_402_300_800, ms in 0u64..1_000) {
            let at = UNIX_EPOCH + Duration::from_millis(second * 1_000 + ms);
            let mut stamp = Stamp::default();
            let (clf, clf_ms) = stamp.clf(at);
            // Sun, 06 Nov 1994 08:49:37 GMT
            let http = httpdate::fmt_http_date(at);
            let expect = format!("{}/{}/{}:{}", &http[5..7], &http[8..11], &http[12..16], &http[17..25]);
            proptest::prop_assert_eq!((clf, u64::from(clf_ms)), (expect.as_str(), ms));
        }
    }

    #[test]
    fn dates_are_those_of_rfc_3339() {
        let at = UNIX_EPOCH + Duration::from_millis(1_709_210_096_007);
        assert_eq!(Stamp::default().iso(at), ("2024-02-29T12:34:56", 7));
    }
}
