//! What `make bench` compares the camera with, each in a process of its own:
//!
//! ```text
//! bench-peers receive          viewers that only count; the same for every sender
//! bench-peers str0m CLIP       a camera on str0m's media API, one send for each datagram
//! bench-peers str0m-runs CLIP  the same, with datagrams of one size sent in one call (UDP_SEGMENT)
//! bench-peers webrtc CLIP      a camera on the async webrtc crate
//! ```
//!
//! They are told what to do on standard input, see `hil_tests::lines`, and run until it ends.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the command line")]

mod input;
mod pictures;
mod receive;
mod str0m_sender;
mod webrtc_sender;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match *words.as_slice() {
        ["receive"] => receive::run(),
        ["str0m", clip] => str0m_sender::run(clip, false),
        ["str0m-runs", clip] => str0m_sender::run(clip, true),
        ["webrtc", clip] => webrtc_sender::run(clip),
        _ => Err("expected: receive, str0m CLIP, str0m-runs CLIP, or webrtc CLIP".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench-peers: {e}");
            ExitCode::FAILURE
        }
    }
}
