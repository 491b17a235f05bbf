//! One mapping from kernel time to wall time, for everything that the agent stamps.
//!
//! Kernel time is `CLOCK_MONOTONIC` in nanoseconds, what `bpf_ktime_get_ns` gives: it never steps and stands still
//! while the host sleeps. Wall time is nanoseconds since the epoch. The offset between the two is sampled
//! about once a second, so a stepped, slewed or resumed wall clock is followed within that time, and two stamps made
//! between two samples are as far apart as the kernel times were.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use nix::time::{ClockId, clock_gettime};

/// Samples per refresh, of which the tightest counts.
const SAMPLES: usize = 5;
/// A change of the offset beyond this is a step, nanoseconds: well above what slewing moves within a second or two.
const STEP_NS: u64 = 10_000_000;

/// The mapping. Shared by reference; reading it takes one atomic load.
#[derive(Debug)]
pub struct Clock {
    offset_ns: AtomicI64,
    steps: AtomicU64,
}

impl Clock {
    /// Samples the clocks for the first time.
    pub fn new() -> nix::Result<Self> {
        Ok(Self { offset_ns: AtomicI64::new(sample_offset_ns()?), steps: AtomicU64::new(0) })
    }

    /// Samples the clocks again; call it about once a second. Returns by how many nanoseconds wall time stepped
    /// against kernel time (more than 10 ms: set by hand or by a time daemon, or the host slept), `None` when it
    /// did not.
    pub fn refresh(&self) -> nix::Result<Option<i64>> {
        Ok(self.update(sample_offset_ns()?))
    }

    fn update(&self, offset_ns: i64) -> Option<i64> {
        let moved = offset_ns.saturating_sub(self.offset_ns.swap(offset_ns, Ordering::Relaxed));
        if moved.unsigned_abs() <= STEP_NS {
            return None;
        }
        self.steps.fetch_add(1, Ordering::Relaxed);
        Some(moved)
    }

    /// How many steps were seen since the start.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Kernel time (nanoseconds of `CLOCK_MONOTONIC`) as wall time (nanoseconds since the epoch).
    pub fn wall_ns(&self, ktime_ns: u64) -> i64 {
        i64::try_from(ktime_ns).unwrap_or(i64::MAX).saturating_add(self.offset_ns.load(Ordering::Relaxed))
    }

    /// Wall time now (nanoseconds since the epoch), by the same mapping as everything else: two calls between two
    /// samples never go backwards.
    pub fn now(&self) -> i64 {
        self.wall_ns(ktime_ns())
    }
}

/// Kernel time now: `CLOCK_MONOTONIC`, nanoseconds since boot without sleep. 0 should the clock be unreadable,
/// which no kernel does.
pub fn ktime_ns() -> u64 {
    read(ClockId::CLOCK_MONOTONIC).ok().and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0)
}

fn read(clock: ClockId) -> nix::Result<i64> {
    let time = clock_gettime(clock)?;
    Ok(time.tv_sec().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec()))
}

/// One reading of the wall clock between two of the monotonic one, all in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    before: i64,
    wall: i64,
    after: i64,
}

impl Sample {
    fn take() -> nix::Result<Self> {
        let before = read(ClockId::CLOCK_MONOTONIC)?;
        let wall = read(ClockId::CLOCK_REALTIME)?;
        Ok(Self { before, wall, after: read(ClockId::CLOCK_MONOTONIC)? })
    }

    /// How long the three readings took: the offset is exact within half of it.
    fn width(self) -> i64 {
        self.after.saturating_sub(self.before)
    }

    fn offset(self) -> i64 {
        self.wall.saturating_sub(self.before.saturating_add(self.width() / 2))
    }
}

fn sample_offset_ns() -> nix::Result<i64> {
    let mut best = Sample::take()?;
    for _ in 1..SAMPLES {
        best = tighter(best, Sample::take()?);
    }
    Ok(best.offset())
}

/// The sample that was interrupted less; the later one of equals.
fn tighter(a: Sample, b: Sample) -> Sample {
    if a.width() < b.width() { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(offset_ns: i64) -> Clock {
        Clock { offset_ns: AtomicI64::new(offset_ns), steps: AtomicU64::new(0) }
    }

    #[test]
    fn the_tightest_sample_gives_the_offset() {
        let interrupted = Sample { before: 100, wall: 1_000_090, after: 90_100 };
        let tight = Sample { before: 200_000, wall: 1_200_010, after: 200_020 };
        assert_eq!(tighter(interrupted, tight).offset(), 1_000_000);
        assert_eq!(tighter(tight, interrupted).offset(), 1_000_000);
    }

    #[test]
    fn kernel_time_maps_by_the_last_offset() {
        let clock = clock(1_000);
        assert_eq!(clock.wall_ns(5), 1_005);
        assert_eq!(clock.update(2_000), None);
        assert_eq!(clock.wall_ns(5), 2_005);
    }

    #[test]
    fn a_step_in_either_direction_is_followed_and_counted() {
        let clock = clock(1_000_000_000_000);
        assert_eq!(clock.update(1_003_600_000_000), Some(3_600_000_000));
        assert_eq!(clock.update(900_000_000_000), Some(-103_600_000_000));
        assert_eq!(clock.steps(), 2);
        assert_eq!(clock.wall_ns(1), 900_000_000_001);
    }

    #[test]
    fn slewing_is_no_step() {
        let clock = clock(0);
        for second in 1..=100 {
            assert_eq!(clock.update(second * 500_000), None);
        }
        assert_eq!(clock.steps(), 0);
    }

    #[test]
    fn times_beyond_the_range_saturate() {
        assert_eq!(clock(1).wall_ns(u64::MAX), i64::MAX);
    }

    #[test]
    fn now_is_between_two_readings_of_the_wall_clock() {
        let clock = Clock::new().unwrap();
        let before = read(ClockId::CLOCK_REALTIME).unwrap();
        let now = clock.now();
        let after = read(ClockId::CLOCK_REALTIME).unwrap();
        assert!(before - 1_000_000 <= now && now <= after + 1_000_000, "{before} {now} {after}");
    }
}
