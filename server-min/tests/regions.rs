//! The nearest region, from real databases in MaxMind's format, over the real API.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;
mod mmdb_support;

use api_support::{APP_KEY, Response, bearer, config, get, metric, request, with_server};
use mmdb_support::Mmdb;
use serde_json::{Value, json};
use server_min::regions::{By, Regions};
use server_min::server::Server;
use server_min::stun_turn::{TurnConfig, TurnHandle, TurnServer};
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

const REGIONS: &str = "[
    {name='eu-1', latitude=50.11, longitude=8.68, mqtt_public_url='mqtts://eu.example.org:8883',
     http_public_url='https://eu.example.org/'},
    {name='us-east', latitude=39.04, longitude=-77.49},
    {name='us-west', latitude=45.84, longitude=-119.70},
    {name='tokyo', latitude=35.68, longitude=139.69, countries=['CN']}]";

/// A relay in each region, as other server-mins would be.
fn relays() -> [(&'static str, TurnHandle); 4] {
    ["eu-1", "us-east", "us-west", "tokyo"].map(|region| {
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        let config = TurnConfig { listen, secrets: vec![region.into()], ..TurnConfig::default() };
        (region, TurnServer::start(config, Arc::new(())).unwrap())
    })
}

/// A folder that is removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path =
            std::env::temp_dir().join(format!("p2pcam-regions-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn database(&self, database: &Mmdb, built_s: u64) -> String {
        let file = self.0.join("geo.mmdb");
        database.write(&file, built_s);
        file.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Addresses of RFC 5737 and RFC 3849, moved about the world.
fn cities() -> Mmdb {
    Mmdb::new("GeoLite2-City")
        .city("192.0.2.0/26", "FR", 48.85, 2.35)
        .city("192.0.2.64/26", "CA", 43.70, -79.42)
        .city("192.0.2.128/26", "US", 47.61, -122.33)
        .city("198.51.100.0/24", "AU", -33.87, 151.21)
        .city("203.0.113.0/25", "CN", 43.80, 87.60)
        .city("2001:db8:1::/48", "BR", -23.55, -46.63)
        .insert("203.0.113.128/25", &json!({"country": {"iso_code": "DE"}}))
}

fn by(regions: &Regions, asked: Option<&str>, address: &str) -> (String, By) {
    let choice = regions.choose(asked, address.parse().unwrap(), 0);
    (choice.region.to_owned(), choice.by)
}

#[test]
fn the_nearest_region_serves() {
    let folder = Folder::new("nearest");
    let file = folder.database(&cities(), 1);
    let networks = "{'192.0.2.64/28'='tokyo', '192.0.2.64/30'='us-west', '10.0.0.0/8'='tokyo'}";
    let settings = [("regions", REGIONS), ("geoip.database", &file), ("geoip.networks", networks)];
    let regions = Regions::open(&config(&settings)).unwrap();
    for (asked, address, region, how) in [
        (None, "192.0.2.1", "eu-1", By::Geoip),
        (None, "::ffff:192.0.2.1", "eu-1", By::Geoip),
        (None, "192.0.2.100", "us-east", By::Geoip),
        (None, "192.0.2.130", "us-west", By::Geoip),
        (None, "198.51.100.9", "tokyo", By::Geoip),
        (None, "2001:db8:1:2::3", "us-east", By::Geoip),
        // Urumqi is nearer to Frankfurt; but the operator says that China belongs to Tokyo.
        (None, "203.0.113.1", "tokyo", By::Geoip),
        // What the request asks for goes before all, if there is such a region.
        (Some("us-west"), "192.0.2.1", "us-west", By::Request),
        (Some("mars"), "192.0.2.1", "eu-1", By::Geoip),
        (Some("US-WEST"), "192.0.2.130", "us-west", By::Geoip),
        // The longest prefix goes before the database.
        (None, "192.0.2.65", "us-west", By::Network),
        (None, "192.0.2.70", "tokyo", By::Network),
        (Some("eu-1"), "192.0.2.70", "eu-1", By::Request),
        (None, "10.1.2.3", "tokyo", By::Network),
        // Known without a place, not known, in no database.
        (None, "203.0.113.200", "eu-1", By::Default),
        (None, "192.0.2.200", "eu-1", By::Default),
        (None, "2001:db8:2::1", "eu-1", By::Default),
    ] {
        let found = by(&regions, asked, address);
        assert_eq!(found, (region.to_owned(), how), "{asked:?} {address}");
    }
}

#[test]
fn a_database_of_countries_chooses_by_country_and_continent() {
    let folder = Folder::new("countries");
    let database = Mmdb::new("GeoLite2-Country")
        .country("192.0.2.0/25", "DE", "EU")
        .country("192.0.2.128/25", "GB", "EU")
        .country("198.51.100.0/24", "ZA", "AF")
        .country("2001:db8::/32", "JP", "AS")
        .insert("203.0.113.0/24", &json!({"registered_country": {"iso_code": "GB"}}));
    let file = folder.database(&database, 1);
    let list = "[{name='eu-1', continents=['EU', 'AF']}, {name='uk', countries=['GB']},
                 {name='asia', continents=['AS', 'OC']}]";
    let settings = [("regions", list), ("geoip.database", &*file)];
    let regions = Regions::open(&config(&settings)).unwrap();
    for (address, region) in [
        ("192.0.2.1", "eu-1"),
        ("192.0.2.129", "uk"),
        ("198.51.100.1", "eu-1"),
        ("2001:db8::1", "asia"),
        ("203.0.113.1", "uk"),
    ] {
        assert_eq!(by(&regions, None, address), (region.to_owned(), By::Geoip), "{address}");
    }
}

#[test]
fn farther_regions_follow_in_the_order_of_their_distance() {
    let regions = Regions::open(&config(&[("regions", REGIONS)])).unwrap();
    let order = |from: &str| {
        let mut all = ["eu-1", "us-east", "us-west", "tokyo"];
        all.sort_by_key(|to| regions.rank(from, to));
        all
    };
    assert_eq!(order("eu-1"), ["eu-1", "us-east", "us-west", "tokyo"]);
    assert_eq!(order("tokyo"), ["tokyo", "us-west", "eu-1", "us-east"]);
    assert_eq!(order("us-west"), ["us-west", "us-east", "tokyo", "eu-1"]);
}

async fn create(server: &Server, region: Option<&str>, headers: &[String]) -> Response {
    let mut body = json!({"deviceId": "cam_1", "appId": "app_1"});
    if let Some(region) = region {
        body["region"] = region.into();
    }
    let headers = [&[bearer(APP_KEY)], headers].concat();
    request(server.http, "POST", "/v1/sessions", &headers, &body.to_string()).await
}

async fn record(server: &Server, session: &Value) -> Value {
    let path = format!("/v1/sessions/{}", session["sessionId"].as_str().unwrap());
    request(server.http, "GET", &path, &[bearer(APP_KEY)], "").await.json()
}

#[test]
fn a_session_is_served_near_its_viewer() {
    let folder = Folder::new("api");
    let file = folder.database(&cities(), 1_750_933_436);
    let relays = relays();
    let nodes = relays.iter().map(|(region, relay)| {
        let address = relay.local_addrs()[0];
        format!("{{urls=['turn:{address}'], secret='{region}', region='{region}'}}")
    });
    let nodes = format!("[{}]", nodes.collect::<Vec<_>>().join(","));
    let at = |region: &str| {
        relays.iter().find(|(other, _)| *other == region).unwrap().1.local_addrs()[0]
    };
    let settings = [
        ("regions", REGIONS),
        ("turn.external", &nodes),
        ("turn.listen", "[]"),
        ("geoip.database", &file),
        ("http.trusted_proxies", "['127.0.0.0/8']"),
    ];
    with_server(&settings, |server| async move {
        let from = |address: &str| vec![format!("X-Forwarded-For: 10.9.9.9, {address}")];
        for (asked, address, region) in [
            (None, "192.0.2.1", "eu-1"),
            (None, "192.0.2.100", "us-east"),
            (None, "192.0.2.101", "us-east"),
            (None, "192.0.2.100", "us-east"),
            (Some("tokyo"), "192.0.2.100", "tokyo"),
            (Some("mars"), "192.0.2.130", "us-west"),
        ] {
            let session = create(&server, asked, &from(address)).await.json();
            let urls = &session["iceServers"][1]["urls"];
            assert_eq!(*urls, json!([format!("turn:{}?transport=udp", at(region))]), "{address}");
            let kept = record(&server, &session).await;
            assert_eq!(kept["region"], region);
            assert_eq!(kept["stunServer"], at(region).to_string());
            let is_eu = region == "eu-1";
            assert_eq!(session["mqtt"]["url"] == "mqtts://eu.example.org:8883", is_eu);
            assert_eq!(session["mqtt"]["wsUrl"] == "wss://eu.example.org/mqtt", is_eu);
        }
        for (name, value) in [
            ("region_sessions_total{region=\"us-east\",by=\"geoip\"}", 3.0),
            ("region_sessions_total{region=\"us-west\",by=\"geoip\"}", 1.0),
            ("region_sessions_total{region=\"tokyo\",by=\"request\"}", 1.0),
            ("geoip_lookups_total{from=\"database\"}", 4.0),
            ("geoip_lookups_total{from=\"cache\"}", 1.0),
            ("geoip_database_build_timestamp_seconds", 1_750_933_436.0),
            (
                &*format!(
                    "turn_node_sessions_total{{node=\"{}\",region=\"us-east\"}}",
                    at("us-east")
                ),
                3.0,
            ),
        ] {
            assert_eq!(metric(server.http, name).await, value, "{name}");
        }
        let reply = create(&server, Some("a b"), &[]).await;
        assert!(reply.status == 400 && reply.error().contains("region"));
        server
    });
}

#[test]
fn a_stranger_cannot_choose_by_a_header() {
    let settings = [("regions", REGIONS), ("geoip.networks", "{'192.0.2.0/24'='tokyo'}")];
    let header = ["X-Forwarded-For: 192.0.2.1".to_owned()];
    with_server(&settings, |server| async move {
        let session = create(&server, None, &header).await.json();
        assert_eq!(record(&server, &session).await["region"], "eu-1");
        // A region whose nodes are none is still recorded; the nearest node serves it.
        let session = create(&server, Some("tokyo"), &[]).await.json();
        assert_eq!(record(&server, &session).await["region"], "tokyo");
        let own = format!("stun:{}", server.stun[0]);
        assert_eq!(session["iceServers"][0]["urls"], json!([own]));
        server
    });
    // Without any region, what is asked for is not there.
    with_server(&[], |server| async move {
        let session = create(&server, Some("tokyo"), &[]).await.json();
        assert_eq!(record(&server, &session).await["region"], "eu-1");
        let text = get(server.http, "/metrics").await.body;
        assert!(text.contains("region_sessions_total{region=\"eu-1\",by=\"default\"} 1"), "{text}");
        server
    });
}

#[test]
fn the_database_is_read_again_and_a_broken_one_is_not_taken() {
    let folder = Folder::new("reload");
    let file = folder.database(&cities(), 1);
    let settings = [("regions", REGIONS), ("geoip.database", &*file)];
    with_server(&settings, |server| async {
        let regions = &server.placement.regions;
        assert_eq!(by(regions, None, "192.0.2.1").0, "eu-1");
        // Everybody moved to Tokyo.
        let moved = Mmdb::new("GeoLite2-City").city("192.0.2.0/24", "JP", 35.0, 135.0);
        folder.database(&moved, 2);
        assert_eq!(by(regions, None, "192.0.2.1").0, "eu-1", "not before it is told");
        server.placement.reload(&config(&settings)).await.unwrap();
        assert_eq!(by(regions, None, "192.0.2.1").0, "tokyo", "the cache is forgotten, too");

        let whole = fs::read(&file).unwrap();
        for broken in [&b""[..], b"no database", &whole[..whole.len() / 2]] {
            fs::write(&file, broken).unwrap();
            let error = server.placement.reload(&config(&settings)).await.unwrap_err();
            assert!(error.contains("geoip.database") && error.contains(".mmdb"), "{error}");
            assert_eq!(by(regions, None, "192.0.2.1").0, "tokyo");
        }
        fs::remove_file(&file).unwrap();
        assert!(server.placement.reload(&config(&settings)).await.is_err());
        assert_eq!(by(regions, None, "192.0.2.77").0, "tokyo");
        server
    });
    let missing = Regions::open(&config(&settings)).err().unwrap();
    assert!(missing.contains("geoip.database") && missing.contains("geo.mmdb"), "{missing}");
}

/// Whatever is in the file: an answer or none, never a panic, and a word in the metrics.
#[test]
fn a_database_with_flipped_bytes_panics_nowhere() {
    let folder = Folder::new("flipped");
    let file = folder.database(&cities(), 1);
    let whole = fs::read(&file).unwrap();
    let settings = [("regions", REGIONS), ("geoip.database", &*file)];
    let config = config(&settings);
    let addresses = ["192.0.2.1", "198.51.100.1", "203.0.113.130", "2001:db8:1::1", "2001:db9::1"];
    let mut opened = 0;
    // The tree is large and mostly alike; what follows it is looked at byte by byte.
    let interesting = (0..whole.len()).filter(|i| i % 401 == 0 || *i > whole.len() - 500);
    for i in interesting {
        for flip in [0x01, 0x80] {
            let mut bytes = whole.clone();
            bytes[i] ^= flip;
            fs::write(&file, &bytes).unwrap();
            let Ok(regions) = Regions::open(&config) else { continue };
            opened += 1;
            for address in addresses {
                let address: IpAddr = address.parse().unwrap();
                regions.choose(None, address, 0);
            }
        }
    }
    assert!(opened > 100, "{opened}");
}
