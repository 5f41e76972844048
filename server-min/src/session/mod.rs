//! Sessions: who may watch which camera, for how long, and what became of it.
//!
//! ```text
//! POST /v1/sessions ─→ AppToken::verify (or an application key)
//!                      └→ Service::create ─→ SessionStore ─→ session_updates:{id}
//!                          ├→ token (Ed25519), TURN and MQTT credentials
//!                          └→ keepalive to the device: the time, and that an offer may come
//! p2p/signal/server ─→ Service::on_signal (state, path, setupMs) ─→ record, metrics
//! every 5 minutes ───→ Service::sweep ─→ stale sessions closed
//! SessionStore::close ─→ in every node: Messages::on_closing ─→ TURN allocations freed, bye
//! ```
//!
//! Credentials are signed or derived, never stored: any node can check what another one gave out. Only
//! those that an operator puts into a file (credentials_file.rs) are kept, as slow hashes.

pub mod access;
pub mod app_token;
pub mod closing;
pub mod credentials;
pub mod credentials_file;
pub mod ending;
pub(crate) mod failures;
pub mod keys;
pub mod listing;
pub mod memory;
mod messages;
pub mod metrics;
pub mod passwords;
pub mod recent;
pub mod record;
pub mod service;
pub mod shared;
pub mod store;

pub use access::Access;
pub use app_token::AppToken;
pub use closing::Closing;
pub use credentials::Credentials;
pub use ending::{Ending, Reason};
pub use keys::SigningKey;
pub use listing::{Listed, Place, Wanted};
pub use memory::MemoryStore;
pub use metrics::{Metrics, Totals};
pub use recent::{Ended, Recent};
pub use record::SessionRecord;
pub use service::Service;
pub use shared::{RedisStore, StoreConfig};
pub use store::{Change, Counts, SessionStore, StoreError};
