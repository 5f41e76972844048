//! How much of everything: enough to measure, or just enough to see that it works.

use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Rounds of each comparison: A B, A B, … The median counts.
    pub(crate) rounds: usize,
    /// How long one side is measured in a round.
    pub(crate) window: Duration,
    /// Binding requests a second, each of a client of its own.
    pub(crate) stun_per_s: u32,
    /// Relayed packets a second: somewhat less than half of what coturn can do, so that both have
    /// something to do and lose nothing. And on a calm day.
    pub(crate) packets_per_s: u32,
    pub(crate) calm_packets_per_s: u32,
    /// Allocations that carry traffic where their number does not matter.
    pub(crate) few: usize,
    /// Memory is measured between these numbers of allocations.
    pub(crate) held: [usize; 2],
    /// QoS 1 messages a second, and for how long.
    pub(crate) messages_per_s: u32,
    pub(crate) messages_window: Duration,
    pub(crate) connections: usize,
    /// From the last connection until CPU time is measured: a broker's limit for connecting is over.
    pub(crate) settle: Duration,
    pub(crate) starts: usize,
}

impl Scale {
    pub(crate) const FULL: Scale = Scale {
        rounds: 7,
        window: Duration::from_secs(1),
        stun_per_s: 40_000,
        packets_per_s: 50_000,
        calm_packets_per_s: 5000,
        few: 64,
        held: [1000, 5000],
        messages_per_s: 2000,
        messages_window: Duration::from_secs(8),
        connections: 10_000,
        settle: Duration::from_secs(10),
        starts: 10,
    };

    /// Little enough for servers that were built without optimisation, on a machine with other work.
    pub(crate) const QUICK: Scale = Scale {
        rounds: 1,
        window: Duration::from_millis(250),
        stun_per_s: 1000,
        packets_per_s: 1000,
        calm_packets_per_s: 400,
        few: 8,
        held: [20, 60],
        messages_per_s: 200,
        messages_window: Duration::from_millis(500),
        connections: 200,
        settle: Duration::ZERO,
        starts: 2,
    };
}
