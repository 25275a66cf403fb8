//! How many queries came and what became of them.
//!
//! Each thread writes its own counts, so that no two cores ever want the same cache line; they are added up
//! when somebody looks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::answer::{Rcode, Verdict};

const RCODES: [(Rcode, &str); 6] = [
    (Rcode::NoError, "noerror"),
    (Rcode::FormErr, "formerr"),
    (Rcode::NxDomain, "nxdomain"),
    (Rcode::NotImp, "notimp"),
    (Rcode::Refused, "refused"),
    (Rcode::BadVers, "badvers"),
];

/// The counts of one thread.
#[derive(Debug, Default)]
#[repr(align(128))] // two cache lines, since processors fetch them in pairs
pub(crate) struct Counts {
    by_rcode: [AtomicU64; RCODES.len()],
    dropped: AtomicU64,
    truncated: AtomicU64,
    pub(crate) tcp_connections: AtomicU64,
    /// Connections turned away because there were too many.
    pub(crate) tcp_refused: AtomicU64,
    pub(crate) unsent: AtomicU64,
}

impl Counts {
    pub(crate) fn add(&self, verdict: Verdict) {
        let Verdict::Answered { rcode, truncated } = verdict else { return one(&self.dropped) };
        if let Some(place) = RCODES.iter().position(|(known, _)| *known == rcode) {
            one(&self.by_rcode[place]);
        }
        if truncated {
            one(&self.truncated);
        }
    }
}

pub(crate) fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The sum over all threads, by the names that `status --json` shows.
pub(crate) fn total(all: &[Arc<Counts>]) -> BTreeMap<String, u64> {
    let sum = |of: &dyn Fn(&Counts) -> &AtomicU64| {
        all.iter().map(|counts| of(counts).load(Ordering::Relaxed)).sum()
    };
    let mut total: BTreeMap<String, u64> = BTreeMap::new();
    for (place, (_, name)) in RCODES.iter().enumerate() {
        total.insert((*name).to_owned(), sum(&|counts| &counts.by_rcode[place]));
    }
    total.insert("queries".into(), total.values().sum());
    total.insert("dropped".into(), sum(&|counts| &counts.dropped));
    total.insert("truncated".into(), sum(&|counts| &counts.truncated));
    total.insert("tcp_connections".into(), sum(&|counts| &counts.tcp_connections));
    total.insert("tcp_refused".into(), sum(&|counts| &counts.tcp_refused));
    total.insert("unsent".into(), sum(&|counts| &counts.unsent));
    total
}
