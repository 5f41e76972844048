//! The choice of a region, and everything it rests on.

use super::cache::Cache;
use super::config::{RegionConfig, names};
use super::database::{Database, Found, code};
use super::geography::Place;
use super::networks::Networks;
use crate::config::Config;
use crate::session::metrics::Text;
use crate::session::service::Addresses;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

/// The regions of this configuration.
pub struct Regions {
    /// The first one is this server's own.
    regions: Vec<Region>,
    networks: Networks<usize>,
    database_file: Option<PathBuf>,
    database: RefCell<Option<Database>>,
    /// Which region an address is nearest to; `None` where nobody knows.
    cache: RefCell<Cache<IpAddr, Option<usize>>>,
    counters: Counters,
}

struct Region {
    config: RegionConfig,
    place: Option<Place>,
    countries: Vec<[u8; 2]>,
    continents: Vec<[u8; 2]>,
    /// The place of each region in the order of their distance from this one.
    ranks: Vec<usize>,
    /// Sessions by what chose this region.
    chosen: [Cell<u64>; By::ALL.len()],
}

#[derive(Default)]
struct Counters {
    from_cache: Cell<u64>,
    from_database: Cell<u64>,
    failed: Cell<u64>,
}

/// Which region, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice<'a> {
    pub region: &'a str,
    pub by: By,
}

/// What chose a region, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The request names a region that there is.
    Request,
    /// `[geoip] networks` has the client's address.
    Network,
    /// The database does, and one region is nearest.
    Geoip,
    /// Nobody knows: this server's own region.
    Default,
}

impl By {
    const ALL: [By; 4] = [By::Request, By::Network, By::Geoip, By::Default];
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            By::Request => "request",
            By::Network => "network",
            By::Geoip => "geoip",
            By::Default => "default",
        })
    }
}

impl Regions {
    /// Opens the database, if one is named.
    pub fn open(config: &Config) -> Result<Regions, String> {
        let names = names(&config.region, &config.regions, &config.turn.external);
        let mut regions: Vec<Region> = names
            .iter()
            .map(|name| match config.regions.iter().find(|region| region.name == **name) {
                Some(region) => Region::new(region.clone()),
                None => Region::new(RegionConfig { name: (*name).into(), ..Default::default() }),
            })
            .collect();
        let places: Vec<Option<Place>> = regions.iter().map(|region| region.place).collect();
        for (i, region) in regions.iter_mut().enumerate() {
            region.ranks = ranks(i, &places);
        }
        let networks = config.geoip.networks.iter().filter_map(|(network, region)| {
            Some((*network, names.iter().position(|name| name == region)?))
        });
        let geoip = &config.geoip;
        let database = geoip.database.as_deref().map(open).transpose()?;
        Ok(Regions {
            networks: Networks::new(networks),
            regions,
            database_file: geoip.database.clone(),
            database: RefCell::new(database),
            cache: RefCell::new(Cache::new(geoip.cache_entries, geoip.cache_ttl_s * 1000)),
            counters: Counters::default(),
        })
    }

    /// Reads the database again and forgets what the old one said. Where the file is not good, what was
    /// read before stays in use. The file is read on a thread of its own.
    pub async fn reload(&self) -> Result<(), String> {
        let Some(file) = self.database_file.clone() else { return Ok(()) };
        let read = tokio::task::spawn_blocking(move || open(&file)).await;
        let database = read.map_err(|e| e.to_string())??;
        *self.database.borrow_mut() = Some(database);
        self.cache.borrow_mut().clear();
        Ok(())
    }

