//! The same server for the same key, by weighted rendezvous hashing: each server draws a number from the key and
//! its own name, and the highest wins (Thaler and Ravishankar 1998; weights as in Schindelhauer and Schomaker 2005).
//!
//! A ring needs hundreds of points for each server to be nearly even, and memory for them; a Maglev table moves some
//! keys of servers that are well. This keeps exact shares, moves only the keys of the server that comes or goes (also
//! when only a weight changes, as in a slow start), and needs no state that threads would share. Its cost grows with
//! the number of servers, of which a fleet has at most 128.

use super::key::{hash, mix};

/// What each server's draw begins with: its name, so that neither the order of the file nor another balancer
/// changes anything.
pub fn seeds<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u64> {
    names.map(|name| hash(name.as_bytes())).collect()
}

/// The server of this key.
pub fn consistent(servers: impl Iterator<Item = (usize, u32)>, seeds: &[u64], key: u64) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    for (index, weight) in servers.filter(|(_, weight)| *weight > 0) {
        let draw = ((mix(key ^ seeds[index]) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let score = draw.ln() / f64::from(weight);
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, index));
        }
    }
    best.map(|(_, index)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 4_000;

    fn named(count: usize) -> Vec<u64> {
        let names: Vec<String> = (0..count).map(|index| format!("10.0.0.{index}:80")).collect();
        seeds(names.iter().map(String::as_str))
    }

    fn owners(weights: &[u32], seeds: &[u64]) -> Vec<usize> {
        (0..KEYS)
            .map(|key| consistent(weights.iter().copied().enumerate(), seeds, mix(key)).unwrap())
            .collect()
    }

    proptest::proptest! {
        #[test]
        fn shares_follow_the_weights(weights in proptest::collection::vec(1u32..5, 1..6)) {
            let owners = owners(&weights, &named(weights.len()));
            let sum: u32 = weights.iter().sum();
            for (index, weight) in weights.iter().enumerate() {
                let count = owners.iter().filter(|owner| **owner == index).count() as f64;
                let share = KEYS as f64 * f64::from(*weight) / f64::from(sum);
                proptest::prop_assert!((count - share).abs() < 0.2 * share + 30.0, "{} {}", count, share);
            }
        }

        #[test]
        fn the_loss_of_one_moves_only_its_own(
            weights in proptest::collection::vec(1u32..5, 2..9), lost in proptest::prelude::any::<proptest::sample::Index>(),
        ) {
            let (seeds, lost) = (named(weights.len()), lost.index(weights.len()));
            let before = owners(&weights, &seeds);
            let mut fewer = weights.clone();
            fewer[lost] = 0;
            for (old, new) in before.iter().zip(owners(&fewer, &seeds)) {
                proptest::prop_assert!(*old == new || *old == lost);
            }
        }

        #[test]
        fn more_weight_takes_and_gives_nothing_between_others(
            weights in proptest::collection::vec(1u32..5, 2..9), more in proptest::prelude::any::<proptest::sample::Index>(),
        ) {
            let (seeds, more) = (named(weights.len()), more.index(weights.len()));
            let before = owners(&weights, &seeds);
            let mut heavier = weights.clone();
            heavier[more] *= 2;
            for (old, new) in before.iter().zip(owners(&heavier, &seeds)) {
                proptest::prop_assert!(*old == new || new == more);
            }
        }
    }
}
