//! Which request is answered by what.

use super::address::PublicAddress;
use super::assets::Assets;
use super::reply::{self, Reply};
use super::server::Via;
use super::{api, broker_hook, upgrade};
use crate::config::{AppConfig, Secret};
use crate::mqtt_external::Hook;
use crate::placement::Placement;
use crate::regions::Network;
use crate::session::Service;
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
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
    pub(super) app_keys: Vec<Secret>,
    pub(super) apps: Vec<AppConfig>,
    pub(super) cors_origin: Option<HeaderValue>,
    /// `None` where the broker is not ours.
    broker: Option<WebSocketDoor>,
    /// For a broker that is not ours; `None` without a secret.
    hook: Option<Hook>,
    /// Everything counted, as Prometheus reads it.
    metrics: Box<dyn Fn() -> String>,
    assets: Assets,
}

impl Site {
    pub fn new(
        service: Rc<Service>,
        address: PublicAddress,
        placement: Rc<Placement>,
        config: &crate::config::Config,
        broker: Option<WebSocketDoor>,
        hook: Option<Hook>,
        metrics: Box<dyn Fn() -> String>,
    ) -> Site {
        let origin = &config.http.cors_origin;
        let cors_origin = HeaderValue::from_str(origin).ok().filter(|_| !origin.is_empty());
        Site {
            service,
            address,
            placement,
            trusted_proxies: config.http.trusted_proxies.clone(),
            app_keys: config.app_keys.clone(),
            apps: config.apps.clone(),
            cors_origin,
            broker,
            hook,
            metrics,
            assets: Assets::new(),
        }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>, via: Via) -> Reply {
        let path = request.uri().path();
        if path.starts_with(broker_hook::PREFIX) {
            return broker_hook::answer(self.hook.as_ref(), request).await;
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
                let body = (self.metrics)();
                reply::text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
            }
            "/healthz" => reply::text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
            _ => self.assets.answer(path, request.headers()).unwrap_or_else(|| {
                reply::error(
                    StatusCode::NOT_FOUND,
                    "there is nothing here; the viewer page is at /",
                )
            }),
        }
    }
}
