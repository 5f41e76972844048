//! Which TURN node serves a session: our own relay, and those of `[turn] external` (coturn, or other
//! server-mins), which are reached by nothing but a shared secret.
//!
//! ```text
//! every few seconds ─→ probe (STUN Binding) ─→ Health ──────────────┐
//! a new session ─→ region ─→ Pool::pick ─→ rendezvous order ─→ the first that is alive ─→ Relay
//!                                                                   └→ URLs, and the secret that signs
//! ```
//!
//! The choice follows from the session's id and the list of nodes alone, so every server-min with the
//! same list makes the same one, and nothing needs to be stored or agreed upon.

mod config;
mod health;
mod pool;
mod probe;
mod rendezvous;
mod url;

pub use config::{NodeConfig, check};
pub use pool::{Pool, PoolConfig};
pub use url::{Transport, TurnUrl};
