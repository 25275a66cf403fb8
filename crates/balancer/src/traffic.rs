//! What is published of the pools and their servers.

use link::report::{PoolTraffic, SERVERS, ServerTraffic, TrafficCounts, TrafficTimes};
use relay::{Meter, Metered};

use crate::pool::{Pool, Pools};

/// As it is now.
pub(crate) fn report(pools: &Pools) -> Vec<PoolTraffic> {
    let mut room = SERVERS;
    let mut traffic = Vec::new();
    for pool in pools.iter() {
        let servers: Vec<_> = (0..pool.fleet.len().min(room)).map(|index| server(pool, index)).collect();
        room -= servers.len();
        traffic.push(PoolTraffic {
            name: pool.name.clone(),
            queue: pool.chooser.queue.waiting(),
            counts: counts(&pool.meter),
            servers_left_out: pool.fleet.len() - servers.len(),
            servers,
        });
    }
    traffic
}

fn server(pool: &Pool, index: usize) -> ServerTraffic {
    let target = pool.fleet.target(index);
    ServerTraffic {
        name: target.name.clone(),
        address: (!pool.fleet.is_vacant(index)).then(|| pool.fleet.way(index).target.to_string()),
        up: pool.fleet.is_up(index),
        changes: pool.fleet.changes_of(index),
        under_way: pool.chooser.outstanding(index),
        counts: counts(&pool.meters[index]),
    }
}

fn counts(meter: &Meter) -> TrafficCounts {
    let Metered { requests, retries, answers, causes, bytes_in, bytes_out, times } = meter.read();
    let answers = answers.into_iter().enumerate().skip(1).filter(|(_, count)| *count > 0);
    TrafficCounts {
        requests,
        retries,
        answers: answers.map(|(class, count)| (format!("{class}xx"), count)).collect(),
        ended: causes.into_iter().map(|(cause, count)| (cause.name().to_owned(), count)).collect(),
        bytes_in,
        bytes_out,
        times: TrafficTimes { count: times.count, sum_us: times.sum_us, buckets: times.buckets },
    }
}
