//! Any bytes as a datagram.
#![no_main]

#[path = "../../tests/kernel_bytes/oracle.rs"]
#[allow(dead_code, reason = "each target asks one question")]
mod oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::framing(bytes));
