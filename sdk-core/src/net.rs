//! Datagrams and how the agent hands them over: the only words it has for the network.

use std::collections::VecDeque;
use std::net::SocketAddr;

/// Names one of the driver's UDP sockets.
///
/// A viewer has one socket for each local address it may use, so that the socket alone tells whose
/// datagram it is, and each TURN allocation has a 5-tuple of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// A datagram received. The data may be changed in place (SRTCP is opened where it lies).
#[derive(Debug)]
pub struct Datagram<'a> {
    pub socket: SocketId,
    pub source: SocketAddr,
    pub data: &'a mut [u8],
}

/// Where a run of datagrams goes. Their bytes lie one behind the other, and all have
/// `segment_size` bytes but the last, which may be shorter: the shape that UDP_SEGMENT sends with
/// one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    pub socket: SocketId,
    pub destination: SocketAddr,
    /// Size of each datagram in bytes; that of the whole for a single one.
    pub segment_size: usize,
}

/// Control datagrams on their way out: few, small, and each to a place of its own. They lie one behind
/// the other in a buffer that is used again and again, so that in steady state nothing is allocated.
#[derive(Debug, Default)]
pub struct ControlQueue {
    bytes: Vec<u8>,
    /// Where each begins, and where it goes.
    waiting: VecDeque<(usize, Transmit)>,
}

impl ControlQueue {
    /// Whoever takes them takes all at every turn, so this is reached only when something is wrong.
    const CAPACITY: usize = 256;
    /// What the buffer may keep: a handshake needs more, but only once.
    const KEPT_BYTES: usize = 1024;

    /// Adds one. A full queue drops it, as a full network would.
    pub fn push(&mut self, socket: SocketId, destination: SocketAddr, data: &[u8]) {
        if self.waiting.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(Self::KEPT_BYTES);
        }
        if self.waiting.len() < Self::CAPACITY {
            let transmit = Transmit { socket, destination, segment_size: data.len() };
            self.waiting.push_back((self.bytes.len(), transmit));
            self.bytes.extend_from_slice(data);
        }
    }

    pub fn pop(&mut self) -> Option<(Transmit, &[u8])> {
        let (start, transmit) = self.waiting.pop_front()?;
        Some((transmit, self.bytes.get(start..start + transmit.segment_size)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_datagrams_come_out_as_they_went_in_up_to_a_bound() {
        let mut queue = ControlQueue::default();
        for round in 0..3 {
            let sent: Vec<(u32, Vec<u8>)> =
                (0..300).map(|n| (n, vec![n as u8; (n as usize * 7) % 90 + round])).collect();
            for (n, data) in &sent {
                queue.push(SocketId(*n), ([192, 0, 2, 1], *n as u16).into(), data);
            }
            for (n, data) in &sent[..ControlQueue::CAPACITY] {
                let destination = ([192, 0, 2, 1], *n as u16).into();
                let transmit =
                    Transmit { socket: SocketId(*n), destination, segment_size: data.len() };
                assert_eq!(queue.pop(), Some((transmit, &data[..])));
            }
            assert_eq!(queue.pop(), None);
        }
        queue.push(SocketId(1), ([192, 0, 2, 1], 1).into(), &[1]);
        assert!(queue.bytes.capacity() <= 2 * ControlQueue::KEPT_BYTES, "it shrinks again");
    }
}
