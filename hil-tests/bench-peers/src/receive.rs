//! Viewers that decode nothing: ICE, DTLS, SRTP and the feedback a browser gives, by str0m in RTP
//! mode, which takes a tenth of what the webrtc crate would.
//!
//! Each has a socket of its own, as viewers do, that takes runs of datagrams whole (UDP_GRO): on
//! loopback a viewer's part of the kernel runs in the sender's time, and so there is least of it.

use crate::input;
use hil_tests::clock;
use hil_tests::lines::{Counts, Line};
use quinn_udp::{RecvMeta, UdpSocketState};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::time::Instant;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

type Shared = Rc<RefCell<Vec<Counter>>>;

pub(crate) fn run() -> Result<(), String> {
    str0m::crypto::from_feature_flags().install_process_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    tokio::task::LocalSet::new().block_on(&runtime, listen())
}

async fn listen() -> Result<(), String> {
    let counters = Shared::default();
    let mut answers: HashMap<usize, mpsc::UnboundedSender<String>> = HashMap::new();
    let mut lines = input::lines();
    while let Some(line) = lines.recv().await {
        match line {
            Line::Open { viewer } => {
                let (sender, receiver) = mpsc::unbounded_channel();
                answers.insert(viewer, sender);
                counters.borrow_mut().resize_with(answers.len(), Counter::default);
                let watcher = Viewer::open(viewer, counters.clone()).await?;
                tokio::task::spawn_local(async move {
                    if let Err(e) = watcher.watch(receiver).await {
                        eprintln!("viewer {viewer}: {e}");
                    }
                });
            }
            Line::Answer { viewer, sdp } => {
                let answer = answers.get(&viewer).ok_or("an answer to a viewer not opened")?;
                // A viewer that failed has said so.
                let _ = answer.send(sdp);
            }
            Line::Count { id } => {
                let viewers = counters.borrow().iter().map(|c| c.counts).collect();
                println!("{}", Line::Counts { id, viewers }.write());
            }
            other => return Err(format!("not for viewers: {other:?}")),
        }
    }
    Ok(())
}

struct Viewer {
    number: usize,
    rtc: Rtc,
    socket: UdpSocket,
    pending: Option<SdpPendingOffer>,
    counters: Shared,
}

impl Viewer {
    async fn open(number: usize, counters: Shared) -> Result<Viewer, String> {
        let text = |e: io::Error| format!("viewer {number}: {e}");
        let socket = UdpSocket::bind("127.0.0.1:0").await.map_err(text)?;
        allow_waiting(&socket);
        let addr = socket.local_addr().map_err(text)?;
        let mut rtc =
            Rtc::builder().set_rtp_mode(true).clear_codecs().enable_h264(true).build(clock::now());
        rtc.add_local_candidate(Candidate::host(addr, "udp").map_err(|e| e.to_string())?);
        let mut changes = rtc.sdp_api();
        changes.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        let (offer, pending) = changes.apply().ok_or("nothing to offer")?;
        println!("{}", Line::Offer { viewer: number, sdp: offer.to_sdp_string() }.write());
        Ok(Viewer { number, rtc, socket, pending: Some(pending), counters })
    }

    async fn watch(mut self, mut answers: mpsc::UnboundedReceiver<String>) -> Result<(), String> {
        let text = |e: io::Error| e.to_string();
        let local = self.socket.local_addr().map_err(text)?;
        let state = UdpSocketState::new((&self.socket).into()).map_err(text)?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let deadline = self.flush().await?;
            let mut meta = [RecvMeta::default()];
            let received = self.socket.try_io(Interest::READABLE, || {
                let mut buffers = [IoSliceMut::new(&mut buffer)];
                state.recv((&self.socket).into(), &mut buffers, &mut meta)
            });
            let [meta] = meta;
            if received.is_ok() {
                for contents in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    let Ok(contents) = contents.try_into() else { continue };
                    let (proto, source, destination) = (Protocol::Udp, meta.addr, local);
                    let datagram = Receive { proto, source, destination, contents };
                    self.handle(Input::Receive(clock::now(), datagram))?;
                    self.flush().await?;
                }
                continue;
            }
            tokio::select! {
                ready = self.socket.readable() => ready.map_err(text)?,
                () = tokio::time::sleep_until(deadline.into()) => {
                    self.handle(Input::Timeout(clock::now()))?;
                }
                Some(sdp) = answers.recv() => {
                    self.on_answer(&sdp)?;
                    self.handle(Input::Timeout(clock::now()))?;
                }
            }
        }
    }

    fn handle(&mut self, input: Input<'_>) -> Result<(), String> {
        self.rtc.handle_input(input).map_err(|e| e.to_string())
    }

    /// Does what str0m says, until it only wants to be woken again.
    async fn flush(&mut self) -> Result<Instant, String> {
        loop {
            match self.rtc.poll_output().map_err(|e| e.to_string())? {
                Output::Timeout(at) => return Ok(at),
                Output::Transmit(transmit) => {
                    // A sender that has gone is noticed by its silence.
                    let _ = self.socket.send_to(&transmit.contents, transmit.destination).await;
                }
                Output::Event(event) => self.on_event(event),
            }
        }
    }

    fn on_answer(&mut self, sdp: &str) -> Result<(), String> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        let answer = SdpAnswer::from_sdp_string(sdp).map_err(|e| format!("{e}\n{sdp}"))?;
        self.rtc.sdp_api().accept_answer(pending, answer).map_err(|e| format!("{e}\n{sdp}"))
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected => println!("{}", Line::Connected { viewer: self.number }.write()),
            Event::RtpPacket(packet) => {
                let mut counters = self.counters.borrow_mut();
                if let Some(counter) = counters.get_mut(self.number) {
                    counter.on_packet(*packet.seq_no, packet.header.marker, packet.payload.len());
                }
            }
            _ => {}
        }
    }
}

/// Room for what comes while this process cannot look, where the system lets us have it: a hundred
/// keyframes at once are a lot for one processor. Root may have more than the system's limit.
fn allow_waiting(socket: &UdpSocket) {
    for option in [libc::SO_RCVBUF, libc::SO_RCVBUFFORCE] {
        let bytes: libc::c_int = 4 << 20;
        // SAFETY: the pointer is to a local of the size that is given. What is refused is counted
        // as missing if it mattered.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const bytes).cast(),
                size_of_val(&bytes) as libc::socklen_t,
            );
        }
    }
}

#[derive(Default)]
struct Counter {
    counts: Counts,
    next: Option<u64>,
    /// A packet of the frame that is being received did not come in its turn.
    torn: bool,
}

impl Counter {
    fn on_packet(&mut self, sequence: u64, marker: bool, len: usize) {
        // What was lost and comes again makes no whole frame: nothing is put in order here.
        let next = self.next.unwrap_or(sequence);
        self.counts.packets += 1;
        self.counts.bytes += len as u64;
        self.counts.missing += sequence.saturating_sub(next);
        self.torn |= sequence != next;
        if sequence < next {
            return;
        }
        self.next = Some(sequence + 1);
        if marker {
            self.counts.frames += u64::from(!self.torn);
            self.torn = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_frames_without_a_gap_are_counted() {
        let mut counter = Counter::default();
        let packets = [(5, true), (6, false), (7, true), (8, false), (10, true), (11, true)];
        for (sequence, marker) in packets {
            counter.on_packet(sequence, marker, 100);
        }
        let Counts { packets, frames, missing, .. } = counter.counts;
        assert_eq!((packets, frames, missing), (6, 3, 1));
    }
}
