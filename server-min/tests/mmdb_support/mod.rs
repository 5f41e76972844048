//! Writes databases in MaxMind's format (MaxMind DB 2.0), small ones for tests.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;

const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

/// A tree over the bits of IPv6 addresses, with IPv4 at `::/96`, and what its leaves point to.
pub(crate) struct Mmdb {
    kind: &'static str,
    nodes: Vec<[Slot; 2]>,
    data: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Slot {
    Empty,
    Node(usize),
    Data(usize),
}

impl Mmdb {
    pub(crate) fn new(kind: &'static str) -> Mmdb {
        Mmdb { kind, nodes: vec![[Slot::Empty; 2]], data: Vec::new() }
    }

    /// With coordinates, as a City database has them.
    pub(crate) fn city(self, network: &str, country: &str, latitude: f64, longitude: f64) -> Mmdb {
        let location = json!({"latitude": latitude, "longitude": longitude, "accuracy_radius": 20});
        self.insert(network, &json!({"country": {"iso_code": country}, "location": location}))
    }

    pub(crate) fn country(self, network: &str, country: &str, continent: &str) -> Mmdb {
        let names = json!({"en": "somewhere", "de": "irgendwo"});
        let continent = json!({"code": continent, "names": names});
        self.insert(network, &json!({"country": {"iso_code": country}, "continent": continent}))
    }

    pub(crate) fn insert(mut self, network: &str, value: &Value) -> Mmdb {
        let (address, prefix) = network.split_once('/').unwrap();
        let prefix: u32 = prefix.parse().unwrap();
        let (bits, prefix) = match address.parse().unwrap() {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), prefix + 96),
            IpAddr::V6(v6) => (u128::from(v6), prefix),
        };
        let leaf = Slot::Data(self.data.len());
        encode(value, &mut self.data);
        let mut node = 0;
        for depth in 0..prefix {
            let bit = usize::from(bits >> (127 - depth) & 1 == 1);
            if depth + 1 == prefix {
                assert!(matches!(self.nodes[node][bit], Slot::Empty), "{network} overlaps");
                self.nodes[node][bit] = leaf;
                break;
            }
            node = match self.nodes[node][bit] {
                Slot::Node(next) => next,
                Slot::Empty => {
                    self.nodes.push([Slot::Empty; 2]);
                    let next = self.nodes.len() - 1;
                    self.nodes[node][bit] = Slot::Node(next);
                    next
                }
                Slot::Data(_) => panic!("{network} overlaps"),
            };
        }
        self
    }

    pub(crate) fn write(&self, file: &Path, built_s: u64) {
        let count = self.nodes.len();
        let mut bytes = Vec::new();
        for slot in self.nodes.iter().flatten() {
            let number = match slot {
                Slot::Empty => count,
                Slot::Node(node) => *node,
                Slot::Data(offset) => count + 16 + offset,
            };
            bytes.extend_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
        }
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(&self.data);
        bytes.extend_from_slice(MARKER);
        control(MAP, 9, &mut bytes);
        for (key, kind, value) in [
            ("binary_format_major_version", UINT16, 2),
            ("binary_format_minor_version", UINT16, 0),
            ("build_epoch", UINT64, built_s),
            ("ip_version", UINT16, 6),
            ("node_count", UINT32, count as u64),
            ("record_size", UINT16, 32),
        ] {
            encode(&key.into(), &mut bytes);
            unsigned(kind, value, &mut bytes);
        }
        for (key, value) in [
            ("database_type", self.kind.into()),
            ("description", json!({"en": "made by a test"})),
            ("languages", json!(["en"])),
        ] {
            encode(&key.into(), &mut bytes);
            encode(&value, &mut bytes);
        }
        // Renamed into place, as geoipupdate does.
        let beside = file.with_extension("new");
        std::fs::write(&beside, &bytes).unwrap();
        maxminddb::Reader::open_readfile(&beside).unwrap().verify().unwrap();
        std::fs::rename(&beside, file).unwrap();
    }
}

const STRING: u8 = 2;
const DOUBLE: u8 = 3;
const UINT16: u8 = 5;
const UINT32: u8 = 6;
const MAP: u8 = 7;
const UINT64: u8 = 9;
const ARRAY: u8 = 11;

fn control(kind: u8, len: usize, into: &mut Vec<u8>) {
    let (low, more) = match len {
        0..=28 => (u8::try_from(len).unwrap(), None),
        29..=284 => (29, Some(u8::try_from(len - 29).unwrap())),
        _ => panic!("{len} bytes in one value of a test"),
    };
    // Types above 7 have a byte of their own.
    match kind {
        1..=7 => into.push(kind << 5 | low),
        _ => into.extend_from_slice(&[low, kind - 7]),
    }
    into.extend(more);
}

fn unsigned(kind: u8, value: u64, into: &mut Vec<u8>) {
    let bytes = value.to_be_bytes();
    let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    control(kind, bytes.len(), into);
    into.extend_from_slice(bytes);
}

fn encode(value: &Value, into: &mut Vec<u8>) {
    match value {
        Value::String(text) => {
            control(STRING, text.len(), into);
            into.extend_from_slice(text.as_bytes());
        }
        Value::Object(map) => {
            control(MAP, map.len(), into);
            for (key, value) in map {
                encode(&key.as_str().into(), into);
                encode(value, into);
            }
        }
        Value::Array(list) => {
            control(ARRAY, list.len(), into);
            list.iter().for_each(|value| encode(value, into));
        }
        Value::Number(number) => match number.as_u64() {
            Some(whole) => unsigned(UINT32, whole, into),
            None => {
                control(DOUBLE, 8, into);
                into.extend_from_slice(&number.as_f64().unwrap().to_be_bytes());
            }
        },
        other => panic!("{other} in a database of a test"),
    }
}
