//! Which region serves a request: the one it asks for, or the one its client's address is nearest to.
//!
//! ```text
//! POST /v1/sessions ─→ client address ─→ [geoip] networks ─→ cache ─→ database ─→ countries,
//!                 └─→ its `region`        (longest prefix)              coordinates or continents
//!                            └──────────────────┴─────────────────────────────────┴─→ a Choice
//! ```

mod cache;
mod choice;
mod config;
mod database;
mod geography;
mod networks;

pub use choice::{By, Choice, Regions};
pub use config::{GeoipConfig, RegionConfig, check};
pub use networks::{Network, is_in};
