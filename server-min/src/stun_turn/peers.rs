//! Where the relay sends nothing, whoever asks: a relay inside a network is a way into it.

use super::config::TurnConfig;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Which peers clients may reach. Looked up once for each permission, never for a packet.
#[derive(Debug, Clone)]
pub(super) struct PeerPolicy {
    denied: Ranges,
    allowed: Ranges,
}

/// Addresses from one to another, both included: `10.0.0.0/8`, `2001:db8::/32`,
/// `192.0.2.1-192.0.2.9`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerRange {
    first: IpAddr,
    last: IpAddr,
}

/// Sorted, and apart from each other.
#[derive(Debug, Clone, Default)]
struct Ranges {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

/// This very machine.
const LOOPBACK: &[&str] = &["127.0.0.0/8", "::1"];
/// RFC 1918, RFC 6598 (carrier NAT) and RFC 4193.
const PRIVATE: &[&str] =
    &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];
/// No host of the internet has such an address.
const NOWHERE: &[&str] = &[
    // "This network"; some systems take 0.0.0.0 for themselves.
    "0.0.0.0/8",
    // Link-local: cloud metadata lives there.
    "169.254.0.0/16",
    // Protocol assignments, documentation, 6to4 relays (RFC 7526), benchmarks.
    "192.0.0.0/24",
    "192.0.2.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    // Multicast, reserved, broadcast.
    "224.0.0.0-255.255.255.255",
    "::",
    // A network's own NAT64 prefix (RFC 8215): what it translates to, only that network knows.
    "64:ff9b:1::/48",
    // Discard-only, benchmarks, documentation, link-local, site-local (deprecated, yet routed inside
    // some networks), multicast.
    "100::/64",
    "2001:2::/48",
    "2001:db8::/32",
    "3fff::/20",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

impl PeerPolicy {
    pub(super) fn new(config: &TurnConfig) -> PeerPolicy {
        let mut denied = config.denied_peers.clone();
        let built_in = [
            (LOOPBACK, config.allow_loopback_peers),
            (PRIVATE, config.allow_private_peers),
            (NOWHERE, false),
        ];
        for (ranges, is_allowed) in built_in {
            if !is_allowed {
                denied.extend(ranges.iter().filter_map(|text| text.parse::<PeerRange>().ok()));
            }
        }
        PeerPolicy { denied: Ranges::of(&denied), allowed: Ranges::of(&config.allowed_peers) }
    }

    /// What is allowed by name wins. An IPv6 address that stands for an IPv4 address is judged as
    /// itself and as that, so that no other way of writing it leads around a range.
    pub(super) fn allows(&self, peer: IpAddr) -> bool {
        if self.allowed.contain(peer) {
            return true;
        }
        if self.denied.contain(peer) {
            return false;
        }
        match peer {
            IpAddr::V4(_) => true,
            IpAddr::V6(ip) => {
                embedded_v4(ip).into_iter().flatten().all(|v4| self.allows(v4.into()))
            }
        }
    }
}

/// The IPv4 addresses that a translator or tunnel takes out of this one.
fn embedded_v4(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let s = ip.segments();
    let from = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None, None],
        // Compatible and mapped (RFC 4291), translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0 | 0xFFFF, high, low]
        | [0, 0, 0, 0, 0xFFFF, 0, high, low]
        | [0x64, 0xFF9B, 0, 0, 0, 0, high, low] => [from(high, low), None],
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => [from(high, low), None],
        // Teredo (RFC 4380): its server, and its client with all bits turned.
        [0x2001, 0, high, low, _, _, client_high, client_low] => {
            [from(high, low), from(!client_high, !client_low)]
        }
        // ISATAP (RFC 5214).
        [_, _, _, _, 0 | 0x200, 0x5EFE, high, low] => [from(high, low), None],
        _ => [None, None],
    }
}

