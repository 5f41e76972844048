//! Why a session ended: a reason of a small fixed set, which metrics can count by, and the words of
//! whoever ended it, for people.

use sdk_core::wire::signal::ErrorCode;
use std::fmt;

/// What ended a session, or kept it from ever connecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A side said goodbye, and named no error.
    Left,
    /// Closed through the session API.
    Api,
    /// Never connected, and its device was not connected to the broker when it ended.
    DeviceOffline,
    /// 401, 403: the device refused the token.
    Unauthorized,
    /// 406: nothing both sides can play.
    Unplayable,
    /// 408: no way between the two was found in time.
    Timeout,
    /// 429: too many viewers or sessions at the device.
    Busy,
    /// 503: the device's stream is not running.
    Unavailable,
    /// 400, 404, 409, 413: the two do not understand each other's messages.
    BadSignal,
    /// 500, and codes this version does not know.
    Internal,
    /// Both sides fell silent: power, network, a closed page that could say nothing.
    Silent,
    /// Its time to live was over.
    Expired,
}

impl Reason {
    pub const ALL: [Reason; 12] = [
        Reason::Left,
        Reason::Api,
        Reason::DeviceOffline,
        Reason::Unauthorized,
        Reason::Unplayable,
        Reason::Timeout,
        Reason::Busy,
        Reason::Unavailable,
        Reason::BadSignal,
        Reason::Internal,
        Reason::Silent,
        Reason::Expired,
    ];

    /// As metrics, logs and the operators' page name it.
    pub fn label(self) -> &'static str {
        match self {
            Reason::Left => "left",
            Reason::Api => "api",
            Reason::DeviceOffline => "device_offline",
            Reason::Unauthorized => "unauthorized",
            Reason::Unplayable => "unplayable",
            Reason::Timeout => "timeout",
            Reason::Busy => "busy",
            Reason::Unavailable => "unavailable",
            Reason::BadSignal => "bad_signal",
            Reason::Internal => "internal",
            Reason::Silent => "silent",
            Reason::Expired => "expired",
        }
    }

    /// Says nothing about what was in the way; the device's absence would explain it.
    fn explains_nothing(self) -> bool {
        matches!(self, Reason::Left | Reason::Api | Reason::Silent)
    }

    /// Better known, where it ended a session that was never connected.
    pub(super) fn of_unconnected(self, device_online: Option<bool>) -> Reason {
        match device_online {
            Some(false) if self.explains_nothing() => Reason::DeviceOffline,
            _ => self,
        }
    }
}

impl From<ErrorCode> for Reason {
    fn from(code: ErrorCode) -> Reason {
        match code {
            ErrorCode::Unauthorized | ErrorCode::Forbidden => Reason::Unauthorized,
            ErrorCode::NotAcceptable => Reason::Unplayable,
            ErrorCode::Timeout => Reason::Timeout,
            ErrorCode::TooMany => Reason::Busy,
            ErrorCode::Unavailable => Reason::Unavailable,
            ErrorCode::Malformed
            | ErrorCode::NoSession
            | ErrorCode::Conflict
            | ErrorCode::TooLarge => Reason::BadSignal,
            ErrorCode::Internal | ErrorCode::Other(_) => Reason::Internal,
        }
    }
}

/// One session's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub reason: Reason,
    /// In words, with who says so.
    pub words: String,
}

/// What a side may say about it, in characters.
const MAX_WORDS: usize = 200;

impl Ending {
    pub fn new(reason: Reason, words: impl Into<String>) -> Ending {
        Ending { reason, words: words.into() }
    }

    /// As the side `from` reports it. Without a code it is an ordinary end.
    pub(super) fn reported(from: &str, code: Option<ErrorCode>, words: &str) -> Ending {
        let words: String = words.chars().take(MAX_WORDS).collect();
        match code {
            None => Ending::new(Reason::Left, format!("{from}: {words}")),
            Some(code) => Ending::new(code.into(), format!("{from}: {words} ({})", code.number())),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}) reason={}", self.words, self.reason.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_there_is_has_a_reason_of_the_fixed_set() {
        let labels: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        for code in 0..=999 {
            let reason = Reason::from(ErrorCode::from_number(code));
            assert!(Reason::ALL.contains(&reason), "{code}");
        }
        assert_eq!(Reason::from(ErrorCode::Timeout), Reason::Timeout);
        // The array is indexed by the variants themselves.
        assert!(Reason::ALL.iter().enumerate().all(|(i, reason)| *reason as usize == i));
    }

    #[test]
    fn an_absent_device_explains_what_nothing_else_does() {
        assert_eq!(Reason::Left.of_unconnected(Some(false)), Reason::DeviceOffline);
        assert_eq!(Reason::Left.of_unconnected(Some(true)), Reason::Left);
        assert_eq!(Reason::Silent.of_unconnected(None), Reason::Silent);
        assert_eq!(Reason::Unplayable.of_unconnected(Some(false)), Reason::Unplayable);
    }

    #[test]
    fn a_side_s_words_are_kept_short() {
        let ending = Ending::reported("cam", Some(ErrorCode::Timeout), &"x".repeat(9999));
        assert!(ending.to_string().ends_with("x (408)) reason=timeout"), "{ending}");
        assert!(ending.words.len() < 300);
    }
}
