//! What a Binding request costs, in server-min and in coturn: at a rate that both keep up with, and
//! how many a second they answer at most.

use crate::datagrams::{Inbox, bind, send_all};
use crate::rounds::{cpu_us_each, evenly, expect_nearly_all, in_turn, settle};
use crate::scale::Scale;
use crate::servers::{self, ServerMin};
use crate::turn::CLIENTS;
use hil_tests::clock;
use hil_tests::figures::Measured;
use hil_tests::usage::cpu_ms;
use sdk_core::wire::stun::attribute::XOR_MAPPED_ADDRESS;
use sdk_core::wire::stun::{Builder, Class, HEADER_LEN, Message, Method, TransactionId};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

pub(crate) const NAMES: [&str; 1] = ["stun_cpu_vs_coturn"];

const CLIENT_COUNT: usize = 64;
/// While the server has all it can do: how many clients ask, so that a call sends many requests, and
/// how many requests each has on their way, few enough for the server's socket to hold.
const BUSY_CLIENTS: usize = 8;
const AHEAD: usize = 16;
/// The largest answer.
const ONE: usize = 1500;

pub(crate) async fn measure(scale: &Scale) -> Measured {
    let (ours, theirs) = (ServerMin::start("").await?, servers::coturn().await?);
    let sides = [(ours.pid(), ours.turn), (theirs.pid(), theirs.address)];
    let clients = [clients(ours.turn)?, clients(theirs.address)?];
    let mut inbox = Inbox::new();
    let [cpu_us, cpu_us_coturn] = in_turn(scale.rounds, |side| {
        cpu_us_each(sides[side].0, || {
            steady(&clients[side], &mut inbox, scale.stun_per_s, scale.window)
        })
    })?;
    let mut busy: [f64; 2] = [1.0; 2];
    let [per_s, per_s_coturn] = in_turn(scale.rounds, |side| {
        let (pid, start) = (sides[side].0, clock::now());
        let before = cpu_ms(pid)?;
        let answered = saturated(&clients[side][..BUSY_CLIENTS], &mut inbox, scale.window)?;
        let seconds = start.elapsed().as_secs_f64();
        busy[side] = busy[side].min((cpu_ms(pid)? - before) / 1000.0 / seconds);
        Ok(answered as f64 / seconds)
    })?;
    Ok(vec![
        ("stun_cpu_us", cpu_us),
        ("stun_cpu_us_coturn", cpu_us_coturn),
        ("stun_cpu_vs_coturn", cpu_us / cpu_us_coturn),
        ("stun_requests_per_s", per_s),
        ("stun_requests_per_s_coturn", per_s_coturn),
        // Less than one: the load was the limit, or the machine.
        ("stun_saturated_cpu_share", busy[0]),
        ("stun_saturated_cpu_share_coturn", busy[1]),
    ])
}

/// Whether someone answers a Binding request with the address it came from.
pub(crate) fn is_answered(server: SocketAddr) -> bool {
    let asked = || {
        let socket = UdpSocket::bind(SocketAddr::from((CLIENTS, 0))).ok()?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).ok()?;
        socket.connect(server).ok()?;
        socket.send(&request(1)).ok()?;
        let mut buffer = [0; ONE];
        let len = socket.recv(&mut buffer).ok()?;
        let answer = Message::parse(&buffer[..len])?;
        let mapped = answer.get_xor_address(XOR_MAPPED_ADDRESS)?;
        (answer.class() == Class::Success && mapped == socket.local_addr().ok()?).then_some(())
    };
    asked().is_some()
}

fn clients(server: SocketAddr) -> Result<Vec<UdpSocket>, String> {
    if !is_answered(server) {
        return Err(format!("{server} does not answer Binding requests"));
    }
    let client = |_| {
        let socket = bind(CLIENTS)?;
        socket.connect(server).map_err(|e| format!("{server}: {e}"))?;
        Ok(socket)
    };
    (0..CLIENT_COUNT).map(client).collect()
}

fn request(number: u64) -> [u8; HEADER_LEN] {
    let mut id = [0; 12];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let mut request = [0; HEADER_LEN];
    // A header alone: it fits.
    let _ = Builder::new(&mut request, Class::Request, Method::BINDING, TransactionId(id)).finish();
    request
}

/// Clients in turn, evenly; how many answers came.
fn steady(
    clients: &[UdpSocket],
    inbox: &mut Inbox,
    per_s: u32,
    window: Duration,
) -> Result<u64, String> {
    let mut answered = 0;
    let sent = evenly(per_s, window, |i| {
        let client = &clients[i as usize % clients.len()];
        answered += inbox.drain(client, ONE);
        client.send(&request(i)).map(drop).map_err(|e| format!("a Binding request: {e}"))
    })?;
    let mut take = || clients.iter().map(|client| inbox.drain(client, ONE)).sum();
    let answered = settle(sent, answered, &mut take);
    expect_nearly_all("Binding requests", sent, answered)
}

/// As many as there are answers for; how many came.
fn saturated(clients: &[UdpSocket], inbox: &mut Inbox, window: Duration) -> Result<u64, String> {
    let start = clock::now();
    let (mut number, mut answered) = (0, 0);
    let mut under_way = vec![0; clients.len()];
    let mut last_answer = start;
    while start.elapsed() < window {
        for (client, under_way) in clients.iter().zip(&mut under_way) {
            let got = inbox.drain(client, ONE);
            answered += got;
            *under_way -= (got as usize).min(*under_way);
            if got > 0 {
                last_answer = clock::now();
            } else if last_answer.elapsed() > Duration::from_millis(20) {
                // Some were lost.
                *under_way = 0;
            }
            let requests: Vec<_> =
                (*under_way..AHEAD).map(|i| request(number + i as u64)).collect();
            number += requests.len() as u64;
            if !requests.is_empty() {
                *under_way +=
                    send_all(client, &requests).map_err(|e| format!("Binding requests: {e}"))?;
            }
        }
    }
    Ok(answered)
}
