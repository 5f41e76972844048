//! What one side costs while it works, and two sides in turn.

use hil_tests::clock;
use hil_tests::report::percentile;
use hil_tests::usage::cpu_ms;
use std::time::{Duration, Instant};

/// The median of what each side gave, measured in turn, `rounds` times: A B, A B, … What disturbs
/// the machine for a while disturbs both. The first error ends it.
pub(crate) fn in_turn<const N: usize>(
    rounds: usize,
    mut one: impl FnMut(usize) -> Result<f64, String>,
) -> Result<[f64; N], String> {
    let mut values: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..rounds {
        for (side, values) in values.iter_mut().enumerate() {
            values.push(one(side)?);
        }
    }
    Ok(values.map(|values| median(&values)))
}

pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5).unwrap_or(f64::NAN)
}

/// CPU time of the process in microseconds for each of what `work` says it did.
pub(crate) fn cpu_us_each(
    pid: u32,
    work: impl FnOnce() -> Result<u64, String>,
) -> Result<f64, String> {
    let before = cpu_ms(pid)?;
    let done = work()?;
    Ok((cpu_ms(pid)? - before) * 1000.0 / done as f64)
}

/// Calls `step` `per_s` times a second, evenly, until the window is over; how many times that was.
/// Waits without sleeping: a sleep ends too late, and what was due would go out in a bunch. For the
/// same reason what was due while the machine was busy with something else is left out.
pub(crate) fn evenly(
    per_s: u32,
    window: Duration,
    mut step: impl FnMut(u64) -> Result<(), String>,
) -> Result<u64, String> {
    let gap = Duration::from_secs(1) / per_s.max(1);
    let start = clock::now();
    let (mut count, mut due) = (0, start);
    while due < start + window {
        let mut now = clock::now();
        while now < due {
            std::hint::spin_loop();
            now = clock::now();
        }
        step(count)?;
        count += 1;
        due = if now > due + MOST_LATE { now + gap } else { due + gap };
    }
    Ok(count)
}

/// What is later than this is not made up for.
const MOST_LATE: Duration = Duration::from_micros(500);

/// When the `i`th of so many a second has its turn.
pub(crate) fn due(start: Instant, i: u64, per_s: u32) -> Instant {
    start + Duration::from_nanos(i * 1_000_000_000 / u64::from(per_s.max(1)))
}

/// Takes what arrives until all of it has, or nothing more will; the sum.
pub(crate) fn settle(sent: u64, mut arrived: u64, mut take: impl FnMut() -> u64) -> u64 {
    let start = clock::now();
    loop {
        arrived += take();
        if arrived >= sent || start.elapsed() > Duration::from_millis(500) {
            return arrived;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What came of what was sent. A few may be lost where the machine has other work; more means that
/// not all of the work was done, and nothing was measured.
pub(crate) fn expect_nearly_all(what: &str, sent: u64, arrived: u64) -> Result<u64, String> {
    match arrived * 100 >= sent * 95 {
        true => Ok(arrived),
        false => Err(format!(
            "{arrived} of {sent} {what} arrived: the server or the machine is overloaded"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_have_their_turn_and_the_median_counts() {
        let mut turns = Vec::new();
        let medians = in_turn(3, |side| {
            turns.push(side);
            Ok((turns.len() * 10 + side) as f64)
        });
        assert_eq!(medians, Ok([30.0, 41.0]));
        assert_eq!(turns, [0, 1, 0, 1, 0, 1]);
        let failed: Result<[f64; 1], String> = in_turn(3, |_| Err("no".into()));
        assert_eq!(failed, Err("no".into()));
    }

    #[test]
    fn half_of_it_is_no_measurement() {
        assert_eq!(expect_nearly_all("packets", 100, 95), Ok(95));
        assert!(expect_nearly_all("packets", 100, 94).unwrap_err().contains("94 of 100"));
    }
}
