//! Which request is answered by what.

use super::address::PublicAddress;
use super::assets::Assets;
use super::metrics::HttpMetrics;
use super::operators::{self, Door};
use super::reply::{self, Reply};
use super::server::Via;
use super::{api, broker_hook, upgrade};
use crate::config::{AppConfig, Config, Secret};
use crate::mqtt_external::Hook;
use crate::ops::{Desk, Ops};
use crate::placement::Placement;
use crate::regions::Network;
use crate::session::Service;
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

/// Takes a WebSocket connection whose handshake is done.
pub type WebSocketDoor = Rc<dyn Fn(TokioIo<Upgraded>, SocketAddr)>;

/// Everything the HTTP side answers from.
pub struct Site {
    pub(super) service: Rc<Service>,
    pub(super) address: PublicAddress,
    pub(super) placement: Rc<Placement>,
    pub(super) trusted_proxies: Vec<Network>,
    pub(super) ops: Rc<Ops>,
    pub(super) desk: Rc<Desk>,
    /// To the operators' page.
    pub(super) door: Door,
    pub(super) ops_page: Assets,
    pub(super) metrics: HttpMetrics,
    settings: RefCell<Rc<Settings>>,
    /// `None` where the broker is not ours.
    broker: Option<WebSocketDoor>,
    /// For a broker that is not ours; `None` without a secret.
    hook: Option<Hook>,
    assets: Assets,
}

/// What a reload may change. A request goes by what held when it came.
pub(super) struct Settings {
    pub(super) app_keys: Vec<Secret>,
    pub(super) apps: Vec<AppConfig>,
    pub(super) cors_origin: Option<HeaderValue>,
    pub(super) max_connections: usize,
    pub(super) ops_token: Option<Secret>,
}

impl Settings {
    fn of(config: &Config) -> Settings {
        let origin = &config.http.cors_origin;
        Settings {
            app_keys: config.app_keys.clone(),
            apps: config.apps.clone(),
            cors_origin: HeaderValue::from_str(origin).ok().filter(|_| !origin.is_empty()),
            max_connections: config.http.max_connections,
            ops_token: config.ops.token.clone(),
        }
    }
}

impl Site {
    pub fn new(
        desk: Rc<Desk>,
        address: PublicAddress,
        config: &Config,
        broker: Option<WebSocketDoor>,
        hook: Option<Hook>,
    ) -> Rc<Site> {
        let ops = desk.ops.clone();
        let site = Rc::new(Site {
            service: desk.service.clone(),
            address,
            placement: desk.placement.clone(),
            trusted_proxies: config.http.trusted_proxies.clone(),
            ops: ops.clone(),
            desk,
            door: Door::new(),
            ops_page: Assets::of_operators(),
            metrics: HttpMetrics::new(),
            settings: RefCell::new(Rc::new(Settings::of(config))),
            broker,
            hook,
            assets: Assets::of_viewer(),
        });
        // Weak: the site itself holds `ops`.
        let counted = Rc::downgrade(&site);
        ops.registry.add(move |text| {
            if let Some(site) = counted.upgrade() {
                site.metrics.write(text, site.settings().max_connections);
                site.door.write_metrics(text);
            }
        });
        let changed = Rc::downgrade(&site);
        let settings =
            &["app_keys", "apps", "http.cors_origin", "http.max_connections", "ops.token"];
        ops.reload.add(settings, move |config| {
            if let Some(site) = changed.upgrade() {
                site.settings.replace(Rc::new(Settings::of(config)));
            }
            Ok(())
        });
        site
    }

    pub(super) fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    /// HTTP connections open.
    pub fn connections(&self) -> u64 {
        self.metrics.connections()
    }

    pub(super) async fn answer(&self, request: Request<Incoming>, via: Via) -> Reply {
        let path = request.uri().path();
        if path.starts_with(broker_hook::PREFIX) {
            return broker_hook::answer(self.hook.as_ref(), request).await;
        }
        if operators::is_ours(path) {
            return operators::answer(self, request, via).await;
        }
        if path.starts_with("/v1/") {
            return api::answer(self, request, via).await;
        }
        if path == "/mqtt" {
            return upgrade::answer(request, via.peer, self.broker.as_ref());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let text = "this address takes GET; sessions are made with POST /v1/sessions";
            let reply = reply::error(StatusCode::METHOD_NOT_ALLOWED, text);
            return reply::with(reply, ALLOW, "GET, HEAD");
        }
        match path {
            "/metrics" => {
                let body = self.ops.registry.render();
                reply::text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
            }
            "/healthz" => reply::text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
            "/readyz" => self.readiness(),
            _ => self.assets.answer(path, request.headers()).unwrap_or_else(|| {
                reply::error(
                    StatusCode::NOT_FOUND,
                    "there is nothing here; the viewer page is at /",
                )
            }),
        }
    }
    fn readiness(&self) -> Reply {
        let not_ready = self.ops.health.not_ready();
        let status = match not_ready.is_empty() {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut body = if not_ready.is_empty() { "ready\n" } else { "not ready\n" }.to_owned();
        for part in not_ready {
            body += &format!("{}: {}\n", part.name, part.why);
        }
        reply::text(status, "text/plain; charset=utf-8", body)
    }
}
