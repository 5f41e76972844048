//! Recordings as streams: paused, wound back and on, at another pace. Viewers see one stream.

use crate::viewer::{FakeViewer, GCM_AND_CM};
use crate::world::World;
use crate::{delta, depacketise, idr};
use sdk_core::event::Event;
use std::time::Duration;

const FRAME: Duration = Duration::from_millis(40);

/// Plays frames one by one, a second of them behind each keyframe, and knows what a viewer's packets
/// say.
struct Player {
    world: World,
    pushed: u8,
}

impl Player {
    fn new() -> Player {
        let mut world = World::new(|_| ());
        world.push_frame(&idr(500, 0), Duration::from_secs(100));
        world.join(FakeViewer::new("198.51.100.1:5000", GCM_AND_CM), 1);
        world.run(Duration::from_secs(1));
        Player { world, pushed: 1 }
    }

    fn push(&mut self, keyframe: bool, timestamp: Duration) {
        let frame = if keyframe { idr(500, self.pushed) } else { delta(200, self.pushed) };
        self.pushed += 1;
        self.world.push_frame(&frame, timestamp);
        self.world.run(FRAME);
    }

    /// Plays so many frames of the recording from a keyframe on.
    fn play(&mut self, from: Duration, frames: u32) {
        for n in 0..frames {
            self.push(n == 0, from + FRAME * n);
        }
    }

    /// From picture to picture, in milliseconds.
    fn steps(&self) -> Vec<u32> {
        let packets = &self.world.viewers[0].packets;
        let mut times: Vec<u32> = packets.iter().map(|packet| packet.timestamp).collect();
        times.dedup();
        times.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]) / 90).collect()
    }
}

#[test]
fn winding_a_recording_does_not_break_a_viewer() {
    let mut player = Player::new();
    player.play(Duration::from_secs(101), 10);
    player.play(Duration::from_secs(3), 10);
    player.play(Duration::from_secs(5000), 10);
    let steps = player.steps();
    assert_eq!(steps.len(), 30);
    // As long as it took to play, whatever the recording's clock says.
    assert!(steps[1..].iter().all(|step| (39..=41).contains(step)), "{steps:?}");
    let keyframes =
        player.world.viewers[0].packets.iter().filter(|p| p.payload.len() > 400).count();
    assert!(keyframes >= 4);
}

#[test]
fn a_recording_that_is_wound_to_the_middle_of_a_group_waits_for_its_keyframe() {
    let mut player = Player::new();
    player.play(Duration::from_secs(101), 15);
    let before = depacketise(&player.world.viewers[0].packets).len();
    player.world.events.clear();
    // No keyframe behind the jump: these pictures refer to some that this viewer never had.
    for n in 0..5 {
        player.push(false, Duration::from_secs(7) + FRAME * n);
    }
    assert_eq!(depacketise(&player.world.viewers[0].packets).len(), before);
    let asked = |event: &&Event| matches!(event, Event::KeyframeRequest { .. });
    assert_eq!(player.world.events.iter().filter(asked).count(), 1);
    player.play(Duration::from_secs(7) + FRAME * 5, 5);
    assert_eq!(depacketise(&player.world.viewers[0].packets).len(), before + 7);
}

#[test]
fn a_pause_is_a_pause() {
    let mut player = Player::new();
    player.play(Duration::from_secs(101), 5);
    player.world.run(Duration::from_secs(90));
    for n in 5..10 {
        player.push(false, Duration::from_secs(101) + FRAME * n);
    }
    let steps = player.steps();
    assert_eq!(steps.len(), 10, "nothing is left out");
    let pause = steps.iter().filter(|step| (90_000..90_100).contains(*step)).count();
    let usual = steps[1..].iter().filter(|step| (39..=41).contains(*step)).count();
    assert_eq!((pause, usual), (1, 8), "{steps:?}");
}
