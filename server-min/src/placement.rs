//! Where a session is served: first the region, then one of its TURN nodes.

use crate::config::Config;
use crate::metrics::Text;
use crate::nodes::{Pool, PoolConfig};
use crate::regions::Regions;
use crate::session::service::{Addresses, Relay};
use serde_json::Value;
use std::net::SocketAddr;

pub struct Placement {
    pub regions: Regions,
    nodes: Pool,
    /// Where our own relay listens, if there is one.
    own: Option<SocketAddr>,
}

impl Placement {
    /// Reads the GeoIP database and starts to ask the nodes whether they are there. Within a `LocalSet`.
    pub fn start(config: &Config, own: Option<SocketAddr>) -> Result<Placement, String> {
        let regions = Regions::open(config)?;
        let nodes = Pool::start(&PoolConfig::of(config, own));
        Ok(Placement { regions, nodes, own })
    }

    /// Takes what may change while the server runs: the list of `turn.external`, and what is in the
    /// file `geoip.database`. Where that file is not good, the old one stays in use.
    pub async fn reload(&self, config: &Config) -> Result<(), String> {
        self.nodes.reload(&PoolConfig::of(config, self.own));
        self.regions.reload().await
    }

    /// The relay of a session in `region`; `own` says where clients reach ours.
    pub fn relay_for(&self, session_id: &str, region: &str, own: &Addresses) -> Option<Relay> {
        self.nodes.pick(session_id, |other| self.regions.rank(region, other), own)
    }

    pub fn write_metrics(&self, text: &mut Text) {
        self.nodes.write_metrics(text);
        self.regions.write_metrics(text);
    }

    /// The TURN nodes, for an operator.
    pub fn describe_nodes(&self) -> Vec<Value> {
        self.nodes.describe()
    }

    pub fn stop(&self) {
        self.nodes.stop();
    }
}
