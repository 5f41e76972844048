//! Networks in CIDR notation, and what an address belongs to.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// `10.1.0.0/16`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNetwork);

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        self.0.contains(address)
    }
}

/// Whether an address is in one of them. `::ffff:10.1.2.3` is 10.1.2.3.
pub fn is_in(address: IpAddr, networks: &[Network]) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(address))
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let expected =
            || format!("expected a network such as 10.1.0.0/16 or 2001:db8::/32, got {text:?}");
        let network: IpNetwork = text.parse().map_err(|_| expected())?;
        if network.ip() != network.network() {
            return Err(format!(
                "{text:?} has bits beyond its prefix; expected {}/{}",
                network.network(),
                network.prefix()
            ));
        }
        Ok(Network(network))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Network, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

/// Values by network, the longest prefix first.
pub(super) struct Networks<T>(Vec<(Network, T)>);

impl<T> Networks<T> {
    pub(super) fn new(entries: impl IntoIterator<Item = (Network, T)>) -> Networks<T> {
        let mut entries: Vec<(Network, T)> = entries.into_iter().collect();
        entries.sort_by_key(|(network, _)| std::cmp::Reverse(network.0.prefix()));
        Networks(entries)
    }

    /// What the smallest network that holds this address says. The address is canonical.
    pub(super) fn get(&self, address: IpAddr) -> Option<&T> {
        self.0.iter().find(|(network, _)| network.contains(address)).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_wins() {
        let networks = Networks::new(
            [
                ("0.0.0.0/0", "all"),
                ("10.1.2.0/24", "office"),
                ("10.0.0.0/8", "inside"),
                ("10.1.2.3", "one"),
                ("2001:db8::/32", "v6"),
            ]
            .map(|(text, value)| (network(text), value)),
        );
        for (address, value) in [
            ("10.1.2.3", Some("one")),
            ("10.1.2.4", Some("office")),
            ("10.1.3.4", Some("inside")),
            ("192.0.2.1", Some("all")),
            ("2001:db8:1::1", Some("v6")),
            ("2001:db9::1", None),
        ] {
            assert_eq!(networks.get(address.parse().unwrap()).copied(), value, "{address}");
        }
    }

    #[test]
    fn a_mapped_address_is_the_one_it_maps() {
        let trusted = [network("10.0.0.0/8")];
        assert!(is_in("::ffff:10.1.2.3".parse().unwrap(), &trusted));
        assert!(!is_in("::ffff:11.1.2.3".parse().unwrap(), &trusted));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for (text, says) in [
            ("10.1.0.0/33", "expected a network"),
            ("10.1.0.0/", "expected a network"),
            ("example.org", "expected a network"),
            ("10.1.2.3/16", "10.1.0.0/16"),
            ("2001:db8::1/32", "2001:db8::/32"),
        ] {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
