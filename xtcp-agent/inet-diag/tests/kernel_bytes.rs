//! What a real kernel sent decodes to what the sockets were, survives any damage, and agrees with an
//! independent decoder.
//!
//! The bytes are in `fixtures/inet_diag`, a folder for each kernel; `manifest.json` says which scenarios it has.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

#[path = "kernel_bytes/damage.rs"]
mod damage;
#[path = "kernel_bytes/differential.rs"]
mod differential;
#[path = "kernel_bytes/facts.rs"]
mod facts;
#[path = "kernel_bytes/fixtures.rs"]
mod fixtures;
#[path = "kernel_bytes/oracle.rs"]
mod oracle;
#[path = "../fuzz/fuzz_targets/stream.rs"]
#[allow(dead_code, reason = "joining is for seeds")]
mod stream;
#[path = "kernel_bytes/traffic.rs"]
mod traffic;
