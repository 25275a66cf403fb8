//! `[network]`: whether what machines say to each other is encrypted. And networks, `"10.0.0.0/8"` or one address, which are
//! a part of `[balancer]` and `[firewall]`.

use std::net::IpAddr;

use crate::meant::{Network, Place, masked};
use crate::typed::{Item, Table, Written};

pub(crate) const NOT_ENCRYPTED: &str = "queries and what replicas follow go from machine to machine without encryption yet: \
                                        join the machines by a private network";

#[derive(Clone, Debug, Default)]
pub(crate) struct NetworkSection {
    encrypt: Option<Written<bool>>,
}

impl NetworkSection {
    pub(crate) fn read(mut table: Table<'_>) -> NetworkSection {
        let section = NetworkSection { encrypt: table.get("encrypt").and_then(|item| item.boolean()) };
        table.close();
        section
    }
}

/// Unless the file says otherwise; on `up` nothing leaves the computer.
pub(crate) fn is_encrypted(section: Option<&NetworkSection>, machines: usize, place: Place) -> bool {
    let wanted = section.and_then(|section| section.encrypt.as_ref()).is_none_or(|encrypt| encrypt.value);
    wanted && machines > 1 && place == Place::Machines
}

const NETWORKS_MAX: usize = 1_000;

/// A list of them.
pub(crate) fn networks(item: &Item<'_>) -> Vec<Network> {
    let items = item.list(&format!("{} = [\"198.51.100.0/24\"]", item.name)).unwrap_or_default();
    if items.len() > NETWORKS_MAX {
        item.note(format!("`{}` names more than {NETWORKS_MAX} networks", item.name), None);
    }
    items.iter().take(NETWORKS_MAX).filter_map(|item| Some(item.checked(network)?.value)).collect()
}

/// An address, or a network in CIDR notation whose host bits are zero.
fn network(text: &str) -> Result<Network, (String, String)> {
    let wrong = || (format!("{text:?} is not a network"), "for example \"198.51.100.0/24\"".to_owned());
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let whole: u8 = if address.is_ipv4() { 32 } else { 128 };
    let bits: u8 = bits.map_or(Ok(whole), str::parse).map_err(|_| wrong())?;
    if bits > whole {
        return Err(wrong());
    }
    match masked(address, bits) {
        network if network == address => Ok(Network { address, bits }),
        network => {
            let message = format!("{text:?} is an address in a network, not a network");
            Err((message, format!("write \"{network}/{bits}\" or \"{address}\"")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for right in ["198.51.100.0/24", "198.51.100.7", "0.0.0.0/0", "2001:db8::/32", "::/0", "::1"] {
            assert!(network(right).is_ok(), "{right}");
        }
        for wrong in ["198.51.100.7/24", "198.51.100.0/33", "2001:db8::/129", "office", "1.2.3.4/", ""] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }
}
