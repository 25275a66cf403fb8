//! Smooth weighted round robin: each server gets its share, and never all of it in a row.
//!
//! At each turn every server gains its weight, the richest is chosen and pays the sum of all weights (the way
//! nginx does it). With weights 5, 1, 1 the order is a a b a c a a.

/// How much each server has gained and not yet spent, by index.
#[derive(Clone, Debug)]
pub struct RoundRobin(Vec<i64>);

impl RoundRobin {
    pub fn new(servers: usize) -> Self {
        Self(vec![0; servers])
    }

    /// What this server has gained and not yet spent.
    pub fn gain(&self, index: usize) -> i64 {
        self.0[index]
    }

    /// Goes on with these gains among servers whose weights may be others now. Nobody ever has more than the sum of all
    /// weights; with more it would be chosen again and again.
    pub fn going_on(gains: impl Iterator<Item = i64>, weights: impl Iterator<Item = u32>) -> Self {
        let sum: i64 = weights.map(i64::from).sum();
        Self(gains.map(|gain| gain.clamp(-sum, sum)).collect())
    }

    /// Chooses among these servers, given with their weights. One with weight 0 is never chosen.
    pub fn next(&mut self, servers: impl Iterator<Item = (usize, u32)>) -> Option<usize> {
        let (mut chosen, mut sum) = (None, 0);
        for (index, weight) in servers.filter(|(_, weight)| *weight > 0) {
            self.0[index] += i64::from(weight);
            sum += i64::from(weight);
            if chosen.is_none_or(|chosen: usize| self.0[index] > self.0[chosen]) {
                chosen = Some(index);
            }
        }
        if let Some(chosen) = chosen {
            self.0[chosen] -= sum;
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[u32], count: usize) -> Vec<usize> {
        let mut turns = RoundRobin::new(weights.len());
        (0..count).filter_map(|_| turns.next(weights.iter().copied().enumerate())).collect()
    }

    #[test]
    fn equal_servers_alternate() {
        assert_eq!(turns(&[1, 1], 6), [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn a_heavy_server_is_spread_out() {
        assert_eq!(turns(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn other_weights_begin_with_no_long_run() {
        let mut before = RoundRobin::new(2);
        before.next([(0, 256), (1, 256)].into_iter());
        let gains = [before.gain(0), before.gain(1)];
        assert_eq!(gains, [-256, 256]);
        let mut turns = RoundRobin::going_on(gains.into_iter(), [1, 1].into_iter());
        let chosen: Vec<_> = (0..6).filter_map(|_| turns.next([(0, 1), (1, 1)].into_iter())).collect();
        assert_eq!(chosen, [1, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn weight_zero_and_no_server() {
        assert_eq!(turns(&[0, 1], 2), [1, 1]);
        assert_eq!(turns(&[0], 2), [0usize; 0]);
    }

    proptest::proptest! {
        #[test]
        fn each_gets_exactly_its_share_of_a_cycle(weights in proptest::collection::vec(1u32..9, 1..6)) {
            let cycle: u32 = weights.iter().sum();
            let turns = turns(&weights, 2 * cycle as usize);
            for (index, weight) in weights.iter().enumerate() {
                let count = turns.iter().filter(|turn| **turn == index).count();
                proptest::prop_assert_eq!(count, 2 * *weight as usize);
            }
        }

        #[test]
        fn nobody_starves_when_servers_come_and_go(
            weights in proptest::collection::vec(1u32..9, 2..6),
            absent in proptest::collection::vec(0usize..6, 0..60),
        ) {
            let mut turns = RoundRobin::new(weights.len());
            for absent in absent {
                let present = weights.iter().copied().enumerate().filter(|(index, _)| *index != absent);
                proptest::prop_assert_ne!(turns.next(present), Some(absent));
            }
            let all: u32 = weights.iter().sum();
            let chosen: Vec<_> =
                (0..20 * all).filter_map(|_| turns.next(weights.iter().copied().enumerate())).collect();
            for index in 0..weights.len() {
                proptest::prop_assert!(chosen.contains(&index));
            }
        }
    }
}
