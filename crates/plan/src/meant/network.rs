//! A network: an address and how many of its bits count.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its other bits are zero.
    pub address: IpAddr,
    pub bits: u8,
}

impl Network {
    /// An IPv4 address that came over an IPv6 socket is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.bits) == self.address
    }
}

/// The address with all bits zero but the first `bits`.
pub fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits.into())).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits.into())).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_network() {
        let network = |address: &str, bits| Network { address: address.parse().unwrap(), bits };
        let is_in = |network: Network, address: &str| network.contains(address.parse().unwrap());
        assert!(is_in(network("10.0.0.0", 8), "10.255.0.1") && !is_in(network("10.0.0.0", 8), "11.0.0.1"));
        assert!(is_in(network("10.0.0.1", 32), "::ffff:10.0.0.1"));
        assert!(is_in(network("0.0.0.0", 0), "1.2.3.4") && !is_in(network("0.0.0.0", 0), "::1"));
        assert!(is_in(network("2001:db8::", 32), "2001:db8:1::1") && is_in(network("::", 0), "::1"));
    }
}