impl Ranges {
    fn of(ranges: &[PeerRange]) -> Ranges {
        let family = |is_v4: bool| {
            let of_family = ranges.iter().filter(|range| range.first.is_ipv4() == is_v4);
            apart(of_family.map(|range| (bits(range.first), bits(range.last))).collect())
        };
        Ranges { v4: family(true), v6: family(false) }
    }

    fn contain(&self, ip: IpAddr) -> bool {
        let ranges = if ip.is_ipv4() { &self.v4 } else { &self.v6 };
        let ip = bits(ip);
        let up_to = ranges.partition_point(|(first, _)| *first <= ip);
        ranges[..up_to].last().is_some_and(|(_, last)| ip <= *last)
    }
}

/// Sorts ranges and joins those that overlap.
fn apart(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= *end => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl FromStr for PeerRange {
    type Err = String;

    fn from_str(text: &str) -> Result<PeerRange, String> {
        parse(text).ok_or_else(|| {
            format!(
                "{text:?} is no range of addresses; expected for example 10.0.0.0/8, 2001:db8::/32, \
                 192.0.2.1-192.0.2.9 or 192.0.2.1"
            )
        })
    }
}

fn parse(text: &str) -> Option<PeerRange> {
    if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        let same_family = IpAddr::is_ipv4(&first) == IpAddr::is_ipv4(&last);
        return (same_family && first <= last).then_some(PeerRange { first, last });
    }
    let (ip, length) = match text.split_once('/') {
        Some((ip, length)) => (ip, Some(length.trim().parse::<u32>().ok()?)),
        None => (text, None),
    };
    let (first, last) = match ip.trim().parse().ok()? {
        IpAddr::V4(ip) => {
            let host = u32::MAX.checked_shr(length.unwrap_or(32)).unwrap_or(0);
            (length.is_none_or(|l| l <= 32)).then_some(())?;
            let (first, last) = (ip.to_bits() & !host, ip.to_bits() | host);
            (Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(last).into())
        }
        IpAddr::V6(ip) => {
            let host = u128::MAX.checked_shr(length.unwrap_or(128)).unwrap_or(0);
            (length.is_none_or(|l| l <= 128)).then_some(())?;
            let (first, last) = (ip.to_bits() & !host, ip.to_bits() | host);
            (Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(last).into())
        }
    };
    Some(PeerRange { first, last })
}

