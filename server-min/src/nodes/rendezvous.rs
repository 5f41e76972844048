//! Rendezvous hashing ("highest random weight", Thaler and Ravishankar 1998): each node draws a number
//! from the session's id and its own name, and the highest draw serves. A node that leaves takes only
//! its own sessions with it, each to the next of that session's own order; one that comes takes only
//! what it wins.
//!
//! A ring of virtual nodes does the same less well: see the test at the foot of this file, which
//! measures both.

use ring::digest::{SHA256, digest};

/// The number a session or a node brings. From SHA-256, so that all server-mins, of every version and
/// on every machine, agree.
pub(super) fn key(text: &str) -> u64 {
    let digest = digest(&SHA256, text.as_bytes());
    digest.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// What a node draws for a session; the highest serves. With a weight of 2 it is the highest twice as
/// often as with 1 (a draw from an exponential distribution with that rate, the earliest first).
pub(super) fn score(session: u64, node: u64, weight: u32) -> f64 {
    // 53 bits, as many as a float holds, and never 0 or 1.
    let uniform = ((mixed(session ^ node) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(weight) / -uniform.ln()
}

/// MurmurHash3's finaliser: every bit of the input changes half of the output's.
fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const SESSIONS: usize = 20_000;

    fn nodes(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("turn{i}.example.org:3478")).collect()
    }

    fn sessions() -> Vec<u64> {
        (0..SESSIONS).map(|i| key(&format!("550e8400-e29b-41d4-a716-{i:012x}"))).collect()
    }

    /// The number of the node that serves each session.
    fn all_serving(nodes: &[String]) -> Vec<usize> {
        let keys: Vec<u64> = nodes.iter().map(|name| key(name)).collect();
        let highest = |session| {
            let drawn = |i: &usize| score(session, keys[*i], 1);
            (0..keys.len()).max_by(|a, b| drawn(a).total_cmp(&drawn(b))).unwrap()
        };
        sessions().into_iter().map(highest).collect()
    }

    /// What the alternative does: `points` of each node on a circle, the next one clockwise serves.
    struct Ring(BTreeMap<u64, usize>);

    impl Ring {
        fn new(nodes: &[String], points: usize) -> Ring {
            let all = nodes.iter().enumerate();
            Ring(
                all.flat_map(|(i, n)| (0..points).map(move |p| (key(&format!("{n}#{p}")), i)))
                    .collect(),
            )
        }

        fn serving(&self, session: u64) -> usize {
            *self.0.range(session..).chain(&self.0).next().unwrap().1
        }
    }

    /// The busiest node's share against the mean, and how many sessions moved when one node came:
    /// in all, and between nodes that were there before.
    fn measured(before: &[usize], after: &[usize], nodes: usize) -> (f64, usize, usize) {
        let mut load = vec![0_usize; nodes];
        before.iter().for_each(|node| load[*node] += 1);
        let busiest = *load.iter().max().unwrap() as f64 / (SESSIONS as f64 / nodes as f64);
        let moved = before.iter().zip(after).filter(|(a, b)| a != b);
        (busiest, moved.clone().count(), moved.filter(|(_, to)| **to != nodes).count())
    }

    #[test]
    fn a_node_that_comes_takes_its_share_and_nothing_else_moves() {
        for count in [1, 2, 3, 5, 10, 40] {
            let (old, new) = (nodes(count), nodes(count + 1));
            let (before, after) = (all_serving(&old), all_serving(&new));
            let (busiest, moved, between_old) = measured(&before, &after, count);
            let share = SESSIONS as f64 / (count + 1) as f64;
            println!(
                "{count} nodes and one more: {moved} of {SESSIONS} moved, 1/(N+1) is {share:.0}"
            );
            assert_eq!(between_old, 0);
            // Five standard deviations of as many independent draws.
            let spread = 5.0 * (share * (1.0 - 1.0 / (count + 1) as f64)).sqrt();
            assert!((moved as f64 - share).abs() < spread, "{moved} moved, expected {share}");

            // The alternative, with as many points as its users take.
            let ring = |nodes: &[String]| -> Vec<usize> {
                let ring = Ring::new(nodes, 160);
                sessions().into_iter().map(|session| ring.serving(session)).collect()
            };
            let (ring_busiest, ring_moved, _) = measured(&ring(&old), &ring(&new), count);
            println!(
                "  busiest node {busiest:.3} of the mean; a ring: {ring_busiest:.3}, {ring_moved} moved"
            );
            if count >= 5 {
                assert!(busiest < ring_busiest, "{busiest} {ring_busiest}");
            }
        }
    }

    #[test]
    fn who_loses_its_node_goes_to_the_next_of_its_own_order() {
        let all = nodes(5);
        for gone in 0..all.len() {
            let left: Vec<String> = all
                .iter()
                .enumerate()
                .filter(|(i, _)| *i != gone)
                .map(|(_, n)| n.clone())
                .collect();
            let mut heirs = vec![0; left.len()];
            for (before, after) in all_serving(&all).into_iter().zip(all_serving(&left)) {
                match before == gone {
                    true => heirs[after] += 1,
                    false => assert_eq!(all[before], left[after]),
                }
            }
            // The load of the one that left is shared by all, not heaped on one neighbour.
            let mean = SESSIONS / 5 / 4;
            assert!(heirs.iter().all(|n| (mean * 3 / 4..mean * 5 / 4).contains(n)), "{heirs:?}");
        }
    }

    #[test]
    fn a_weight_is_a_share() {
        let weights = [1, 2, 5];
        let mut load = [0_usize; 3];
        for session in sessions() {
            let drawn = |i: &usize| score(session, key(&format!("n{i}")), weights[*i]);
            load[(0..3).max_by(|a, b| drawn(a).total_cmp(&drawn(b))).unwrap()] += 1;
        }
        for (load, weight) in load.iter().zip(weights) {
            let share = SESSIONS as f64 * f64::from(weight) / 8.0;
            assert!((*load as f64 - share).abs() < 5.0 * share.sqrt(), "{load}, expected {share}");
        }
    }

    /// Other versions must choose alike while a fleet is updated: these numbers never change.
    #[test]
    fn the_order_is_fixed_for_ever() {
        let node = key("turn1.example.org:3478");
        assert_eq!(node, 0xd3db_0ad4_94b6_68e6);
        let session = key("550e8400-e29b-41d4-a716-446655440000");
        assert_eq!(mixed(session ^ node), 0xc61c_39b4_fdbf_7164);
    }
}
