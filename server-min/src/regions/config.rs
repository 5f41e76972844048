//! `[[regions]]` and `[geoip]`.

use super::database::code;
use super::geography::Place;
use super::networks::Network;
use crate::nodes::NodeConfig;
use sdk_core::wire::signal::is_valid_id;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Each is looked at for each session.
const MAX_REGIONS: usize = 64;
/// The same, for an address that none of them holds.
const MAX_NETWORKS: usize = 4096;

/// One entry of `[[regions]]`: where it is, and what clients there are told instead of the general
/// addresses.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegionConfig {
    pub name: String,
    /// Degrees north and east of where its nodes stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latitude: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longitude: Option<f64>,
    /// ISO 3166-1 codes: clients in these belong here, however far it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub countries: Vec<String>,
    /// AF, AN, AS, EU, NA, OC, SA: the same, where the database has no coordinates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub continents: Vec<String>,
    /// This region's door to the broker, instead of `mqtt.public_url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt_public_url: Option<String>,
    /// The same for browsers, at `/mqtt` below it, instead of `http.public_url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_public_url: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeoipConfig {
    /// A GeoIP database of cities or countries, in MaxMind's format. Read again at SIGHUP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<PathBuf>,
    /// Regions of networks that no database knows, or knows better. The longest prefix wins.
    pub networks: BTreeMap<Network, String>,
    /// Addresses whose region is remembered, and for how long.
    pub cache_entries: usize,
    pub cache_ttl_s: u64,
}

impl Default for GeoipConfig {
    fn default() -> GeoipConfig {
        GeoipConfig {
            database: None,
            networks: BTreeMap::new(),
            cache_entries: 10_000,
            cache_ttl_s: 3600,
        }
    }
}

impl RegionConfig {
    pub(super) fn place(&self) -> Option<Place> {
        Some(Place { latitude: self.latitude?, longitude: self.longitude? })
    }
}

/// Every region there is, this server's own first.
pub(super) fn names<'a>(
    own: &'a str,
    regions: &'a [RegionConfig],
    nodes: &'a [NodeConfig],
) -> Vec<&'a str> {
    let mut names = vec![own];
    let listed = regions.iter().map(|region| region.name.as_str());
    for name in listed.chain(nodes.iter().filter_map(|node| node.region.as_deref())) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// What would not work, beginning with the key, in words for the person who wrote it.
pub fn check(
    own: &str,
    regions: &[RegionConfig],
    nodes: &[NodeConfig],
    geoip: &GeoipConfig,
) -> Result<(), String> {
    if regions.len() > MAX_REGIONS {
        return Err(format!("regions: {} entries; at most {MAX_REGIONS}", regions.len()));
    }
    for (i, region) in regions.iter().enumerate() {
        region.check().map_err(|text| format!("regions[{i}] ({}): {text}", region.name))?;
        if regions.iter().take(i).any(|other| other.name == region.name) {
            return Err(format!("regions[{i}]: {:?} is there twice", region.name));
        }
        if regions.first().is_some_and(|first| first.place().is_some() != region.place().is_some())
        {
            return Err(
                "regions: give all of them latitude and longitude, or none: the nearest of \
                        some is not the nearest"
                    .into(),
            );
        }
    }
    let is_listed = |name: &str| regions.iter().any(|region| region.name == name);
    if !regions.is_empty() {
        if !is_listed(own) {
            return Err(format!(
                "region: {own:?} is not one of [[regions]]; this server must stand in one of them"
            ));
        }
        for node in nodes {
            if node.region.as_deref().is_some_and(|name| !is_listed(name)) {
                let name = node.name();
                return Err(format!(
                    "turn.external ({name}): its region is not one of [[regions]]"
                ));
            }
        }
    }
    let known = names(own, regions, nodes);
    if geoip.networks.len() > MAX_NETWORKS {
        return Err(format!(
            "geoip.networks: {} entries; at most {MAX_NETWORKS}",
            geoip.networks.len()
        ));
    }
    for (network, name) in &geoip.networks {
        if !known.contains(&name.as_str()) {
            return Err(format!(
                "geoip.networks: {network} is given to {name:?}; expected one of {}",
                known.join(", ")
            ));
        }
    }
    let can_choose = |r: &RegionConfig| {
        r.place().is_some() || !r.countries.is_empty() || !r.continents.is_empty()
    };
    if geoip.database.is_some() && !regions.iter().any(can_choose) {
        return Err(
            "geoip.database: has nothing to choose from; give [[regions]] their latitude and \
                    longitude, countries or continents"
                .into(),
        );
    }
    if !(1..=30 * 86_400).contains(&geoip.cache_ttl_s) {
        return Err(format!("geoip.cache_ttl_s: {}: expected 1 to 2592000", geoip.cache_ttl_s));
    }
    if geoip.cache_entries > 1_000_000 {
        return Err(format!("geoip.cache_entries: {}: expected 0 to 1000000", geoip.cache_entries));
    }
    Ok(())
}

