//! Whose request this is, where a proxy passes it on.

use crate::regions::{Network, is_in};
use hyper::HeaderMap;
use hyper::header::FORWARDED;
use std::net::{IpAddr, SocketAddr};

/// The client's address. What a header says of it counts only as far as each hop is trusted: from the
/// right, which our own proxy wrote, up to the first address that is no proxy of ours. What stands left
/// of it the client may have written itself.
///
/// `X-Forwarded-For` goes before `Forwarded` (RFC 7239), since proxies that write the latter alone are
/// rare; a proxy must remove or extend the one that is there.
pub(super) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_in(peer, trusted) {
        return peer;
    }
    let values = |name: &str| -> Vec<String> {
        let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        texts.flat_map(|text| text.split(',')).map(|hop| hop.trim().to_owned()).collect()
    };
    let mut hops = values("x-forwarded-for");
    if hops.is_empty() {
        let forwarded = values(FORWARDED.as_str());
        hops = forwarded.iter().map(|element| for_of(element).unwrap_or("").to_owned()).collect();
    }
    let mut client = peer;
    for hop in hops.iter().rev() {
        match address(hop) {
            Some(address) if is_in(client, trusted) => client = address,
            _ => break,
        }
    }
    client
}

/// `203.0.113.5` of `for=203.0.113.5;proto=https`.
fn for_of(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// With or without a port, with or without brackets. A name or `unknown` is none.
fn address(hop: &str) -> Option<IpAddr> {
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let address: IpAddr = hop.parse().ok().or_else(with_port).or_else(in_brackets)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8", "2001:db8:ffff::/48"].map(|text| text.parse().unwrap());
        client_address(peer.parse().unwrap(), &map, &trusted).to_string()
    }

    const XFF: &str = "x-forwarded-for";

    #[test]
    fn a_stranger_s_headers_say_nothing() {
        assert_eq!(client("203.0.113.5", &[]), "203.0.113.5");
        assert_eq!(client("203.0.113.5", &[(XFF, "192.0.2.1")]), "203.0.113.5");
        assert_eq!(client("203.0.113.5", &[("forwarded", "for=192.0.2.1")]), "203.0.113.5");
        assert_eq!(client("::ffff:203.0.113.5", &[(XFF, "192.0.2.1")]), "203.0.113.5");
    }

    #[test]
    fn a_proxy_s_word_counts_and_what_its_client_wrote_does_not() {
        let proxy = "10.1.2.3";
        for (header, is) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1, 10.9.9.9", "192.0.2.1"),
            ("198.51.100.66, 192.0.2.1, 10.9.9.9", "192.0.2.1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("2001:db8::5", "2001:db8::5"),
            ("[2001:db8::5]:443", "2001:db8::5"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8::5, 2001:db8:ffff::1", "2001:db8::5"),
            // What cannot be read ends the way back.
            ("192.0.2.1, unknown, 10.9.9.9", "10.9.9.9"),
            ("nonsense", proxy),
            ("", proxy),
            ("10.4.4.4", "10.4.4.4"),
        ] {
            assert_eq!(client(proxy, &[(XFF, header)]), is, "{header:?}");
        }
        assert_eq!(client(proxy, &[]), proxy);
        let several = [(XFF, "198.51.100.66"), (XFF, "192.0.2.1, 10.9.9.9")];
        assert_eq!(client(proxy, &several), "192.0.2.1");
        assert_eq!(client("::ffff:10.1.2.3", &[(XFF, "192.0.2.1")]), "192.0.2.1");
    }

    #[test]
    fn the_standard_s_header_is_read_where_the_other_is_not_there() {
        for (header, is) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("For=\"192.0.2.1:8080\";proto=https;by=10.1.1.1", "192.0.2.1"),
            ("for=198.51.100.66, for=192.0.2.1;proto=http, for=10.9.9.9", "192.0.2.1"),
            ("proto=https; for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=\"[2001:db8:cafe::17]\"", "2001:db8:cafe::17"),
            ("for=_hidden", "10.1.2.3"),
            ("proto=https", "10.1.2.3"),
        ] {
            assert_eq!(client("10.1.2.3", &[("forwarded", header)]), is, "{header:?}");
        }
        let both = [(XFF, "192.0.2.1"), ("forwarded", "for=198.51.100.66")];
        assert_eq!(client("10.1.2.3", &both), "192.0.2.1");
    }
}
