//! What a relayed packet costs, in server-min and in coturn, both ways: one packet at a time, each of
//! another allocation, and in bursts of twenty as a camera sends a frame.

use crate::datagrams::{Inbox, bind, receive_in_runs, send_in_runs};
use crate::rounds::{cpu_us_each, evenly, expect_nearly_all, in_turn, settle};
use crate::scale::Scale;
use crate::servers::{self, ServerMin};
use crate::turn::{Allocation, CHANNEL, PEERS, allocate};
use hil_tests::figures::Measured;
use hil_tests::report::Report;
use sdk_core::wire::stun::channel_data::{self, HEADER_LEN};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

pub(crate) const NAMES: [&str; 2] = ["relay_cpu_vs_coturn", "relay_burst_cpu_vs_coturn"];

/// Packets of a video frame.
const BURST: usize = 20;
/// Sent before what arrived is taken, at most: what every socket has room for.
const UNREAD: u64 = 40;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// ChannelData from the client; the bare payload to its peer.
    ToPeer,
    /// The other way round.
    ToClient,
}

/// What goes through the relay.
#[derive(Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) way: Way,
    /// Payload of a packet.
    pub(crate) size: usize,
    pub(crate) burst: usize,
    /// Whether whoever receives takes runs as they are. Then they leave the server as they would by a
    /// network card that cuts them; otherwise the kernel cuts them on the server's processor.
    pub(crate) whole: bool,
}

impl Traffic {
    const fn one(way: Way, size: usize) -> Traffic {
        Traffic { way, size, burst: 1, whole: false }
    }

    const fn burst(way: Way, whole: bool) -> Traffic {
        Traffic { way, size: 1200, burst: BURST, whole }
    }
}

/// Each with its figure, and coturn's.
const ONE_BY_ONE: [(Traffic, [&str; 3]); 4] = [
    (
        Traffic::one(Way::ToPeer, 1200),
        ["relay_cpu_us_1200", "relay_cpu_us_1200_coturn", "relay_cpu_vs_coturn_1200"],
    ),
    (
        Traffic::one(Way::ToPeer, 200),
        ["relay_cpu_us_200", "relay_cpu_us_200_coturn", "relay_cpu_vs_coturn_200"],
    ),
    (
        Traffic::one(Way::ToClient, 1200),
        [
            "relay_cpu_us_1200_to_client",
            "relay_cpu_us_1200_to_client_coturn",
            "relay_cpu_vs_coturn_1200_to_client",
        ],
    ),
    (
        Traffic::one(Way::ToClient, 200),
        [
            "relay_cpu_us_200_to_client",
            "relay_cpu_us_200_to_client_coturn",
            "relay_cpu_vs_coturn_200_to_client",
        ],
    ),
];
const BURSTS: [(Traffic, [&str; 3]); 2] = [
    (
        Traffic::burst(Way::ToPeer, true),
        ["relay_burst_cpu_us", "relay_burst_cpu_us_coturn", "relay_burst_cpu_vs_coturn_to_peer"],
    ),
    (
        Traffic::burst(Way::ToClient, true),
        [
            "relay_burst_cpu_us_to_client",
            "relay_burst_cpu_us_to_client_coturn",
            "relay_burst_cpu_vs_coturn_to_client",
        ],
    ),
];
const CUT: [(Traffic, [&str; 3]); 1] = [(
    Traffic::burst(Way::ToPeer, false),
    ["relay_burst_cpu_us_cut", "relay_burst_cpu_us_cut_coturn", "relay_burst_cpu_vs_coturn_cut"],
)];

const CALM: [(Traffic, [&str; 3]); 1] = [(
    Traffic::one(Way::ToPeer, 1200),
    ["relay_cpu_us_1200_calm", "relay_cpu_us_1200_calm_coturn", "relay_cpu_vs_coturn_1200_calm"],
)];