    /// The region that serves a client at `address` whose request names the region `asked`.
    pub fn choose(&self, asked: Option<&str>, address: IpAddr, now_ms: u64) -> Choice<'_> {
        let address = address.to_canonical();
        let (i, by) = if let Some(i) = asked.and_then(|name| self.position(name)) {
            (i, By::Request)
        } else if let Some(i) = self.networks.get(address) {
            (*i, By::Network)
        } else if let Some(i) = self.nearest(address, now_ms) {
            (i, By::Geoip)
        } else {
            (0, By::Default)
        };
        let region = &self.regions[i];
        let counter = &region.chosen[by as usize];
        counter.set(counter.get() + 1);
        Choice { region: &region.config.name, by }
    }

    /// How far the region `to` is from `from`: 0 is the same, 1 the nearest of the others.
    pub fn rank(&self, from: &str, to: &str) -> usize {
        match (self.position(from), self.position(to)) {
            (Some(from), Some(to)) => self.regions[from].ranks[to],
            _ => usize::from(from != to),
        }
    }

    /// Puts the region's own doors in the place of the general ones.
    pub fn direct(&self, region: &str, addresses: &mut Addresses) {
        let Some(i) = self.position(region) else { return };
        let RegionConfig { mqtt_public_url, http_public_url, .. } = &self.regions[i].config;
        if let Some(url) = mqtt_public_url {
            addresses.mqtt_url.clone_from(url);
        }
        if let Some(url) = http_public_url {
            addresses.ws_url = crate::http::websocket_url(url);
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.regions.iter().position(|region| region.config.name == name)
    }

    fn nearest(&self, address: IpAddr, now_ms: u64) -> Option<usize> {
        let database = self.database.borrow();
        let database = database.as_ref()?;
        let key = cached_as(address);
        let mut cache = self.cache.borrow_mut();
        if let Some(region) = cache.get(&key, now_ms) {
            count(&self.counters.from_cache);
            return region;
        }
        count(&self.counters.from_database);
        let region = match database.look_up(address) {
            Ok(found) => found.and_then(|found| self.nearest_to(&found)),
            Err(e) => {
                count(&self.counters.failed);
                log::warn!("geoip.database is broken, at the record of {address}: {e}");
                None
            }
        };
        cache.insert(key, region, now_ms);
        region
    }

    /// What the operator says of a country goes before what is near; continents are for databases that
    /// know no better.
    fn nearest_to(&self, found: &Found) -> Option<usize> {
        let listed = |code: Option<[u8; 2]>, list: fn(&Region) -> &[[u8; 2]]| {
            let code = code?;
            self.regions.iter().position(|region| list(region).contains(&code))
        };
        let near = |place: Place| {
            let distance = |region: &Region| region.place.map(|at| at.distance_km(place));
            let known = self.regions.iter().enumerate();
            let known = known.filter_map(|(i, region)| Some((i, distance(region)?)));
            known.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(i, _)| i)
        };
        listed(found.country, |region| &region.countries)
            .or_else(|| found.place.and_then(near))
            .or_else(|| listed(found.continent, |region| &region.continents))
    }

    /// Everything counted.
    pub fn write_metrics(&self, text: &mut Text) {
        text.family("region_sessions_total", "counter", "Sessions by region and what chose it");
        for region in &self.regions {
            for (by, counter) in By::ALL.iter().zip(&region.chosen) {
                let labels = format!("{{region=\"{}\",by=\"{by}\"}}", region.config.name);
                text.sample("region_sessions_total", &labels, counter.get());
            }
        }
        text.family("geoip_lookups_total", "counter", "Addresses looked up, by what answered");
        for (source, counter) in
            [("cache", &self.counters.from_cache), ("database", &self.counters.from_database)]
        {
            text.sample("geoip_lookups_total", &format!("{{from=\"{source}\"}}"), counter.get());
        }
        text.family("geoip_failures_total", "counter", "Records that could not be read");
        text.sample("geoip_failures_total", "", self.counters.failed.get());
        let Some(database) = &*self.database.borrow() else { return };
        text.family(
            "geoip_database_build_timestamp_seconds",
            "gauge",
            "When the database was made",
        );
        text.sample("geoip_database_build_timestamp_seconds", "", database.built_s());
    }
}

impl Region {
    fn new(config: RegionConfig) -> Region {
        let codes = |list: &[String]| list.iter().filter_map(|text| code(Some(text))).collect();
        Region {
            place: config.place(),
            countries: codes(&config.countries),
            continents: codes(&config.continents),
            ranks: Vec::new(),
            chosen: Default::default(),
            config,
        }
    }
}

/// Regions whose place is not known are all equally far.
fn ranks(from: usize, places: &[Option<Place>]) -> Vec<usize> {
    let distance = |to: usize| Some(places[from]?.distance_km(places[to]?));
    let mut others: Vec<(f64, usize)> = (0..places.len())
        .filter(|to| *to != from)
        .filter_map(|to| Some((distance(to)?, to)))
        .collect();
    others.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut ranks = vec![others.len() + 1; places.len()];
    ranks[from] = 0;
    for (rank, (_, to)) in others.iter().enumerate() {
        ranks[*to] = rank + 1;
    }
    ranks
}

fn open(file: &std::path::Path) -> Result<Database, String> {
    let database = Database::open(file).map_err(|text| format!("geoip.database {text}"))?;
    log::info!("geoip.database is {}", database.kind());
    Ok(database)
}

/// One household has a /64 at least, and all of it is in one place.
fn cached_as(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
    }
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}
