//! The sockets that relayed addresses stand for.

use super::links::Links;
use super::listeners::bind_udp;
use super::sys::{Epoll, Interest, set_option};
use crate::stun_turn::connections::ConnectionId;
use crate::stun_turn::relays::{Opened, RelayId, RelayPorts};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;

/// What the core's relay ids stand for.
pub(super) struct RelaySockets {
    epoll: Rc<Epoll>,
    sockets: Vec<Option<RelaySocket>>,
    /// The first is added to a relay's id to give what epoll says of it.
    first_token: u64,
    /// Of peers by TCP.
    pub(super) links: Links,
}

pub(super) struct RelaySocket {
    pub(super) socket: UdpSocket,
    pub(super) dont_fragment: bool,
    /// The shard's turn in which it was read last.
    pub(super) read_in: u32,
}

impl RelaySockets {
    pub(super) fn new(epoll: Rc<Epoll>, first_token: u64, links: Links) -> RelaySockets {
        RelaySockets { epoll, sockets: Vec::new(), first_token, links }
    }

    pub(super) fn get(&mut self, id: RelayId) -> Option<&mut RelaySocket> {
        self.sockets.get_mut(id.0 as usize)?.as_mut()
    }
}

impl RelayPorts for RelaySockets {
    fn open(&mut self, id: RelayId, address: SocketAddr) -> Opened {
        let socket = match bind_udp(address, None) {
            Ok(socket) => socket,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Opened::Taken,
            Err(error) => {
                log::warn!("TURN cannot relay from {address}: {error}");
                return Opened::Impossible;
            }
        };
        let token = self.first_token + u64::from(id.0);
        if let Err(error) = self.epoll.add(&socket, token, Interest::Read) {
            log::warn!("TURN cannot watch {address}: {error}");
            return Opened::Impossible;
        }
        let index = id.0 as usize;
        if self.sockets.len() <= index {
            self.sockets.resize_with(index + 1, || None);
        }
        self.sockets[index] = Some(RelaySocket { socket, dont_fragment: false, read_in: 0 });
        Opened::Here
    }

    fn close(&mut self, id: RelayId) {
        if let Some(relay) = self.sockets.get_mut(id.0 as usize) {
            *relay = None;
        }
        self.links.close(id);
    }

    fn listen(&mut self, id: RelayId, address: SocketAddr) -> Opened {
        self.close(id);
        self.links.listen(id, address)
    }

    fn connect(&mut self, id: ConnectionId, from: SocketAddr, peer: SocketAddr) -> bool {
        self.links.connect(id, from, peer)
    }

    fn disconnect(&mut self, id: ConnectionId) {
        self.links.disconnect(id);
    }
}

impl RelaySocket {
    /// RFC 8656 §14: the client finds the path's MTU by it. Over IPv6 only senders fragment.
    pub(super) fn set_dont_fragment(&mut self, on: bool) {
        self.dont_fragment = on;
        let mode = if on { libc::IP_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_DONT };
        if let Err(error) = set_option(&self.socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, mode)
        {
            log::debug!("TURN cannot set Don't Fragment: {error}");
        }
    }
}
