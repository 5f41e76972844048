//! A GeoIP database in MaxMind's format: where in the world an address is.

use super::geography::Place;
use maxminddb::Reader;
use serde::Deserialize;
use std::net::IpAddr;
use std::path::Path;

/// What a database knows of an address. A Country database has no coordinates.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Found {
    /// ISO 3166-1 alpha-2.
    pub(super) country: Option<[u8; 2]>,
    /// AF, AN, AS, EU, NA, OC or SA.
    pub(super) continent: Option<[u8; 2]>,
    pub(super) place: Option<Place>,
}

pub(super) struct Database {
    reader: Reader<Vec<u8>>,
}

/// Of all that a record holds.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    country: Option<Country<'a>>,
    #[serde(borrow)]
    registered_country: Option<Country<'a>>,
    #[serde(borrow)]
    continent: Option<Continent<'a>>,
    location: Option<Location>,
}

#[derive(Deserialize)]
struct Country<'a> {
    iso_code: Option<&'a str>,
}

#[derive(Deserialize)]
struct Continent<'a> {
    code: Option<&'a str>,
}

#[derive(Deserialize)]
struct Location {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

impl Database {
    /// Reads the whole file into memory. The error says what is wrong with it.
    pub(super) fn open(path: &Path) -> Result<Database, String> {
        let reader = Reader::open_readfile(path).map_err(|e| {
            format!(
                "{}: {e}; expected a GeoIP database of cities or countries (.mmdb)",
                path.display()
            )
        })?;
        Ok(Database { reader })
    }

    /// `GeoLite2-City of 1750933436`: what kind of database this is, and from when.
    pub(super) fn kind(&self) -> String {
        let metadata = self.reader.metadata();
        format!("{} of {}", metadata.database_type, metadata.build_epoch)
    }

    /// Unix seconds.
    pub(super) fn built_s(&self) -> u64 {
        self.reader.metadata().build_epoch
    }

    /// `None` where nothing is known. The error says how the database is broken.
    pub(super) fn look_up(&self, address: IpAddr) -> Result<Option<Found>, String> {
        // A database of IPv4 alone knows nothing of IPv6, which is no fault.
        if address.is_ipv6() && self.reader.metadata().ip_version == 4 {
            return Ok(None);
        }
        let found = self.reader.lookup(address).and_then(|found| found.decode::<Record<'_>>());
        let Some(record) = found.map_err(|e| e.to_string())? else { return Ok(None) };
        // Where somebody's addresses are registered is better than nothing.
        let country = [record.country, record.registered_country]
            .into_iter()
            .find_map(|country| code(country?.iso_code));
        let place = record.location.and_then(|location| {
            Some(Place { latitude: location.latitude?, longitude: location.longitude? })
        });
        let continent = code(record.continent.and_then(|continent| continent.code));
        Ok(Some(Found { country, continent, place }))
    }
}

/// Two capital letters.
pub(super) fn code(text: Option<&str>) -> Option<[u8; 2]> {
    let code: [u8; 2] = text?.as_bytes().try_into().ok()?;
    code.iter().all(u8::is_ascii_uppercase).then_some(code)
}
