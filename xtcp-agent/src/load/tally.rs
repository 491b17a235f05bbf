//! What was done so far, and what went wrong.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pace::{Ended, Stop};
use super::{LoadError, say};

/// Errors that are told one by one; the rest is counted.
const TOLD: u64 = 5;
/// Failures one after the other from which on no more is tried.
const PATIENCE: u64 = 100;
/// Time between two lines of progress.
const EVERY: Duration = Duration::from_secs(1);

/// A number that many threads count.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// One more.
    pub(super) fn one(&self) {
        self.add(1);
    }

    /// So many more.
    pub(super) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// How many.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The number of this one, counted from 0.
    pub(super) fn take(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of this one, if it is below `end`.
    pub(super) fn take_below(&self, end: u64) -> Option<u64> {
        let next = |number| (number < end).then_some(number + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()
    }

    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Errors of all threads.
#[derive(Debug, Default)]
pub(super) struct Faults {
    all: Count,
    in_a_row: Count,
    fatal: Mutex<Option<LoadError>>,
}

impl Faults {
    /// Something went well.
    pub(super) fn none(&self) {
        self.in_a_row.reset();
    }

    /// Something went wrong: told if it is among the first, and the end if it cannot go better.
    pub(super) fn take(&self, error: LoadError, stop: &Stop) {
        let number = self.all.take();
        let tries = self.in_a_row.take() + 1;
        if error.is_final() || tries >= PATIENCE {
            let fatal =
                if error.is_final() { error } else { LoadError::Hopeless { tries, last: error.to_string() } };
            // Only the first is told.
            self.lock().get_or_insert(fatal);
            stop.end(Ended::Error);
        } else if number < TOLD {
            say(&format!("error: {error}"));
        } else if number == TOLD {
            say("more errors are counted, not told");
        }
    }

    /// How many there were.
    pub(super) fn number(&self) -> u64 {
        self.all.get()
    }

    /// What ended the load, if an error did.
    pub(super) fn take_fatal(&self) -> Option<LoadError> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<LoadError>> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says how far it is, every second until all is done.
pub(super) fn progress(done: &Stop, line: impl Fn() -> String) {
    let mut due = Instant::now() + EVERY;
    while done.wait_until(due) {
        say(&line());
        due += EVERY;
    }
}

/// So many in this time, a second; 0 for no time.
pub(super) fn rate(number: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = number as f64 / time.as_secs_f64();
    if rate.is_finite() { (rate * 10.0).round() / 10.0 } else { 0.0 }
}

/// Seconds with three decimals.
pub(super) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn fault() -> LoadError {
        super::super::system("try")(io::Error::from_raw_os_error(libc::ENOSPC))
    }

    #[test]
    fn failures_in_a_row_end_the_load_and_others_do_not() {
        let (runtime, stop) = Stop::listen().unwrap();
        let faults = Faults::default();
        for _ in 0..3 {
            (1..PATIENCE).for_each(|_| faults.take(fault(), &stop));
            faults.none();
        }
        assert!(!stop.is_over());
        (0..PATIENCE).for_each(|_| faults.take(fault(), &stop));
        assert!(stop.is_over());
        assert_eq!(faults.number(), 4 * PATIENCE - 3);
        let fatal = faults.take_fatal().unwrap().to_string();
        assert!(fatal.starts_with("gave up after 100 failures in a row, the last: cannot try: "), "{fatal}");
        runtime.shutdown_background();
    }

    #[test]
    fn a_missing_privilege_ends_the_load_at_once() {
        let (runtime, stop) = Stop::listen().unwrap();
        let faults = Faults::default();
        faults.take(super::super::system("make a network namespace")(nix::errno::Errno::EPERM), &stop);
        assert_eq!(stop.why(), Ended::Error);
        let fatal = faults.take_fatal().unwrap().to_string();
        assert!(fatal.contains("run it as root"), "{fatal}");
        runtime.shutdown_background();
    }

    #[test]
    fn rates_are_rounded_and_never_infinite() {
        assert!((rate(1, Duration::from_secs(3)) - 0.3).abs() < 1e-9);
        assert!(rate(7, Duration::ZERO).abs() < 1e-9);
        assert!((seconds(Duration::from_micros(1_234_567)) - 1.235).abs() < 1e-9);
    }
}
