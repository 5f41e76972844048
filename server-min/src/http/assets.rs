//! The files of the viewer page and of the operators' page, inside the binary.

use super::reply::{self, Reply};
use crate::session::credentials::hex;
use bytes::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, StatusCode};

/// Nothing from elsewhere, except that the page may speak to brokers and session services under
/// other names than its own.
const VIEWER_POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss: http: https:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'self'; object-src 'none'";
/// What the page needs and nothing else, and in nobody's frame: it has the token.
const OPERATORS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The files by their path, with their entity tags.
pub(super) struct Assets {
    files: Vec<Asset>,
    policy: &'static str,
}

type File = (&'static str, &'static str, &'static [u8]);

struct Asset {
    path: &'static str,
    content_type: &'static str,
    body: &'static [u8],
    etag: HeaderValue,
}

impl Assets {
    pub(super) fn of_viewer() -> Assets {
        let files: [File; 19] = [
            ("/", HTML, include_bytes!("page/index.html")),
            ("/style.css", CSS, include_bytes!("page/style.css")),
            ("/icon.svg", SVG, include_bytes!("page/icon.svg")),
            ("/viewer.js", SCRIPT, include_bytes!("page/viewer.js")),
            ("/api.js", SCRIPT, include_bytes!("page/api.js")),
            ("/audio.js", SCRIPT, include_bytes!("page/audio.js")),
            ("/bar.js", SCRIPT, include_bytes!("page/bar.js")),
            ("/control.js", SCRIPT, include_bytes!("page/control.js")),
            ("/mqtt.js", SCRIPT, include_bytes!("page/mqtt.js")),
            ("/mqtt-packet.js", SCRIPT, include_bytes!("page/mqtt-packet.js")),
            ("/negotiation.js", SCRIPT, include_bytes!("page/negotiation.js")),
            ("/page.js", SCRIPT, include_bytes!("page/page.js")),
            ("/peer.js", SCRIPT, include_bytes!("page/peer.js")),
            ("/session.js", SCRIPT, include_bytes!("page/session.js")),
            ("/signals.js", SCRIPT, include_bytes!("page/signals.js")),
            ("/stats.js", SCRIPT, include_bytes!("page/stats.js")),
            ("/streams.js", SCRIPT, include_bytes!("page/streams.js")),
            ("/timers.js", SCRIPT, include_bytes!("page/timers.js")),
            ("/words.js", SCRIPT, include_bytes!("page/words.js")),
        ];
        Assets::new(&files, VIEWER_POLICY)
    }

    /// Its icon and the colours are the viewer page's.
    pub(super) fn of_operators() -> Assets {
        let files: [File; 9] = [
            ("/ops", HTML, include_bytes!("page/ops/index.html")),
            ("/ops/ops.css", CSS, include_bytes!("page/ops/ops.css")),
            ("/ops/main.js", SCRIPT, include_bytes!("page/ops/main.js")),
            ("/ops/api.js", SCRIPT, include_bytes!("page/ops/api.js")),
            ("/ops/dom.js", SCRIPT, include_bytes!("page/ops/dom.js")),
            ("/ops/node.js", SCRIPT, include_bytes!("page/ops/node.js")),
            ("/ops/sessions.js", SCRIPT, include_bytes!("page/ops/sessions.js")),
            ("/ops/detail.js", SCRIPT, include_bytes!("page/ops/detail.js")),
            ("/ops/words.js", SCRIPT, include_bytes!("page/ops/words.js")),
        ];
        Assets::new(&files, OPERATORS_POLICY)
    }

    fn new(files: &[File], policy: &'static str) -> Assets {
        let asset = |&(path, content_type, body): &File| {
            let digest = ring::digest::digest(&ring::digest::SHA256, body);
            let tag = format!("\"{}\"", &hex(digest.as_ref())[..16]);
            let etag = HeaderValue::from_str(&tag).expect("hex digits in quotes are visible ASCII");
            Asset { path, content_type, body, etag }
        };
        Assets { files: files.iter().map(asset).collect(), policy }
    }

    /// The file at `path`; `304` where the client has it already.
    pub(super) fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Reply> {
        let path = if path == "/index.html" { "/" } else { path };
        let asset = self.files.iter().find(|asset| asset.path == path)?;
        let known =
            headers.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).is_some_and(|tags| {
                tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == asset.etag)
            });
        let mut reply = if known {
            reply::empty(StatusCode::NOT_MODIFIED)
        } else {
            reply::text(StatusCode::OK, asset.content_type, Bytes::from_static(asset.body))
        };
        let headers = reply.headers_mut();
        headers.insert(ETAG, asset.etag.clone());
        // Asked for anew each time, so that a new binary shows its new page.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(self.policy));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        Some(reply)
    }
}
