//! The session API, metrics, the viewer page, and the door to the broker for browsers, on one port.
//!
//! ```text
//! POST   /v1/sessions        api.rs      a new session
//! GET    /v1/sessions/{id}   api.rs      its record; caller.rs says for whom
//! DELETE /v1/sessions/{id}   api.rs      closes it
//! POST   /v1/mqtt/…          broker_hook.rs  a broker that is not ours asks who may do what
//! GET    /metrics            router.rs   metrics.rs counts requests
//! GET    /healthz /readyz    router.rs
//! GET    /ops, /v1/ops/…     operators.rs  for operators
//! GET    / and its files     assets.rs   the viewer page
//! GET    /mqtt               upgrade.rs  WebSocket, handed to the broker
//! ```

mod address;
mod api;
mod assets;
mod broker_hook;
mod caller;
mod client;
mod metrics;
mod operators;
mod reply;
mod router;
mod server;
mod upgrade;

pub use address::{PublicAddress, bracketed, is_valid_host, split_authority, websocket_url};
pub use router::{Site, WebSocketDoor};
pub use server::{Front, Via};
