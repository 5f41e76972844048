//! Under which addresses clients reach this server: what the configuration says, otherwise the
//! host the request itself was sent to. So a phone that opened the page under the server's LAN
//! address is given that same address for STUN, TURN and MQTT.

use super::server::Via;
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
    /// Of MQTT over WebSocket, where that is not beside the API.
    pub ws_url: Option<String>,
    /// Of the listeners: without TLS, and with it. Of HTTP there is at least one, of MQTT unless the
    /// broker is not ours.
    pub http_port: Option<u16>,
    pub https_port: Option<u16>,
    pub mqtt_port: Option<u16>,
    pub mqtts_port: Option<u16>,
    /// As peers reach the relay, where a NAT stands in front of it.
    pub turn_ip: Option<IpAddr>,
    /// Where our own STUN and TURN listen, by UDP and TCP; nowhere, where all of it is `[turn] external`.
    pub turn: Vec<SocketAddr>,
    /// Where they listen by TLS.
    pub turn_tls: Vec<SocketAddr>,
}

impl PublicAddress {
    /// Addresses for one request: with TLS for who came with it, without for who came without, as
    /// far as there is such a listener. The error says what to change.
    pub fn of_request(&self, headers: &HeaderMap, via: Via) -> Result<Addresses, String> {
        let local = via.local;
        let own_port = if via.is_tls { self.https_port } else { self.http_port };
        let own_port = own_port.unwrap_or(local.port());
        let asked = headers.get(HOST).and_then(|value| value.to_str().ok());
        let own_ip = || bracketed(&canonical(local.ip()).to_string());
        // What URLs with a certificate behind them name, and what all others do.
        let (name, host, port) = match (&self.public_host, asked) {
            (Some(host), _) => (bracketed(host), bracketed(host), Some(own_port)),
            (None, Some(asked)) => {
                let (name, port) =
                    split_authority(asked).ok_or("the Host header is not a host name")?;
                // Listeners may be on IPv4 only while a client resolves localhost to ::1.
                let is_localhost = name.eq_ignore_ascii_case("localhost");
                let host = if is_localhost { own_ip() } else { name.to_owned() };
                (name.to_owned(), host, port)
            }
            (None, None) => (own_ip(), own_ip(), Some(own_port)),
        };
        let url_host = if via.is_tls { &name } else { &host };
        let authority = match port {
            Some(port) => format!("{url_host}:{port}"),
            None => url_host.clone(),
        };
        let ws_url = match (&self.ws_url, &self.http_url) {
            (Some(url), _) => url.clone(),
            (None, Some(site)) => websocket_url(site),
            (None, None) if via.is_tls => format!("wss://{authority}/mqtt"),
            (None, None) => format!("ws://{authority}/mqtt"),
        };
        let mqtt_url = match &self.mqtt_url {
            Some(url) => url.clone(),
            None => self.mqtt_at(url_host, via.is_tls),
        };
        let host = self.turn_host(host);
        let stun = at_listener(&host, &self.turn).unwrap_or_else(|| format!("{host}:3478"));
        // Only what is served is offered: a browser asks all of them at once, prefers UDP's answer,
        // and counts its candidates as complete when the last has answered or failed.
        let mut turn_urls =
            vec![format!("turn:{stun}?transport=udp"), format!("turn:{stun}?transport=tcp")];
        // A certificate names no address.
        if host.trim_matches(['[', ']']).parse::<IpAddr>().is_err()
            && let Some(tls) = at_listener(&host, &self.turn_tls)
        {
            turn_urls.push(format!("turns:{tls}?transport=tcp"));
        }
        Ok(Addresses { stun, turn_urls, mqtt_url, ws_url })
    }
}

impl PublicAddress {
    fn mqtt_at(&self, host: &str, is_tls: bool) -> String {
        match (self.mqtt_port, self.mqtts_port) {
            (plain, Some(port)) if is_tls || plain.is_none() => format!("mqtts://{host}:{port}"),
            (plain, _) => format!("mqtt://{host}:{}", plain.unwrap_or(1883)),
        }
    }

    fn turn_host(&self, host: String) -> String {
        match (&self.public_host, self.turn_ip) {
            (None, Some(ip)) => bracketed(&ip.to_string()),
            _ => host,
        }
    }
}

