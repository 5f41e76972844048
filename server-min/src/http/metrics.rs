//! Requests, counted by where they went and what they were answered.

use crate::metrics::{Histogram, Kind, Text};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

/// Upper bounds of `http_request_duration_seconds`.
const DURATION_S: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Addresses of one kind, so that nobody's choice of path makes a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Route {
    Sessions,
    Session,
    Metrics,
    Health,
    Ready,
    Mqtt,
    /// A broker that is not ours asks who may do what.
    Hook,
    Ops,
    /// The viewer page and its files, and whatever is not there.
    Page,
}

impl Route {
    const ALL: [Route; 9] = [
        Route::Sessions,
        Route::Session,
        Route::Metrics,
        Route::Health,
        Route::Ready,
        Route::Mqtt,
        Route::Hook,
        Route::Ops,
        Route::Page,
    ];

    pub(super) fn of(path: &str) -> Route {
        match path {
            "/v1/sessions" => Route::Sessions,
            "/metrics" => Route::Metrics,
            "/healthz" => Route::Health,
            "/readyz" => Route::Ready,
            "/mqtt" => Route::Mqtt,
            "/ops" => Route::Ops,
            _ if path.starts_with("/v1/sessions/") => Route::Session,
            _ if path.starts_with("/v1/mqtt/") => Route::Hook,
            _ if path.starts_with("/ops/") || path.starts_with("/v1/ops/") => Route::Ops,
            _ => Route::Page,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Route::Sessions => "/v1/sessions",
            Route::Session => "/v1/sessions/{id}",
            Route::Metrics => "/metrics",
            Route::Health => "/healthz",
            Route::Ready => "/readyz",
            Route::Mqtt => "/mqtt",
            Route::Hook => "/v1/mqtt",
            Route::Ops => "/ops",
            Route::Page => "page",
        }
    }
}

pub(super) struct HttpMetrics {
    /// By route and status. Both are few: we choose the status.
    requests: RefCell<BTreeMap<(Route, u16), u64>>,
    /// By [`Route`].
    took: [Histogram; Route::ALL.len()],
    connections: Cell<u64>,
    turned_away: Cell<u64>,
}

impl HttpMetrics {
    pub(super) fn new() -> HttpMetrics {
        HttpMetrics {
            requests: RefCell::default(),
            took: std::array::from_fn(|_| Histogram::new(DURATION_S)),
            connections: Cell::default(),
            turned_away: Cell::default(),
        }
    }

    pub(super) fn on_answer(&self, route: Route, status: u16, took: Duration) {
        *self.requests.borrow_mut().entry((route, status)).or_default() += 1;
        self.took[route as usize].observe(took);
    }

    pub(super) fn on_connection(&self) {
        self.connections.update(|n| n + 1);
    }

    pub(super) fn on_connection_end(&self) {
        self.connections.update(|n| n.saturating_sub(1));
    }

    /// A newcomer that found all places taken.
    pub(super) fn on_turned_away(&self) {
        self.turned_away.update(|n| n + 1);
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections.get()
    }

    pub(super) fn write(&self, text: &mut Text, max_connections: usize) {
        let name = "http_requests_total";
        text.family(name, Kind::Counter, "HTTP requests by where they went and their answer");
        for (&(route, status), count) in self.requests.borrow().iter() {
            let labels = [("route", route.label()), ("status", &status.to_string())];
            text.sample(name, &labels, count);
        }
        let name = "http_request_duration_seconds";
        text.family(name, Kind::Histogram, "From a request's head to the beginning of its answer");
        for route in Route::ALL {
            self.took[route as usize].write(text, name, &[("route", route.label())]);
        }
        text.gauge("http_connections", "HTTP connections open", self.connections.get());
        text.gauge(
            "http_connections_max",
            "HTTP connections there may be (http.max_connections)",
            max_connections,
        );
        text.counter(
            "http_connections_refused_total",
            "HTTP connections closed at once because all places were taken",
            self.turned_away.get(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_one_of_few_whatever_is_asked_for() {
        assert!(Route::ALL.iter().enumerate().all(|(i, route)| *route as usize == i));
        for (path, route) in [
            ("/v1/sessions", Route::Sessions),
            ("/v1/sessions/x/y", Route::Session),
            ("/v1/other", Route::Page),
            ("/ops/main.js", Route::Ops),
            ("/v1/ops/sessions/x", Route::Ops),
            ("/opsx", Route::Page),
            ("/", Route::Page),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
        let metrics = HttpMetrics::new();
        metrics.on_answer(Route::Page, 404, Duration::from_millis(2));
        let mut text = Text::default();
        metrics.write(&mut text, 7);
        let text = text.into_string();
        for line in [
            "http_requests_total{route=\"page\",status=\"404\"} 1",
            "http_request_duration_seconds_bucket{route=\"page\",le=\"0.001\"} 0",
            "http_request_duration_seconds_bucket{route=\"page\",le=\"0.005\"} 1",
            "http_connections_max 7",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
