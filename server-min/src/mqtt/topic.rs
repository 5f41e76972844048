//! Topic names and filters: what is well formed, and what matches (MQTT 5.0 §4.7).

/// A name that a message may be published to. Names beginning with `$` belong to brokers.
pub(crate) fn is_valid_name(name: &str) -> bool {
    is_well_formed_name(name) && !name.starts_with('$')
}

pub(crate) fn is_well_formed_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['+', '#', '\0'])
}

pub(crate) fn is_valid_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.contains('\0') {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let well_formed = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            _ => !level.contains(['+', '#']),
        };
        if !well_formed {
            return false;
        }
    }
    true
}

pub(crate) fn is_shared(filter: &str) -> bool {
    filter == "$share" || filter.starts_with("$share/")
}

pub(crate) fn has_wildcard(filter: &str) -> bool {
    filter.contains(['+', '#'])
}

/// Whether a valid `filter` matches a valid `name`.
pub(crate) fn matches(filter: &str, name: &str) -> bool {
    // §4.7.2: a leading wildcard does not reach the `$` topics.
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = name.split('/');
    for expected in filter.split('/') {
        if expected == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if expected == "+" || expected == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Whether every name that the valid filter (or name) `asked` matches is matched by `granted` too.
pub(crate) fn covers(granted: &str, asked: &str) -> bool {
    // A leading wildcard reaches no `$` topic, so it covers none.
    if asked.starts_with('$') && granted.starts_with(['+', '#']) {
        return false;
    }
    let mut asked = asked.split('/');
    for level in granted.split('/') {
        if level == "#" {
            return true;
        }
        match asked.next() {
            Some("#") | None => return false,
            Some(other) if level == "+" || level == other => {}
            Some(_) => return false,
        }
    }
    asked.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, name) in [
            ("a/b", "a/b"),
            ("a/+", "a/b"),
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("#", "a/b"),
            ("+/+", "/x"),
            ("/+", "/x"),
            ("+", "x"),
            ("a/+/c", "a//c"),
            ("$SYS/#", "$SYS/x"),
        ] {
            assert!(matches(filter, name), "{filter} {name}");
        }
        for (filter, name) in [
            ("a/b", "a"),
            ("a/+", "a"),
            ("a/+", "a/b/c"),
            ("+", "/x"),
            ("a", "A"),
            ("#", "$SYS/x"),
            ("+/x", "$SYS/x"),
            ("a/b/#", "a"),
            ("a/", "a"),
        ] {
            assert!(!matches(filter, name), "{filter} {name}");
        }
    }

    #[test]
    fn a_filter_covers_what_is_narrower() {
        for (granted, asked) in [
            ("a/b", "a/b"),
            ("a/+", "a/+"),
            ("a/+", "a/b"),
            ("a/#", "a/#"),
            ("a/#", "a/+/c"),
            ("a/#", "a"),
            ("#", "#"),
            ("+/x", "a/x"),
        ] {
            assert!(covers(granted, asked), "{granted} {asked}");
        }
        for (granted, asked) in [
            ("a/b", "a/+"),
            ("a/+", "a/#"),
            ("a/+", "a"),
            ("a/+", "a/b/c"),
            ("a", "#"),
            ("+", "#"),
            ("#", "$SYS/x"),
            ("a/b/#", "a/#"),
        ] {
            assert!(!covers(granted, asked), "{granted} {asked}");
        }
    }

    #[test]
    fn wildcards_stand_alone_in_their_level_and_hash_comes_last() {
        for good in ["#", "+", "a/+/#", "/", "a", "+/b"] {
            assert!(is_valid_filter(good), "{good}");
        }
        for bad in ["", "a#", "a/#/b", "a+", "+a/b", "##", "a/b#", "a\0"] {
            assert!(!is_valid_filter(bad), "{bad}");
        }
        assert!(
            !is_valid_name("a/+")
                && !is_valid_name("")
                && !is_valid_name("$SYS/x")
                && is_valid_name("a//b")
        );
        assert!(is_shared("$share/g/a") && !is_shared("$shared"));
    }
}
