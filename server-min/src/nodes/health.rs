//! Whether a node is there, from how it answers: one answer more or less changes nothing.

/// So many answers in a row that say otherwise change what is thought of a node.
const CHANGES_AFTER: u8 = 2;

/// What is thought of one node.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Health {
    state: State,
    /// Answers in a row that said otherwise.
    against: u8,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Not asked yet: it is used, since the configuration says that it is there.
    #[default]
    Unknown,
    Alive,
    Dead,
}

impl Health {
    pub(super) fn is_alive(self) -> bool {
        self.state != State::Dead
    }

    /// Whether the last answer was as expected. Otherwise it is worth asking again soon.
    pub(super) fn is_settled(self) -> bool {
        self.against == 0
    }

    /// Takes the outcome of one check. What is thought of the node from now on, if that is new.
    pub(super) fn on_check(&mut self, answered: bool) -> Option<bool> {
        let (now, patience) = match (self.state, answered) {
            (State::Alive, true) | (State::Dead, false) => {
                self.against = 0;
                return None;
            }
            // The first answer of all counts at once.
            (State::Unknown, true) => (State::Alive, 1),
            (State::Unknown, false) => (State::Dead, 1),
            (State::Dead, true) => (State::Alive, CHANGES_AFTER),
            (State::Alive, false) => (State::Dead, CHANGES_AFTER),
        };
        self.against += 1;
        if self.against < patience {
            return None;
        }
        *self = Health { state: now, against: 0 };
        Some(answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `.` is an answer, `x` none; what is thought after each.
    fn thought(checks: &str) -> String {
        let mut health = Health::default();
        let mark = |alive| if alive { 'A' } else { 'D' };
        checks
            .chars()
            .map(|check| {
                let before = health.is_alive();
                let changed = health.on_check(check == '.');
                assert!(changed.is_none_or(|alive| alive == health.is_alive()));
                assert!(changed.is_some() || before == health.is_alive());
                mark(health.is_alive())
            })
            .collect()
    }

    #[test]
    fn a_node_that_was_not_asked_yet_is_used() {
        assert!(Health::default().is_alive());
        assert_eq!(thought("."), "A");
        assert_eq!(thought("x"), "D");
    }

    #[test]
    fn one_answer_more_or_less_changes_nothing() {
        assert_eq!(thought("...x..x.x."), "AAAAAAAAAA");
        assert_eq!(thought("..xx"), "AAAD");
        assert_eq!(thought("x.x.x.."), "DDDDDDA");
    }

    #[test]
    fn a_surprise_is_worth_another_question_soon() {
        let mut health = Health::default();
        for (answered, settled) in
            [(true, true), (false, false), (false, true), (true, false), (false, true)]
        {
            health.on_check(answered);
            assert_eq!(health.is_settled(), settled, "{health:?}");
        }
    }
}
