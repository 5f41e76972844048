//! Many allocations at once: how long it takes to set them up, what memory each takes, and whether a
//! packet costs more among thousands than among a few.

use crate::relay::{Load, Traffic, Way};
use crate::rounds::{cpu_us_each, in_turn};
use crate::scale::Scale;
use crate::servers::{self, ServerMin};
use hil_tests::clock;
use hil_tests::figures::Measured;
use hil_tests::report::Report;
use hil_tests::usage::{kernel_kb, memory};
use std::net::SocketAddr;

pub(crate) const NAMES: [&str; 4] =
    ["relay_cpu_5000_vs_64", "rss_per_allocation_kb", "allocations_held", "allocations_setup_s"];

/// A packet of a video stream, one at a time.
const TRAFFIC: Traffic = Traffic { way: Way::ToPeer, size: 1200, burst: 1, whole: false };

pub(crate) async fn measure(scale: &Scale, report: &mut Report) -> Measured {
    let coturn = {
        let server = servers::coturn().await?;
        Held::fill(server.pid(), server.address, scale)?
    };
    let (many, few) = (ServerMin::start("").await?, ServerMin::start("").await?);
    let mut ours = Held::fill(many.pid(), many.turn, scale)?;
    let mut few_load = Load::new(few.turn, scale.few)?;
    let costs = in_turn(scale.rounds, |side| {
        let (pid, load) = match side {
            0 => (many.pid(), &mut ours.load),
            _ => (few.pid(), &mut few_load),
        };
        cpu_us_each(pid, || load.run(TRAFFIC, scale.packets_per_s, scale.window))
    });
    report.result("relay_cpu_5000_vs_64", costs.clone().map(|[many, few]| many / few));
    report.result("relay_cpu_us_5000", costs.clone().map(|[many, _]| many));
    report.result("relay_cpu_us_64", costs.map(|[_, few]| few));
    Ok(vec![
        ("rss_per_allocation_kb", ours.rss_kb_each),
        ("rss_per_allocation_kb_coturn", coturn.rss_kb_each),
        ("kernel_kb_per_allocation", ours.kernel_kb_each),
        ("rss_kb_5000_allocations", ours.rss_kb),
        ("rss_kb_5000_allocations_coturn", coturn.rss_kb),
        ("allocations_held", ours.load.allocations.len() as f64),
        ("allocations_setup_s", ours.setup_s),
        ("allocations_setup_s_coturn", coturn.setup_s),
    ])
}

/// A server full of allocations.
struct Held {
    load: Load,
    setup_s: f64,
    rss_kb: f64,
    rss_kb_each: f64,
    kernel_kb_each: f64,
}

impl Held {
    fn fill(pid: u32, server: SocketAddr, scale: &Scale) -> Result<Held, String> {
        let [some, all] = scale.held;
        let rss_kb = || memory(pid).map(|memory| memory.rss_kb as f64);
        let start = clock::now();
        let mut load = Load::new(server, some)?;
        let (rss_some, kernel_some) = (rss_kb()?, kernel_kb()?);
        load.grow_to(all)?;
        let setup_s = start.elapsed().as_secs_f64();
        let rss_all = rss_kb()?;
        let more = (all - some) as f64;
        Ok(Held {
            load,
            setup_s,
            rss_kb: rss_all,
            rss_kb_each: (rss_all - rss_some) / more,
            // A socket of the relay, and one of its client.
            kernel_kb_each: (kernel_kb()? - kernel_some) / more / 2.0,
        })
    }
}
