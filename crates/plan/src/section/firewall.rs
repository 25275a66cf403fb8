//! `[firewall]`: who may reach ssh and the dashboard. Checked now, served by a later version.

use std::net::IpAddr;

use crate::typed::{Item, Table};

pub(crate) const NOT_SERVED: &str =
    "[firewall] is checked, but this version does not apply it yet: no packet is filtered";

#[derive(Clone, Debug, Default)]
pub(crate) struct FirewallSection;

impl FirewallSection {
    pub(crate) fn read(mut table: Table<'_>) -> FirewallSection {
        if let Some(item) = table.get("admin") {
            for network in item.list("admin = [\"198.51.100.0/24\"]").unwrap_or_default() {
                network.checked(network_of);
            }
            note_empty(&item);
        }
        table.close();
        FirewallSection
    }
}

fn note_empty(item: &Item<'_>) {
    if item.is_empty_list() {
        item.note("`admin` lets nobody in, you neither", Some("name your own network: \"198.51.100.0/24\""));
    }
}

/// An address, or a network in CIDR notation whose host bits are zero.
fn network_of(text: &str) -> Result<(IpAddr, u8), (String, String)> {
    let wrong = || (format!("{text:?} is not a network"), "for example \"198.51.100.0/24\"".to_owned());
    let (address, length) =
        text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let whole: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length: u8 = length.map_or(Ok(whole), str::parse).map_err(|_| wrong())?;
    if length > whole {
        return Err(wrong());
    }
    match masked(address, length) {
        network if network == address => Ok((address, length)),
        network => {
            let message = format!("{text:?} is an address in a network, not a network");
            Err((message, format!("write \"{network}/{length}\" or \"{address}\"")))
        }
    }
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for right in ["198.51.100.0/24", "198.51.100.7", "0.0.0.0/0", "2001:db8::/32", "::/0", "::1"] {
            assert!(network_of(right).is_ok(), "{right}");
        }
        for wrong in ["198.51.100.7/24", "198.51.100.0/33", "2001:db8::/129", "office", "1.2.3.4/", ""] {
            assert!(network_of(wrong).is_err(), "{wrong}");
        }
    }
}
