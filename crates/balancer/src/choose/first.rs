//! The first server in the order of the file. With connection limits it fills one after the other, so that the last
//! ones may be switched off when there is little to do.

/// One with weight 0 is never chosen.
pub fn first(servers: impl Iterator<Item = (usize, u32)>) -> Option<usize> {
    servers.into_iter().find(|(_, weight)| *weight > 0).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_order_of_the_file() {
        assert_eq!(first([(0, 0), (2, 1), (3, 9)].into_iter()), Some(2));
        assert_eq!(first([(0, 0)].into_iter()), None);
    }
}
