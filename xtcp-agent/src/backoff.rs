//! How long to wait before trying again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The pause after so many attempts that failed since the first pause: `first` doubled each time up to `longest`, and
/// somewhere in its upper half, so that not all agents of a fleet come back at once.
pub fn pause(first: Duration, longest: Duration, doublings: u32) -> Duration {
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    let pause = first.saturating_mul(factor).min(longest);
    let random = RandomState::new().build_hasher().finish() % 1000;
    pause / 2 + (pause / 2).mul_f64(f64::from(u32::try_from(random).unwrap_or(0)) / 1000.0)
}
