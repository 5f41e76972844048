//! How many places each network address holds, so that one client cannot take them all. An IPv6
//! client has a whole /64 to itself, so that is what counts as its address.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

/// Counts places by address. No larger than the places that are taken; nothing at all without a limit.
pub(crate) struct PerAddress {
    most: usize,
    taken: RefCell<HashMap<IpAddr, usize>>,
}

/// One place, given back when dropped.
pub(crate) struct Place(Option<(Rc<PerAddress>, IpAddr)>);

impl PerAddress {
    /// `most` places for each address; 0 for no limit.
    pub(crate) fn new(most: usize) -> Rc<PerAddress> {
        Rc::new(PerAddress { most, taken: RefCell::default() })
    }

    /// A place for `ip`, unless it has all it may.
    pub(crate) fn take(self: &Rc<Self>, ip: IpAddr) -> Option<Place> {
        if self.most == 0 {
            return Some(Place(None));
        }
        let ip = network(ip);
        let mut taken = self.taken.borrow_mut();
        let count = taken.entry(ip).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place(Some((self.clone(), ip))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((counts, ip)) = &self.0 else { return };
        let mut taken = counts.taken.borrow_mut();
        if let Some(count) = taken.get_mut(ip) {
            *count -= 1;
            if *count == 0 {
                taken.remove(ip);
            }
        }
    }
}

/// What one client has of addresses: one of IPv4, a /64 of IPv6.
pub(crate) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_places_and_gives_them_back() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let places = PerAddress::new(2);
        let first = places.take(ip("192.0.2.1")).unwrap();
        let mapped = places.take(ip("::ffff:192.0.2.1")).unwrap();
        assert!(places.take(ip("192.0.2.1")).is_none());
        let _neighbour = places.take(ip("192.0.2.2")).unwrap();
        drop(first);
        let _again = places.take(ip("192.0.2.1")).unwrap();
        drop(mapped);
        // All of a /64 is one client.
        let six: Vec<Place> =
            ["2001:db8::1", "2001:db8::2:3"].map(|text| places.take(ip(text)).unwrap()).into();
        assert!(places.take(ip("2001:db8::ffff")).is_none());
        assert!(places.take(ip("2001:db8:0:1::1")).is_some());
        drop(six);
        assert_eq!(places.taken.borrow().len(), 2);
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let places = PerAddress::new(0);
        let held: Vec<_> = (0..100).map(|_| places.take([127, 0, 0, 1].into()).unwrap()).collect();
        assert!(places.taken.borrow().is_empty());
        drop(held);
    }
}