/// `host:port`, with the port of the listener at this address if there is one, else of the first.
fn at_listener(host: &str, listeners: &[SocketAddr]) -> Option<String> {
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    let same = listeners.iter().find(|listener| Some(listener.ip()) == ip);
    let port = same.or(listeners.first())?.port();
    Some(format!("{host}:{port}"))
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
            ws_url: None,
            http_port: Some(8080),
            https_port: None,
            mqtt_port: Some(1883),
            mqtts_port: None,
            turn_ip: None,
            turn: vec!["127.0.0.1:3478".parse().unwrap(), "192.0.2.7:4000".parse().unwrap()],
            turn_tls: Vec::new(),
        }
    }

    fn of(address: &PublicAddress, host: Option<&str>) -> Result<Addresses, String> {
        over(false, address, host)
    }

    fn over(
        is_tls: bool,
        address: &PublicAddress,
        host: Option<&str>,
    ) -> Result<Addresses, String> {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, host.parse().unwrap());
        }
        let [peer, local] =
            ["127.0.0.1:9", if is_tls { "127.0.0.1:8443" } else { "127.0.0.1:8080" }]
                .map(|text| text.parse().unwrap());
        address.of_request(&headers, Via { peer, local, is_tls })
    }

    #[test]
    fn unset_addresses_follow_the_request() {
        let lan = of(&address(), Some("192.168.1.5:9000")).unwrap();
        assert_eq!(lan.stun, "192.168.1.5:3478");
        let urls = ["udp", "tcp"].map(|t| format!("turn:192.168.1.5:3478?transport={t}"));
        assert_eq!(lan.turn_urls, urls);
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
    fn tls_is_offered_where_there_is_a_name_for_the_certificate() {
        let tls = PublicAddress { turn_tls: vec!["0.0.0.0:443".parse().unwrap()], ..address() };
        let offered = |host: &str| of(&tls, Some(host)).unwrap().turn_urls;
        assert_eq!(offered("cam.example.org")[2..], ["turns:cam.example.org:443?transport=tcp"]);
        for address in ["192.0.2.7", "[2001:db8::1]:8080", "localhost"] {
            assert_eq!(offered(address).len(), 2, "{address}");
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
        let elsewhere = PublicAddress { ws_url: Some("wss://b.example.org/mqtt".into()), ..set };
        assert_eq!(of(&elsewhere, None).unwrap().ws_url, "wss://b.example.org/mqtt");
    }
    #[test]
    fn who_came_with_tls_goes_on_with_it() {
        let both = PublicAddress { https_port: Some(8443), mqtts_port: Some(8883), ..address() };
        let made = over(true, &both, Some("cam.example.org:8443")).unwrap();
        assert_eq!(made.ws_url, "wss://cam.example.org:8443/mqtt");
        assert_eq!(made.mqtt_url, "mqtts://cam.example.org:8883");
        assert_eq!(over(true, &both, None).unwrap().ws_url, "wss://127.0.0.1:8443/mqtt");
        let made = of(&both, Some("cam.example.org")).unwrap();
        assert_eq!(made.ws_url, "ws://cam.example.org/mqtt");
        assert_eq!(made.mqtt_url, "mqtt://cam.example.org:1883");
        let named = PublicAddress { public_host: Some("cam.example.org".into()), ..both.clone() };
        let made = over(true, &named, Some("10.0.0.1:8443")).unwrap();
        assert_eq!(made.ws_url, "wss://cam.example.org:8443/mqtt");
        let made = over(true, &both, Some("localhost:8443")).unwrap();
        assert_eq!(made.ws_url, "wss://localhost:8443/mqtt", "as its certificate says");
        assert_eq!(made.stun, "127.0.0.1:3478");
        // Where there is only one broker listener, that is the one.
        let tls_only = PublicAddress { mqtt_port: None, ..both };
        assert_eq!(of(&tls_only, Some("c")).unwrap().mqtt_url, "mqtts://c:8883");
        assert_eq!(over(true, &address(), Some("c")).unwrap().mqtt_url, "mqtt://c:1883");
    }
}
