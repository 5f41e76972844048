//! A camera's and a viewer's data channels in virtual time, with a network between them that delays,
//! loses, doubles and reorders as it is told.

use crate::data_support::{Browser, Random};
use sdk_core::peer::data::{Data, DataEvent, DataTerms};
use std::time::{Duration, Instant};

/// What is left of 1200 bytes.
pub(crate) const MAX_PACKET: usize = 1131;

pub(crate) struct World {
    pub(crate) camera: Data,
    pub(crate) browser: Browser,
    pub(crate) now: Instant,
    pub(crate) network: Network,
    /// What the camera's channels told, without what was released.
    pub(crate) events: Vec<DataEvent>,
    /// By channel and bytes.
    pub(crate) released: Vec<(u16, usize)>,
    /// Packets that each has sent.
    pub(crate) from_camera: Vec<Vec<u8>>,
    pub(crate) from_browser: Vec<Vec<u8>>,
}

pub(crate) struct Network {
    pub(crate) delay: Duration,
    /// Of a thousand.
    pub(crate) loss: u64,
    pub(crate) doubles: u64,
    /// So many arrive later than others that were sent behind them.
    pub(crate) late: u64,
    /// Nothing gets through.
    pub(crate) is_down: bool,
    random: Random,
    on_the_way: Vec<(Instant, bool, Vec<u8>)>,
}

impl Network {
    fn send(&mut self, now: Instant, to_camera: bool, packet: &[u8]) {
        assert!(packet.len() <= MAX_PACKET, "{} bytes", packet.len());
        let copies = if self.random.below(1000) < self.doubles { 2 } else { 1 };
        for _ in 0..copies {
            if self.is_down || self.random.below(1000) < self.loss {
                continue;
            }
            let late = if self.random.below(1000) < self.late { self.random.below(40) } else { 0 };
            let at = now + self.delay + Duration::from_millis(late);
            let place = self.on_the_way.partition_point(|(other, ..)| *other <= at);
            self.on_the_way.insert(place, (at, to_camera, packet.to_vec()));
        }
    }
}

impl World {
    /// Not yet connected.
    #[allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
    pub(crate) fn new(seed: u64) -> World {
        let now = Instant::now();
        let terms = DataTerms { seed: [7, 0, 0, 0, 9, 0, 0, 0], max_packet: MAX_PACKET };
        World {
            camera: Data::new(&terms),
            browser: Browser::new(now, MAX_PACKET),
            now,
            network: Network {
                delay: Duration::from_millis(25),
                loss: 0,
                doubles: 0,
                late: 0,
                is_down: false,
                random: Random::new(seed),
                on_the_way: Vec::new(),
            },
            events: Vec::new(),
            released: Vec::new(),
            from_camera: Vec::new(),
            from_browser: Vec::new(),
        }
    }

    pub(crate) fn connected(seed: u64) -> World {
        let mut world = World::new(seed);
        world.run(Duration::from_millis(300));
        assert!(world.browser.connected);
        assert_eq!(world.take_events(), [DataEvent::Ready]);
        world
    }

    pub(crate) fn take_events(&mut self) -> Vec<DataEvent> {
        std::mem::take(&mut self.events)
    }

    /// The texts that came on a channel of the camera.
    pub(crate) fn texts(&self, id: u16) -> Vec<&str> {
        let of_channel = self.events.iter().filter_map(|event| match event {
            DataEvent::Message { channel, bytes, .. } if *channel == id => Some(bytes),
            _ => None,
        });
        of_channel.map(|bytes| std::str::from_utf8(bytes).unwrap()).collect()
    }

    /// Lets time pass, delivering all that is sent.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.flush();
            let arrival = self.network.on_the_way.first().map(|(at, ..)| *at);
            let timers = [self.camera.poll_timeout(), self.browser.poll_timeout(), arrival];
            let Some(next) = timers.into_iter().flatten().min().filter(|at| *at <= end) else {
                break;
            };
            // A timer that is due stays so only until it has been handled.
            self.now = next.max(self.now + Duration::from_micros(100));
            while let Some((at, ..)) = self.network.on_the_way.first()
                && *at <= self.now
            {
                let (_, to_camera, packet) = self.network.on_the_way.remove(0);
                if to_camera {
                    self.camera.handle_packet(self.now, &packet);
                } else {
                    self.browser.handle_packet(self.now, &packet);
                }
                self.flush();
            }
            self.camera.handle_timeout(self.now);
            self.browser.handle_timeout(self.now);
        }
        self.now = end;
        self.flush();
    }

    /// Until both have nothing more to say, or `most` has passed.
    pub(crate) fn settle(&mut self, most: Duration) -> Duration {
        let start = self.now;
        while self.now < start + most {
            self.run(Duration::from_millis(10));
            let quiet =
                self.camera.poll_timeout().is_none() && self.browser.poll_timeout().is_none();
            if quiet && self.network.on_the_way.is_empty() {
                break;
            }
        }
        self.now - start
    }

    pub(crate) fn flush(&mut self) {
        while let Some(packet) = self.camera.poll_packet(self.now) {
            self.network.send(self.now, false, &packet);
            self.from_camera.push(packet);
        }
        while let Some(packet) = self.browser.poll_packet(self.now) {
            self.network.send(self.now, true, &packet);
            self.from_browser.push(packet.to_vec());
        }
        while let Some(event) = self.camera.poll_event() {
            match event {
                DataEvent::Released { channel, bytes } => self.released.push((channel, bytes)),
                event => self.events.push(event),
            }
        }
    }
}