pub(crate) async fn measure(scale: &Scale, report: &mut Report) -> Measured {
    let (ours, theirs) = (ServerMin::start("").await?, servers::coturn().await?);
    let mut sides = [
        (ours.pid(), Load::new(ours.turn, scale.few)?),
        (theirs.pid(), Load::new(theirs.address, scale.few)?),
    ];
    let mut values = Vec::new();
    // What one kind of traffic did not give is missing by itself; the others stand.
    let mut worst = |cases: &[(Traffic, [&'static str; 3])], per_s| {
        let mut worst = Ok(0.0);
        for (traffic, names) in cases {
            let measured = in_turn(scale.rounds, |side| {
                let (pid, load) = &mut sides[side];
                cpu_us_each(*pid, || load.run(*traffic, per_s, scale.window))
            });
            match measured {
                Ok([cpu_us, cpu_us_coturn]) => {
                    let ratio = cpu_us / cpu_us_coturn;
                    values.extend(names.iter().copied().zip([cpu_us, cpu_us_coturn, ratio]));
                    worst = worst.map(|worst| f64::max(worst, ratio));
                }
                Err(reason) => {
                    let reason = format!("{}: {reason}", names[0]);
                    names.iter().for_each(|name| report.missing(name, &reason));
                    worst = Err(reason);
                }
            }
        }
        worst
    };
    let one_by_one = worst(&ONE_BY_ONE, scale.packets_per_s);
    let bursts = worst(&BURSTS, scale.packets_per_s);
    let _ = worst(&CUT, scale.packets_per_s);
    let _ = worst(&CALM, scale.calm_packets_per_s);
    report.result("relay_cpu_vs_coturn", one_by_one);
    report.result("relay_burst_cpu_vs_coturn", bursts);
    Ok(values)
}

/// Allocations of one server, and the peer of all of them.
pub(crate) struct Load {
    server: SocketAddr,
    pub(crate) allocations: Vec<Allocation>,
    peer: UdpSocket,
    peer_address: SocketAddr,
    inbox: Inbox,
}

impl Load {
    pub(crate) fn new(server: SocketAddr, count: usize) -> Result<Load, String> {
        let peer = bind(PEERS)?;
        let peer_address = peer.local_addr().map_err(|e| e.to_string())?;
        let inbox = Inbox::new();
        let mut load = Load { server, allocations: Vec::new(), peer, peer_address, inbox };
        load.grow_to(count)?;
        Ok(load)
    }

    pub(crate) fn grow_to(&mut self, count: usize) -> Result<(), String> {
        let new = allocate(self.server, self.peer_address, self.allocations.len()..count)?;
        self.allocations.extend(new);
        Ok(())
    }

    /// Sends `per_s` packets a second through the relay, evenly over all allocations; how many came
    /// out at the other end.
    pub(crate) fn run(
        &mut self,
        traffic: Traffic,
        per_s: u32,
        window: Duration,
    ) -> Result<u64, String> {
        let Load { allocations, peer, inbox, .. } = self;
        let Traffic { way, size, burst, whole } = traffic;
        let framed = HEADER_LEN + size;
        let (datagram, segment) = match way {
            Way::ToPeer => {
                ([&channel_data::header(CHANNEL, size as u16)[..], &vec![1; size]].concat(), framed)
            }
            Way::ToClient => (vec![1; size], size),
        };
        let data = datagram.repeat(burst);
        let segment = if burst > 1 { segment } else { 0 };
        match way {
            Way::ToPeer => {
                allocations.iter().try_for_each(|from| send_in_runs(&from.socket, segment))?;
            }
            Way::ToClient => send_in_runs(peer, segment)?,
        }
        receive_in_runs(peer, whole)?;
        allocations.iter().try_for_each(|to| receive_in_runs(&to.socket, whole))?;
        let mut arrived = 0;
        let sends = evenly(per_s / burst as u32, window, |i| {
            let allocation = &allocations[i as usize % allocations.len()];
            let sent = match way {
                Way::ToPeer => {
                    if ((i + 1) * burst as u64).is_multiple_of(UNREAD) {
                        arrived += inbox.drain(peer, size);
                    }
                    allocation.socket.send(&data)
                }
                Way::ToClient => {
                    arrived += inbox.drain(&allocation.socket, framed);
                    peer.send_to(&data, allocation.relayed)
                }
            };
            sent.map(drop).map_err(|e| format!("a packet to the relay: {e}"))
        })?;
        let sent = sends * burst as u64;
        let arrived = settle(sent, arrived, || match way {
            Way::ToPeer => inbox.drain(peer, size),
            Way::ToClient => allocations.iter().map(|to| inbox.drain(&to.socket, framed)).sum(),
        });
        expect_nearly_all("packets", sent, arrived)
    }
}
