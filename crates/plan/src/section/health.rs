//! `check`: how a server is asked whether it is well. Part of `[balancer]` and `[web]`.

use crate::meant::Check;
use crate::typed::{Item, Table, Written, or};

/// What our own servers answer without troubling the application.
pub(crate) const OWN_PATH: &str = "/.dolmen/health";
/// What is asked of servers that are not ours.
const FOREIGN_PATH: &str = "/";
const INTERVAL_MS: u64 = 500;
/// A frozen server answers nothing, so this and `fall` say how long it stays in rotation.
const TIMEOUT_MS: u64 = 1_000;
const RISE: u32 = 2;
const FALL: u32 = 2;

const DURATION_MS_MIN: u64 = 10;
const DURATION_MS_MAX: u64 = 3_600_000;
const COUNT_MAX: u64 = 100;

#[derive(Clone, Debug, Default)]
pub(crate) struct CheckKeys {
    path: Option<Written<String>>,
    interval_ms: Option<Written<u64>>,
    timeout_ms: Option<Written<u64>>,
    rise: Option<Written<u64>>,
    fall: Option<Written<u64>>,
}

impl CheckKeys {
    pub(crate) fn read(parent: &mut Table<'_>, title: &str) -> CheckKeys {
        let table = parent.get("check").and_then(|item: Item<'_>| item.table(title));
        let Some(mut table) = table else { return CheckKeys::default() };
        let keys = CheckKeys {
            path: table.get("path").and_then(|item| item.url_path()),
            interval_ms: table.duration_ms("interval", DURATION_MS_MIN, DURATION_MS_MAX),
            timeout_ms: table.duration_ms("timeout", DURATION_MS_MIN, DURATION_MS_MAX),
            rise: table.number("rise", 1, COUNT_MAX),
            fall: table.number("fall", 1, COUNT_MAX),
        };
        table.close();
        keys
    }

    /// `own`: whether the servers that are asked are ours.
    pub(crate) fn mean(&self, own: bool) -> Check {
        let path = if own { OWN_PATH } else { FOREIGN_PATH };
        let count = |written: &Option<Written<u64>>, default| {
            u32::try_from(or(written, u64::from(default))).unwrap_or(default)
        };
        Check {
            path: or(&self.path, path.to_owned()),
            interval_ms: or(&self.interval_ms, INTERVAL_MS),
            timeout_ms: or(&self.timeout_ms, TIMEOUT_MS),
            rise: count(&self.rise, RISE),
            fall: count(&self.fall, FALL),
        }
    }
}
