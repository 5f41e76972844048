//! Who listens to what: exact filters by hash, the few with wildcards in a list. By the access rules
//! only services have wildcards.

use super::topic;
use std::collections::HashMap;
use std::rc::Rc;

/// A place in the router's table of sessions.
pub(crate) type SessionIndex = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub(crate) session: SessionIndex,
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
}

#[derive(Default)]
pub(crate) struct Subscriptions {
    exact: HashMap<Rc<str>, Vec<Subscriber>>,
    wildcard: Vec<(Rc<str>, Subscriber)>,
    count: usize,
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Adds or replaces; says whether it is new.
    pub(crate) fn insert(&mut self, filter: &Rc<str>, subscriber: Subscriber) -> bool {
        let same = |old: &Subscriber| old.session == subscriber.session;
        let old = if topic::has_wildcard(filter) {
            self.wildcard.iter_mut().find(|(f, old)| f == filter && same(old)).map(|(_, old)| old)
        } else {
            self.exact.get_mut(filter).and_then(|list| list.iter_mut().find(|old| same(old)))
        };
        if let Some(old) = old {
            *old = subscriber;
            return false;
        }
        if topic::has_wildcard(filter) {
            self.wildcard.push((filter.clone(), subscriber));
        } else {
            let list = self.exact.entry(filter.clone()).or_default();
            // Nearly every topic here has one listener; `Vec` would begin with four places.
            if list.is_empty() {
                list.reserve_exact(1);
            }
            list.push(subscriber);
        }
        self.count += 1;
        true
    }

    pub(crate) fn remove(&mut self, filter: &str, session: SessionIndex) {
        if topic::has_wildcard(filter) {
            let before = self.wildcard.len();
            self.wildcard.retain(|(f, s)| &**f != filter || s.session != session);
            self.count -= before - self.wildcard.len();
        } else if let Some(list) = self.exact.get_mut(filter) {
            let before = list.len();
            list.retain(|s| s.session != session);
            self.count -= before - list.len();
            if list.is_empty() {
                self.exact.remove(filter);
            }
        }
    }

    /// Every session that listens to `name`, once, with the highest of its QoS (§3.3.4), into `found`.
    pub(crate) fn find(&self, name: &str, found: &mut Vec<Subscriber>) {
        found.clear();
        if let Some(list) = self.exact.get(name) {
            found.extend_from_slice(list);
        }
        let exact = found.len();
        found.extend(
            self.wildcard
                .iter()
                .filter(|(filter, _)| topic::matches(filter, name))
                .map(|(_, s)| *s),
        );
        if found.len() > exact && found.len() > 1 {
            found.sort_by_key(|s| s.session);
            found.dedup_by(|later, kept| {
                let same = later.session == kept.session;
                if same {
                    kept.qos = kept.qos.max(later.qos);
                    kept.no_local &= later.no_local;
                    kept.retain_as_published |= later.retain_as_published;
                }
                same
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(session: SessionIndex, qos: u8) -> Subscriber {
        Subscriber { session, qos, no_local: false, retain_as_published: false }
    }

    #[test]
    fn overlapping_filters_deliver_once_with_the_highest_qos() {
        let mut table = Subscriptions::default();
        assert!(table.insert(&"a/b".into(), subscriber(1, 0)));
        assert!(table.insert(&"a/+".into(), subscriber(1, 1)));
        assert!(table.insert(&"#".into(), subscriber(2, 0)));
        assert!(!table.insert(&"#".into(), subscriber(2, 1)));
        let mut found = Vec::new();
        table.find("a/b", &mut found);
        assert_eq!(found, [subscriber(1, 1), subscriber(2, 1)]);
        assert_eq!(table.len(), 3);

        table.remove("a/b", 1);
        table.remove("a/+", 2);
        table.remove("#", 2);
        table.find("a/b", &mut found);
        assert_eq!((found.as_slice(), table.len()), (&[subscriber(1, 1)][..], 1));
        table.remove("a/+", 1);
        assert_eq!(table.len(), 0);
    }
}
