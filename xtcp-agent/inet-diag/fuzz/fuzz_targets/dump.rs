//! Any bytes as a stream of datagrams, each behind its length: answers are followed, rows become records both ways.
#![no_main]

#[path = "../../tests/kernel_bytes/oracle.rs"]
#[allow(dead_code, reason = "each target asks one question")]
mod oracle;
#[path = "../../tests/wire/reference.rs"]
mod reference;
#[path = "../../tests/wire/same.rs"]
#[allow(dead_code, reason = "the target asks one question")]
mod same;
#[allow(dead_code, reason = "writing is for seeds")]
mod stream;

use std::cell::LazyCell;

use same::{Beside, READINGS, assert_same_as};
use xtcp_inet_diag::attr::info::AccEcnLayout;

thread_local! {
    /// Made once: it is the same for all rows.
    static BESIDE: LazyCell<Beside> = LazyCell::new(|| Beside::new(1));
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    BESIDE.with(|beside| {
        oracle::dump(&stream::split(bytes), |row| {
            for reading in READINGS {
                assert_same_as(row, reading, beside, AccEcnLayout::BitFields);
            }
        });
    });
});
