//! What a viewer's token says about STUN and TURN servers, and which of it can be used.

use crate::wire::token::IceServer;
use std::fmt;

/// A server out of an `iceServers` list (RFC 7064, RFC 7065), not yet resolved.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    pub host: String,
    pub port: u16,
    pub kind: ServerKind,
}

#[derive(Clone, PartialEq, Eq)]
pub enum ServerKind {
    Stun,
    /// TURN over UDP, with long-term credentials.
    Turn {
        username: String,
        credential: String,
    },
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            ServerKind::Stun => "stun",
            ServerKind::Turn { .. } => "turn",
        };
        write!(f, "{scheme}:{}:{}", self.host, self.port)
    }
}

/// At most so many servers are used; a token with more does not cost more.
pub const MAX_SERVERS: usize = 4;
const DEFAULT_PORT: u16 = 3478;

/// Picks the servers this device can use: STUN and TURN over UDP, each address once.
pub fn usable_servers(list: &[IceServer]) -> Vec<Server> {
    let mut servers: Vec<Server> = Vec::new();
    for entry in list {
        for url in &entry.urls {
            if let Some(server) = parse(url, entry)
                && servers.len() < MAX_SERVERS
                && !servers.contains(&server)
            {
                servers.push(server);
            }
        }
    }
    servers
}

fn parse(url: &str, entry: &IceServer) -> Option<Server> {
    let (scheme, rest) = url.split_once(':')?;
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let kind = match scheme {
        "stun" => ServerKind::Stun,
        "turn" if query.is_empty() || query == "transport=udp" => ServerKind::Turn {
            username: entry.username.clone()?,
            credential: entry.credential.clone()?,
        },
        _ => return None,
    };
    let (host, port) = split_host_port(address)?;
    Some(Server { host: host.to_owned(), port, kind })
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_host_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    let port = port.map_or(Some(DEFAULT_PORT), |p| p.parse().ok())?;
    (!host.is_empty() && host.len() <= 253 && port != 0).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(urls: &[&str], credentials: bool) -> IceServer {
        IceServer {
            urls: urls.iter().map(|u| (*u).to_owned()).collect(),
            username: credentials.then(|| "u".into()),
            credential: credentials.then(|| "c".into()),
        }
    }

    #[test]
    fn only_what_this_device_can_reach_is_kept() {
        let servers = usable_servers(&[
            entry(&["stun:a.example"], false),
            entry(
                &[
                    "turn:b.example:3479?transport=udp",
                    "turn:b.example:3479?transport=tcp",
                    "turns:b.example:443?transport=tcp",
                    "turn:b.example:3479",
                ],
                true,
            ),
            entry(&["turn:without.credentials"], false),
        ]);
        let shown: Vec<String> = servers.iter().map(|s| format!("{s:?}")).collect();
        assert_eq!(shown, ["stun:a.example:3478", "turn:b.example:3479"]);
    }

    #[test]
    fn addresses_are_read_and_junk_is_not() {
        let host = |url| parse(url, &entry(&[], false)).map(|s| (s.host, s.port));
        assert_eq!(host("stun:[2001:db8::1]:5"), Some(("2001:db8::1".into(), 5)));
        assert_eq!(host("stun:192.0.2.1"), Some(("192.0.2.1".into(), 3478)));
        for junk in
            ["", "stun", "stun:", "stun:a:b", "stun:a:0", "stun:[::1", "http:a", "stun:a:70000"]
        {
            assert_eq!(host(junk), None, "{junk}");
        }
    }

    #[test]
    fn a_long_list_is_cut() {
        let urls: Vec<String> = (0..50).map(|i| format!("stun:h{i}.example")).collect();
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        assert_eq!(usable_servers(&[entry(&urls, false)]).len(), MAX_SERVERS);
    }
}