impl RegionConfig {
    fn check(&self) -> Result<(), String> {
        if !is_valid_id(&self.name) {
            return Err("name: expected 1 to 64 letters, digits, - or _".into());
        }
        if self.latitude.is_some() != self.longitude.is_some() {
            return Err("latitude and longitude belong together".into());
        }
        if let Some(place) = self.place()
            && !(place.latitude.abs() <= 90.0 && place.longitude.abs() <= 180.0)
        {
            return Err("expected latitude -90 to 90 and longitude -180 to 180, in degrees".into());
        }
        if self.countries.iter().any(|text| code(Some(text)).is_none()) {
            return Err("countries: expected two capital letters each, as in ISO 3166-1".into());
        }
        let continents = ["AF", "AN", "AS", "EU", "NA", "OC", "SA"];
        if self.continents.iter().any(|text| !continents.contains(&text.as_str())) {
            return Err(format!("continents: expected some of {}", continents.join(", ")));
        }
        let urls = [
            ("mqtt_public_url", &self.mqtt_public_url, ["mqtt://", "mqtts://"]),
            ("http_public_url", &self.http_public_url, ["http://", "https://"]),
        ];
        for (key, url, [plain, tls]) in urls {
            if url.as_ref().is_some_and(|url| !url.starts_with(plain) && !url.starts_with(tls)) {
                return Err(format!("{key}: expected {plain}… or {tls}…"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        regions: Vec<RegionConfig>,
        #[serde(default)]
        nodes: Vec<NodeConfig>,
        #[serde(default)]
        geoip: GeoipConfig,
    }

    fn checked(text: &str) -> Result<(), String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
        check("eu", &file.regions, &file.nodes, &file.geoip)
    }

    #[test]
    fn regions_need_no_more_than_names() {
        assert_eq!(checked(""), Ok(()));
        assert_eq!(checked("[geoip]\nnetworks = { '10.0.0.0/8' = 'eu' }"), Ok(()));
        let text = "geoip.networks = { '10.0.0.0/8' = 'us' }
            [[nodes]]\nurls = ['turn:a']\nregion = 'us'";
        assert_eq!(checked(text), Ok(()));
        let text = "geoip = { database = 'x.mmdb' }
            [[regions]]\nname = 'eu'\ncontinents = ['EU', 'AF']\n[[regions]]\nname = 'us'";
        assert_eq!(checked(text), Ok(()));
    }

    #[test]
    fn what_cannot_work_is_said() {
        let eu = "[[regions]]\nname = 'eu'\n";
        for (text, says) in [
            ("[[regions]]\nname = 'us'".into(), "region: \"eu\" is not one of"),
            (format!("{eu}{eu}"), "there twice"),
            (format!("{eu}latitude = 1.0"), "belong together"),
            (format!("{eu}latitude = 91.0\nlongitude = 0.0"), "-90 to 90"),
            (format!("{eu}latitude = 1.0\nlongitude = nan"), "-180 to 180"),
            (format!("{eu}latitude = 1.0\nlongitude = 1.0\n[[regions]]\nname='us'"), "or none"),
            (format!("{eu}countries = ['de']"), "ISO 3166"),
            (format!("{eu}continents = ['DE']"), "AF, AN"),
            (format!("{eu}mqtt_public_url = 'x'"), "mqtts://"),
            (format!("{eu}http_public_url = 'mqtt://x'"), "https://"),
            (format!("{eu}[[nodes]]\nurls=['turn:a']\nregion='us'"), "turn.external (a:3478)"),
            ("geoip.networks = { '10.0.0.0/8' = 'mars' }".into(), "expected one of eu"),
            ("geoip.networks = { '10.0.0.1/8' = 'eu' }".into(), "10.0.0.0/8"),
            (format!("geoip.database = 'x'\n{eu}"), "nothing to choose from"),
            ("geoip.cache_ttl_s = 0".into(), "cache_ttl_s"),
        ] {
            let error = checked(&text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
