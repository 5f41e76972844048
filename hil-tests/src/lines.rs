//! What the benchmark and its senders and viewers say to each other: one JSON object a line, over
//! standard input and output. Offers and answers hold their candidates.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "camelCase")]
pub enum Line {
    /// To the viewers: make one more.
    Open { viewer: usize },
    /// From the viewers, and on to a sender.
    Offer { viewer: usize, sdp: String },
    /// From a sender, and on to the viewers.
    Answer { viewer: usize, sdp: String },
    /// The path is open and DTLS is done.
    Connected { viewer: usize },
    /// To the viewers: what did you receive so far?
    Count { id: u64 },
    /// One for each viewer, in order.
    Counts { id: u64, viewers: Vec<Counts> },
}

/// What one viewer received since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub packets: u64,
    /// RTP payloads of these.
    pub bytes: u64,
    /// Frames all of whose packets came, in order.
    pub frames: u64,
    /// Packets that did not come, or not in order.
    pub missing: u64,
}

impl Line {
    pub fn parse(text: &str) -> Option<Line> {
        // Processes may write other things as well.
        serde_json::from_str(text).ok()
    }

    pub fn write(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let counts = Counts { packets: 1, bytes: 2, frames: 3, missing: 4 };
        for line in [
            Line::Offer { viewer: 7, sdp: "v=0\r\n".into() },
            Line::Counts { id: 1, viewers: vec![counts] },
        ] {
            assert!(!line.write().contains('\n'));
            assert_eq!(Line::parse(&line.write()), Some(line));
        }
        assert_eq!(Line::parse("thread 'main' panicked"), None);
    }
}
