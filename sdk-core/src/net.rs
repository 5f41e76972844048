//! Datagrams and how the agent hands them over: the only words it has for the network.

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
