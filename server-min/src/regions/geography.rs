//! How far apart two places are.

/// Degrees: north and east are positive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    pub(super) latitude: f64,
    pub(super) longitude: f64,
}

const EARTH_RADIUS_KM: f64 = 6371.0;

impl Place {
    /// Along the great circle, in kilometres (the haversine formula, which is exact enough at every
    /// distance).
    pub(super) fn distance_km(self, other: Place) -> f64 {
        let (a, b) = (self.latitude.to_radians(), other.latitude.to_radians());
        let half = |from: f64, to: f64| ((to - from) / 2.0).sin().powi(2);
        let across = half(self.longitude.to_radians(), other.longitude.to_radians());
        let h = half(a, b) + a.cos() * b.cos() * across;
        // Rounding may bring opposite points above 1.
        2.0 * EARTH_RADIUS_KM * h.min(1.0).sqrt().asin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(latitude: f64, longitude: f64) -> Place {
        Place { latitude, longitude }
    }

    #[test]
    fn distances_are_those_of_an_atlas() {
        let (frankfurt, virginia) = (place(50.11, 8.68), place(39.04, -77.49));
        let (tokyo, fiji, samoa) =
            (place(35.68, 139.69), place(-17.71, 178.07), place(-13.76, -172.10));
        for (a, b, km) in [
            (frankfurt, virginia, 6548.0),
            (frankfurt, tokyo, 9353.0),
            // Across the date line.
            (fiji, samoa, 1138.0),
            (place(90.0, 0.0), place(-90.0, 0.0), 20015.0),
            (place(0.0, -90.0), place(0.0, 90.0), 20015.0),
            (tokyo, tokyo, 0.0),
        ] {
            let found = a.distance_km(b);
            assert!((found - km).abs() < 25.0, "{a:?} {b:?}: {found}");
            assert!((found - b.distance_km(a)).abs() < 1e-6);
        }
    }
}
