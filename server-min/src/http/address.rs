//! Under which addresses clients reach this server: what the configuration says, otherwise the
//! host the request itself was sent to. So a phone that opened the page under the server's LAN
//! address is given that same address for STUN, TURN and MQTT.

use crate::session::service::Addresses;
use hyper::HeaderMap;
use hyper::header::HOST;
use std::net::{IpAddr, SocketAddr};

/// What the configuration and the listeners say about our addresses.
#[derive(Debug, Clone)]
pub struct PublicAddress {
    pub public_host: Option<String>,
    pub http_url: Option<String>,
    pub mqtt_url: Option<String>,
    pub http_port: u16,
    pub mqtt_port: u16,
    /// As peers reach the relay, where a NAT stands in front of it.
    pub turn_ip: Option<IpAddr>,
    /// Where our own STUN and TURN listen; nowhere, where all of it is `[turn] external`.
    pub turn: Vec<SocketAddr>,
}

impl PublicAddress {
    /// Addresses for one request that came in over `local`. The error says what to change.
    pub fn of_request(&self, headers: &HeaderMap, local: SocketAddr) -> Result<Addresses, String> {
        let asked = headers.get(HOST).and_then(|value| value.to_str().ok());
        let (host, authority) = match (&self.public_host, asked) {
            (Some(host), _) => {
                let host = bracketed(host);
                let authority = format!("{host}:{}", self.http_port);
                (host, authority)
            }
            (None, Some(asked)) => {
                let (host, port) =
                    split_authority(asked).ok_or("the Host header is not a host name")?;
                // Listeners may be on IPv4 only while a client resolves localhost to ::1.
                let host = if host.eq_ignore_ascii_case("localhost") {
                    bracketed(&canonical(local.ip()).to_string())
                } else {
                    host.to_owned()
                };
                let authority = match port {
                    Some(port) => format!("{host}:{port}"),
                    None => host.clone(),
                };
                (host, authority)
            }
            (None, None) => {
                let host = bracketed(&canonical(local.ip()).to_string());
                let authority = format!("{host}:{}", self.http_port);
                (host, authority)
            }
        };
        let ws_url = match &self.http_url {
            Some(url) => websocket_url(url),
            None => format!("ws://{authority}/mqtt"),
        };
        let mqtt_url = match &self.mqtt_url {
            Some(url) => url.clone(),
            None => format!("mqtt://{host}:{}", self.mqtt_port),
        };
        let stun = self.stun_at(host);
        // Only what is served is offered: a browser that is told of a TCP relay waits for it.
        let turn_urls = vec![format!("turn:{stun}?transport=udp")];
        Ok(Addresses { stun, turn_urls, mqtt_url, ws_url })
    }
}

impl PublicAddress {
    fn stun_at(&self, host: String) -> String {
        let host = match (&self.public_host, self.turn_ip) {
            (None, Some(ip)) => bracketed(&ip.to_string()),
            _ => host,
        };
        let ip = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let same = self.turn.iter().find(|listener| Some(listener.ip()) == ip);
        let port = same.or(self.turn.first()).map_or(3478, SocketAddr::port);
        format!("{host}:{port}")
    }
}

/// Where a browser reaches the broker at a site: https becomes wss, http becomes ws.
pub fn websocket_url(site: &str) -> String {
    format!("ws{}/mqtt", site.trim_start_matches("http").trim_end_matches('/'))
}

/// A host name or an IP address, an IPv6 address with or without brackets; no port.
pub fn is_valid_host(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if let Some(bare) = bare {
        return bare.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.parse::<IpAddr>().is_ok() || is_name(host)
}

fn is_name(host: &str) -> bool {
    (1..=253).contains(&host.len())
        && host.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_'))
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`.
pub fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at_checked(end)?;
    if !is_valid_host(host) {
        return None;
    }
    match rest.strip_prefix(':') {
        Some(port) => Some((host, Some(port.parse().ok()?))),
        None => rest.is_empty().then_some((host, None)),
    }
}

fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

pub fn bracketed(host: &str) -> String {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]"),
        Err(_) => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> PublicAddress {
        PublicAddress {
            public_host: None,
            http_url: None,
            mqtt_url: None,
            http_port: 8080,
            mqtt_port: 1883,
            turn_ip: None,
            turn: vec!["127.0.0.1:3478".parse().unwrap(), "192.0.2.7:4000".parse().unwrap()],
        }
    }

    fn of(address: &PublicAddress, host: Option<&str>) -> Result<Addresses, String> {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, host.parse().unwrap());
        }
        address.of_request(&headers, "127.0.0.1:8080".parse().unwrap())
    }

    #[test]
    fn unset_addresses_follow_the_request() {
        let lan = of(&address(), Some("192.168.1.5:9000")).unwrap();
        assert_eq!(lan.stun, "192.168.1.5:3478");
        assert_eq!(lan.turn_urls, ["turn:192.168.1.5:3478?transport=udp"]);
        assert_eq!(lan.mqtt_url, "mqtt://192.168.1.5:1883");
        assert_eq!(lan.ws_url, "ws://192.168.1.5:9000/mqtt");
        assert_eq!(of(&address(), Some("[::1]:8080")).unwrap().stun, "[::1]:3478");
        assert_eq!(of(&address(), Some("cam.local")).unwrap().ws_url, "ws://cam.local/mqtt");
        assert_eq!(of(&address(), Some("localhost:8080")).unwrap().stun, "127.0.0.1:3478");
        // Each of several listeners has its own port.
        assert_eq!(of(&address(), Some("192.0.2.7")).unwrap().stun, "192.0.2.7:4000");
        let nat = PublicAddress { turn_ip: Some("198.51.100.9".parse().unwrap()), ..address() };
        assert_eq!(of(&nat, Some("192.168.1.5")).unwrap().stun, "198.51.100.9:3478");
        assert_eq!(of(&address(), None).unwrap().ws_url, "ws://127.0.0.1:8080/mqtt");
        for bad in ["", "a b", "a/b", "a:b", "[::1", "[x]", "a:99999", "a\"b", "a@b"] {
            assert!(of(&address(), Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_configuration_goes_before_the_request() {
        let set = PublicAddress {
            public_host: Some("2001:db8::1".into()),
            http_url: Some("https://cam.example.org/".into()),
            mqtt_url: Some("mqtts://mqtt.example.org:8883".into()),
            ..address()
        };
        let made = of(&set, Some("evil.example.com")).unwrap();
        assert_eq!(made.stun, "[2001:db8::1]:3478");
        assert_eq!(made.ws_url, "wss://cam.example.org/mqtt");
        assert_eq!(made.mqtt_url, "mqtts://mqtt.example.org:8883");
    }
}
