//! Standard input, line by line, on a thread of its own: it is silent while anything is measured.

use hil_tests::lines::Line;
use std::io::BufRead as _;
use tokio::sync::mpsc;

/// Ends with the input.
pub(crate) fn lines() -> mpsc::UnboundedReceiver<Line> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for text in std::io::stdin().lock().lines().map_while(Result::ok) {
            if let Some(line) = Line::parse(&text)
                && sender.send(line).is_err()
            {
                return;
            }
        }
    });
    receiver
}
