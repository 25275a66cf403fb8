//! The server that is least busy for its weight. Those that are equally busy take turns, so that few requests are
//! spread as well as many.

use super::round_robin::RoundRobin;

/// The one of least cost. `cost` is asked once for each server, since what it reads changes meanwhile.
pub fn least(
    turns: &mut RoundRobin,
    servers: impl Iterator<Item = (usize, u32)> + Clone,
    cost: impl Fn(usize, u32) -> f64,
) -> Option<usize> {
    let (mut least, mut equal) = (f64::INFINITY, 0u128);
    for (index, weight) in servers.clone().filter(|(_, weight)| *weight > 0) {
        let cost = cost(index, weight);
        if cost < least {
            (least, equal) = (cost, 1 << index);
        } else if cost == least {
            equal |= 1 << index;
        }
    }
    turns.next(servers.filter(|(index, _)| equal >> index & 1 == 1))
}

/// What [`least`] goes by: requests under way, for each unit of weight.
pub fn busy(outstanding: u32, weight: u32) -> f64 {
    f64::from(outstanding) / f64::from(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idle_ones_take_turns() {
        let mut turns = RoundRobin::new(3);
        let servers = [(0, 1), (1, 1), (2, 1)];
        let outstanding = [0, 7, 0];
        let chosen: Vec<_> = (0..4)
            .filter_map(|_| {
                least(&mut turns, servers.into_iter(), |index, weight| busy(outstanding[index], weight))
            })
            .collect();
        assert_eq!(chosen, [0, 2, 0, 2]);
    }

    proptest::proptest! {
        #[test]
        fn the_chosen_one_is_never_busier_than_another(
            servers in proptest::collection::vec((0u32..50, 1u32..9), 1..20),
        ) {
            let mut turns = RoundRobin::new(servers.len());
            let given = servers.iter().enumerate().map(|(index, (_, weight))| (index, *weight));
            let cost = |index: usize, weight| busy(servers[index].0, weight);
            let chosen = least(&mut turns, given.clone(), cost).unwrap();
            for (index, weight) in given {
                proptest::prop_assert!(cost(chosen, servers[chosen].1) <= cost(index, weight));
            }
        }

        #[test]
        fn requests_that_stay_are_spread_by_weight(weights in proptest::collection::vec(1u32..9, 1..6)) {
            let mut turns = RoundRobin::new(weights.len());
            let mut outstanding = vec![0u32; weights.len()];
            let cycle: u32 = weights.iter().sum();
            for _ in 0..10 * cycle {
                let given = weights.iter().copied().enumerate();
                let chosen = least(&mut turns, given, |index, weight| busy(outstanding[index], weight));
                outstanding[chosen.unwrap()] += 1;
            }
            for (count, weight) in outstanding.iter().zip(&weights) {
                proptest::prop_assert!(count.abs_diff(10 * weight) <= 1, "{:?} {:?}", outstanding, weights);
            }
        }
    }
}
