//! Two servers by lot, and the less busy of them: nearly as even as the least of all, and without the herd that
//! several balancers make when all of them see the same server idle (Mitzenmacher, "The Power of Two Choices in
//! Randomized Load Balancing", 2001).

/// `random`: 64 bits of which each half draws one. `busy`: how busy a server is for its weight.
pub fn random_two(
    servers: impl Iterator<Item = (usize, u32)> + Clone,
    random: u64,
    busy: impl Fn(usize, u32) -> f64,
) -> Option<usize> {
    let one = draw(servers.clone(), random >> 32)?;
    let Some(other) = draw(servers.filter(|(index, _)| *index != one.0), random & 0xffff_ffff) else {
        return Some(one.0);
    };
    Some(if busy(other.0, other.1) < busy(one.0, one.1) { other.0 } else { one.0 })
}

/// One by lot, by weight. `lot` is from 0 to 2^32 - 1.
fn draw(servers: impl Iterator<Item = (usize, u32)> + Clone, lot: u64) -> Option<(usize, u32)> {
    let sum: u64 = servers.clone().map(|(_, weight)| u64::from(weight)).sum();
    let mut place = (lot * sum) >> 32;
    for (index, weight) in servers {
        match place.checked_sub(u64::from(weight)) {
            Some(rest) => place = rest,
            None => return Some((index, weight)),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choose::key::mix;

    #[test]
    fn one_server_or_none() {
        assert_eq!(random_two([(3, 1)].into_iter(), u64::MAX, |_, _| 0.0), Some(3));
        assert_eq!(random_two([(3, 0)].into_iter(), 7, |_, _| 0.0), None);
    }

    proptest::proptest! {
        #[test]
        fn idle_servers_get_their_share(
            weights in proptest::collection::vec(1u32..5, 1..5), seed in proptest::num::u64::ANY,
        ) {
            let mut counts = vec![0u32; weights.len()];
            let all: u32 = weights.iter().sum();
            let draws = 2_000 * all;
            for number in 0..draws {
                let random = mix(seed.wrapping_add(u64::from(number)));
                counts[random_two(weights.iter().copied().enumerate(), random, |_, _| 0.0).unwrap()] += 1;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                let share = 2_000 * weight;
                proptest::prop_assert!(count.abs_diff(share) < share / 5, "{:?} {:?}", counts, weights);
            }
        }

        #[test]
        fn the_busiest_of_all_is_left_alone(count in 2usize..20, random in proptest::num::u64::ANY) {
            let servers = (0..count).map(|index| (index, 1));
            let chosen = random_two(servers, random, |index, _| index as f64).unwrap();
            proptest::prop_assert!(chosen < count - 1);
        }
    }
}