impl fmt::Display for PeerRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl Serialize for PeerRange {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerRange {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<PeerRange, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK_PEERS: &[&str] =
        &["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "2002:7f00:1::"];
    const PRIVATE_PEERS: &[&str] = &[
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "100.127.255.255",
        "fd00::1",
        "::ffff:10.0.0.1",
        "::10.0.0.1",
        "::ffff:0:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:c0a8:101::1",
        // Teredo with a private server, and with the private client 192.168.1.1.
        "2001:0:a00:1:8000:0:b7a1:ffff",
        "2001:0:808:808:8000:0:3f57:fefe",
        "2001:4860::5efe:10.0.0.1",
        "2001:4860::200:5efe:10.0.0.1",
    ];
    const NEVER: &[&str] = &[
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "192.0.0.8",
        "192.0.2.1",
        "198.51.100.255",
        "203.0.113.0",
        "192.88.99.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "64:ff9b:1::808:808",
        "100::1",
        "2001:2::1",
        "2001:db8::1",
        "3fff::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "::ffff:169.254.169.254",
        "64:ff9b::e000:1",
        "2001:0:808:808:8000:0:5601:5601",
    ];
    const PUBLIC: &[&str] = &[
        "8.8.8.8",
        "100.63.0.1",
        "100.128.0.1",
        "172.32.0.1",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:4860::8",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
        "2001:0:808:808:8000:0:f7f7:f7f7",
    ];

    fn ranges(texts: &[&str]) -> Vec<PeerRange> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn allows(policy: &PeerPolicy, peer: &str) -> bool {
        policy.allows(peer.parse().unwrap())
    }

    #[test]
    fn each_range_opens_by_its_own_setting_only() {
        assert!([LOOPBACK, PRIVATE, NOWHERE].concat().iter().all(|r| parse(r).is_some()));
        for (allow_loopback_peers, allow_private_peers) in
            [(false, false), (true, false), (false, true)]
        {
            let config =
                TurnConfig { allow_loopback_peers, allow_private_peers, ..TurnConfig::default() };
            let policy = PeerPolicy::new(&config);
            let cases = [
                (LOOPBACK_PEERS, allow_loopback_peers),
                (PRIVATE_PEERS, allow_private_peers),
                (NEVER, false),
                (PUBLIC, true),
            ];
            for (peers, expected) in cases {
                for peer in peers {
                    assert_eq!(allows(&policy, peer), expected, "{peer}");
                }
            }
        }
    }

    #[test]
    fn what_is_allowed_by_name_wins() {
        let policy = PeerPolicy::new(&TurnConfig {
            denied_peers: ranges(&["8.8.8.0/24", "2001:4860::/32", "10.0.0.0/8"]),
            allowed_peers: ranges(&["8.8.8.8", "10.1.0.0/16", "fe80::5-fe80::7"]),
            allow_private_peers: true,
            ..TurnConfig::default()
        });
        for (peer, expected) in [
            ("8.8.8.7", false),
            ("8.8.8.8", true),
            ("8.8.9.0", true),
            ("::ffff:8.8.8.7", false),
            ("::ffff:8.8.8.8", true),
            ("64:ff9b::808:807", false),
            ("2001:4860::8", false),
            ("10.0.255.255", false),
            ("10.1.0.0", true),
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("192.168.1.1", true),
            ("fe80::4", false),
            ("fe80::5", true),
            ("fe80::7", true),
            ("fe80::8", false),
        ] {
            assert_eq!(allows(&policy, peer), expected, "{peer}");
        }
    }

    #[test]
    fn a_look_up_finds_what_a_search_finds() {
        // Small numbers, so that ranges touch and overlap in every way.
        let mut random = 1u32;
        let mut below = |limit: u32| {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random % limit
        };
        for _ in 0..200 {
            let all: Vec<PeerRange> = (0..below(8))
                .map(|_| {
                    let first = 100 + below(40);
                    let last = first + below(10);
                    PeerRange {
                        first: Ipv4Addr::from_bits(first).into(),
                        last: Ipv4Addr::from_bits(last).into(),
                    }
                })
                .collect();
            let sorted = Ranges::of(&all);
            for ip in 95..160 {
                let ip = IpAddr::from(Ipv4Addr::from_bits(ip));
                let expected = all.iter().any(|r| r.first <= ip && ip <= r.last);
                assert_eq!(sorted.contain(ip), expected, "{ip} in {all:?}");
            }
        }
    }

    #[test]
    fn ranges_are_written_as_operators_write_them() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0-10.255.255.255"),
            ("10.1.2.3/8", "10.0.0.0-10.255.255.255"),
            ("0.0.0.0/0", "0.0.0.0-255.255.255.255"),
            ("192.0.2.1 - 192.0.2.9", "192.0.2.1-192.0.2.9"),
            ("192.0.2.1/32", "192.0.2.1"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::/126", "2001:db8::-2001:db8::3"),
            ("::/0", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("::1", "::1"),
        ] {
            let range: PeerRange = text.parse().unwrap();
            assert_eq!(range.to_string(), expected);
            assert_eq!(range.to_string().parse(), Ok(range));
        }
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "/8",
            "a",
            "10.0.0.2-10.0.0.1",
            "10.0.0.1-::1",
        ] {
            let error = text.parse::<PeerRange>().unwrap_err();
            assert!(error.contains(&format!("{text:?} is no range")), "{error}");
        }
    }
}
