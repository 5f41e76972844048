//! Where the relay sends nothing, whoever asks: a relay inside a network is a way into it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Debug, Clone, Copy)]
pub(super) struct PeerPolicy {
    pub(super) allow_loopback: bool,
    /// RFC 1918, RFC 6598 (carrier NAT) and RFC 4193.
    pub(super) allow_private: bool,
}

impl PeerPolicy {
    pub(super) fn allows(&self, peer: IpAddr) -> bool {
        match peer {
            IpAddr::V4(ip) => self.allows_v4(ip),
            IpAddr::V6(ip) => self.allows_v6(ip),
        }
    }

    fn allows_v4(&self, ip: Ipv4Addr) -> bool {
        let [a, b, c, _] = ip.octets();
        let is_carrier_nat = a == 100 && (64..128).contains(&b);
        if ip.is_loopback() {
            self.allow_loopback
        } else if ip.is_private() || is_carrier_nat {
            self.allow_private
        } else {
            // 0/8, link-local (cloud metadata lives there), IETF protocol assignments, benchmarks,
            // multicast, reserved and broadcast.
            !(a == 0
                || ip.is_link_local()
                || (a, b, c) == (192, 0, 0)
                || (a == 198 && (18..20).contains(&b))
                || a >= 224)
        }
    }

    fn allows_v6(&self, ip: Ipv6Addr) -> bool {
        if ip.is_loopback() {
            return self.allow_loopback;
        }
        if let Some(inner) = embedded_v4(ip) {
            return self.allows_v4(inner);
        }
        if ip.is_unique_local() {
            return self.allow_private;
        }
        // Deprecated site-local addresses may still be routed inside a network.
        let is_site_local = ip.segments()[0] & 0xFFC0 == 0xFEC0;
        !(ip.is_unspecified() || ip.is_unicast_link_local() || is_site_local || ip.is_multicast())
    }
}

/// The IPv4 address that a translator or tunnel takes out of this one: mapped and compatible
/// addresses, NAT64 (RFC 6052), 6to4 (RFC 3056).
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    let from = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match s {
        [0, 0, 0, 0, 0, 0 | 0xFFFF, high, low] => Some(from(high, low)),
        [0x64, 0xFF9B, 0, 0, 0, 0, high, low] => Some(from(high, low)),
        [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &[&str] = &["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"];
    const PRIVATE: &[&str] = &[
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "fd00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:c0a8:101::1",
    ];
    const NEVER: &[&str] = &[
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "192.0.0.8",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "::ffff:169.254.169.254",
    ];
    const PUBLIC: &[&str] = &["8.8.8.8", "100.63.0.1", "100.128.0.1", "172.32.0.1", "2001:4860::8"];

    #[test]
    fn each_range_opens_by_its_own_setting_only() {
        for (allow_loopback, allow_private) in [(false, false), (true, false), (false, true)] {
            let policy = PeerPolicy { allow_loopback, allow_private };
            let cases = [
                (LOOPBACK, allow_loopback),
                (PRIVATE, allow_private),
                (NEVER, false),
                (PUBLIC, true),
            ];
            for (addresses, expected) in cases {
                for address in addresses {
                    assert_eq!(policy.allows(address.parse().unwrap()), expected, "{address}");
                }
            }
        }
    }
}
