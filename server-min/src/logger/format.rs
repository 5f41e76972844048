//! One event as one line: text for people, JSON for machines.

use crate::clock;
use log::Level;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Bytes of one event's text; what is longer is cut.
const MAX_TEXT: usize = 8 * 1024;

/// The line, with its end.
pub(super) fn line(format: Format, now_ms: u64, level: Level, target: &str, text: &str) -> String {
    let text = cut(text);
    let time = clock::rfc3339(now_ms);
    match format {
        Format::Text => {
            let mut line = format!("{time} {level:<5} {target}: ");
            // One event stays one line, whatever a client put into it.
            line.extend(text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
            line.push('\n');
            line
        }
        Format::Json => {
            let (session, message) = split_session(text);
            let level = level.as_str().to_ascii_lowercase();
            let mut line = format!("{{\"ts\":\"{time}\",\"level\":\"{level}\"");
            let session = session.map(|id| ("sessionId", id));
            for (name, value) in
                [Some(("target", target)), session, Some(("msg", message))].into_iter().flatten()
            {
                // Escapes what JSON must not have; of a text it cannot fail.
                let value = serde_json::to_string(value).unwrap_or_default();
                let _ = write!(line, ",\"{name}\":{value}");
            }
            line.push_str("}\n");
            line
        }
    }
}

/// Whose session an event belongs to, by the beginning of its text, and the rest. Only there: what
/// stands further on may be a client's own words.
pub(super) fn split_session(text: &str) -> (Option<&str>, &str) {
    let Some(rest) = text.strip_prefix("sessionId=") else { return (None, text) };
    let (id, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    (Some(id).filter(|id| !matches!(*id, "" | "-")), rest)
}

fn cut(text: &str) -> &str {
    if text.len() <= MAX_TEXT {
        return text;
    }
    let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ID: &str = "550e8400-e29b-41d4-a716-446655440000";

    fn parsed(text: &str) -> Value {
        let line = line(Format::Json, 1_750_929_836_097, Level::Warn, "mqtt::client", text);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn text_stays_one_line() {
        let text = format!("sessionId={ID} said \"a\nb\u{1b}[31m\"");
        let line = line(Format::Text, 1_750_929_836_097, Level::Info, "session::service", &text);
        assert_eq!(
            line,
            format!(
                "2025-06-26T09:23:56.097Z INFO  session::service: sessionId={ID} said \
                 \"a\u{fffd}b\u{fffd}[31m\"\n"
            )
        );
    }

    #[test]
    fn json_has_the_session_as_a_field_of_its_own() {
        let expected = json!({
            "ts": "2025-06-26T09:23:56.097Z", "level": "warn", "target": "mqtt::client",
            "sessionId": ID, "msg": "closed (\"x\")\n\u{1}\\",
        });
        assert_eq!(parsed(&format!("sessionId={ID} closed (\"x\")\n\u{1}\\")), expected);
        // Nobody's.
        for (text, msg) in [
            ("plain", "plain"),
            ("sessionId=- no signal", "no signal"),
            ("sessionId=", ""),
            // A client's own words are not believed.
            ("refused: \"sessionId=forged\"", "refused: \"sessionId=forged\""),
        ] {
            let value = parsed(text);
            assert_eq!((value.get("sessionId"), &value["msg"]), (None, &json!(msg)), "{text}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let value = parsed(&"é".repeat(MAX_TEXT));
        assert_eq!(value["msg"].as_str().unwrap().len(), MAX_TEXT);
        assert_eq!(cut(&format!("x{}", "é".repeat(MAX_TEXT))).len(), MAX_TEXT - 1);
    }
}
