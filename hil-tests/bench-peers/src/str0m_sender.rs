//! A camera on str0m's media API: one thread, one socket for all viewers, who are told apart by
//! their address. str0m gives one datagram at a time; how they are sent is the application's
//! choice, so there are two: each with a call of its own, as str0m's examples do it, and those of
//! one size together (UDP_SEGMENT), as our own camera does it.

use crate::input;
use crate::pictures::Pictures;
use hil_tests::clock;
use hil_tests::lines::Line;
use quinn_udp::{Transmit, UdpSocketState};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::change::SdpOffer;
use str0m::format::Codec;
use str0m::media::{Frequency, MediaTime, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

/// As the camera's largest datagram.
const MTU: usize = 1200;

pub(crate) fn run(clip: &str, in_runs: bool) -> Result<(), String> {
    str0m::crypto::from_feature_flags().install_process_default();
    let mut pictures = Pictures::<Arc<[u8]>>::read(clip)?;
    let mut lines = input::lines();
    let mut sender = Sender::new(in_runs).map_err(|e| e.to_string())?;
    loop {
        loop {
            match lines.try_recv() {
                Ok(Line::Offer { viewer, sdp }) => sender.accept(viewer, &sdp)?,
                Ok(other) => return Err(format!("not for a sender: {other:?}")),
                Err(tokio::sync::mpsc::error::TryRecvError::Empty) => break,
                Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => return Ok(()),
            }
        }
        sender.wait(pictures.due());
        sender.receive()?;
        if clock::now() >= pictures.due() {
            let (picture, timestamp) = pictures.next();
            sender.send(&picture, timestamp)?;
        }
        sender.handle_timeouts()?;
    }
}

struct Sender {
    socket: UdpSocket,
    /// Where runs are sent in one call.
    runs: Option<UdpSocketState>,
    local: SocketAddr,
    viewers: Vec<Viewer>,
    /// Who sent from this address before.
    by_address: HashMap<SocketAddr, usize>,
    buffer: Vec<u8>,
    run: Run,
}

struct Viewer {
    rtc: Rtc,
    deadline: Instant,
    /// Once it is connected: where the pictures go.
    track: Option<(Mid, Pt)>,
}

/// Datagrams of one size, one behind the other; the last may be shorter.
#[derive(Default)]
struct Run {
    destination: Option<SocketAddr>,
    segment: usize,
    bytes: Vec<u8>,
}

impl Sender {
    fn new(in_runs: bool) -> io::Result<Sender> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        let runs = in_runs.then(|| UdpSocketState::new((&socket).into())).transpose()?;
        let local = socket.local_addr()?;
        Ok(Sender {
            socket,
            runs,
            local,
            viewers: Vec::new(),
            by_address: HashMap::new(),
            buffer: vec![0; 2048],
            run: Run::default(),
        })
    }

    fn accept(&mut self, number: usize, sdp: &str) -> Result<(), String> {
        let now = clock::now();
        let mut rtc =
            Rtc::builder().clear_codecs().enable_h264(true).set_mtu(MTU..=usize::MAX).build(now);
        let candidate = Candidate::host(self.local, "udp").map_err(|e| e.to_string())?;
        rtc.add_local_candidate(candidate);
        let offer = SdpOffer::from_sdp_string(sdp).map_err(|e| e.to_string())?;
        let answer = rtc.sdp_api().accept_offer(offer).map_err(|e| e.to_string())?;
        println!("{}", Line::Answer { viewer: number, sdp: answer.to_sdp_string() }.write());
        self.viewers.push(Viewer { rtc, deadline: now, track: None });
        Ok(())
    }

    /// Until a datagram comes, or something is due.
    fn wait(&self, picture: Instant) {
        let due = self.viewers.iter().map(|v| v.deadline).fold(picture, Instant::min);
        let left = due.saturating_duration_since(clock::now());
        let mut poll =
            libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout = libc::timespec {
            tv_sec: left.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(left.subsec_nanos() as i32),
        };
        // SAFETY: the pointers are to locals that outlive the call. Whatever it answers, the
        // caller looks for itself.
        unsafe { libc::ppoll(&raw mut poll, 1, &raw const timeout, std::ptr::null()) };
    }

    fn receive(&mut self) -> Result<(), String> {
        loop {
            let (len, source) = match self.socket.recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // An ICMP error of an earlier send.
                Err(_) => continue,
            };
            let Ok(contents) = self.buffer[..len].try_into() else { continue };
            let (proto, destination) = (Protocol::Udp, self.local);
            let received = Receive { proto, source, destination, contents };
            let input = Input::Receive(clock::now(), received);
            let known = self.by_address.get(&source).copied();
            let Some(at) =
                known.or_else(|| self.viewers.iter().position(|v| v.rtc.accepts(&input)))
            else {
                continue;
            };
            self.by_address.insert(source, at);
            self.viewers[at].rtc.handle_input(input).map_err(|e| e.to_string())?;
            self.flush(at)?;
        }
    }

    fn send(&mut self, picture: &Arc<[u8]>, timestamp: Duration) -> Result<(), String> {
        let rtp_time = MediaTime::from(timestamp).rebase(Frequency::NINETY_KHZ);
        for at in 0..self.viewers.len() {
            let viewer = &mut self.viewers[at];
            if let Some((mid, pt)) = viewer.track {
                let writer = viewer.rtc.writer(mid).ok_or("the track is gone")?;
                writer
                    .write(pt, clock::now(), rtp_time, picture.clone())
                    .map_err(|e| e.to_string())?;
                self.flush(at)?;
            }
        }
        Ok(())
    }

    fn handle_timeouts(&mut self) -> Result<(), String> {
        let now = clock::now();
        for at in 0..self.viewers.len() {
            if self.viewers[at].deadline <= now {
                let viewer = &mut self.viewers[at];
                viewer.rtc.handle_input(Input::Timeout(now)).map_err(|e| e.to_string())?;
                self.flush(at)?;
            }
        }
        Ok(())
    }

    /// Does what a viewer's `Rtc` says until it only wants to be woken again.
    fn flush(&mut self, at: usize) -> Result<(), String> {
        let Sender { socket, runs, viewers, run, .. } = self;
        let viewer = &mut viewers[at];
        loop {
            match viewer.rtc.poll_output().map_err(|e| e.to_string())? {
                Output::Timeout(deadline) => {
                    viewer.deadline = deadline;
                    if let Some(state) = runs {
                        run.send(socket, state);
                    }
                    return Ok(());
                }
                Output::Transmit(transmit) => match runs {
                    // What the kernel has no room for is lost, and the viewers count it.
                    None => drop(socket.send_to(&transmit.contents, transmit.destination)),
                    Some(state) => {
                        run.add(transmit.destination, &transmit.contents, socket, state);
                    }
                },
                Output::Event(Event::MediaAdded(media)) => {
                    let writer = viewer.rtc.writer(media.mid).ok_or("no track for the viewer")?;
                    let pt = writer
                        .payload_params()
                        .find(|p| {
                            let spec = p.spec();
                            spec.codec == Codec::H264 && spec.format.packetization_mode == Some(1)
                        })
                        .ok_or("the viewer takes no H.264 in fragments")?
                        .pt();
                    viewer.track = Some((media.mid, pt));
                }
                Output::Event(_) => {}
            }
        }
    }
}

impl Run {
    fn add(
        &mut self,
        destination: SocketAddr,
        datagram: &[u8],
        socket: &UdpSocket,
        state: &UdpSocketState,
    ) {
        let is_open = self.bytes.len().is_multiple_of(self.segment.max(1));
        let most = state.max_gso_segments() * self.segment;
        let fits = self.destination == Some(destination)
            && is_open
            && datagram.len() <= self.segment
            && self.bytes.len() < most
            && self.bytes.len() + datagram.len() <= 65_000;
        if !fits {
            self.send(socket, state);
            self.destination = Some(destination);
            self.segment = datagram.len();
        }
        self.bytes.extend_from_slice(datagram);
    }

    fn send(&mut self, socket: &UdpSocket, state: &UdpSocketState) {
        if let Some(destination) = self.destination.take() {
            let run = Transmit {
                destination,
                ecn: None,
                contents: &self.bytes,
                segment_size: (self.bytes.len() > self.segment).then_some(self.segment),
                src_ip: None,
            };
            drop(state.try_send(socket.into(), &run));
        }
        self.bytes.clear();
    }
}
