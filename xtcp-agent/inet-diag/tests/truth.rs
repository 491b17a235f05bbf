//! What every kernel sent decodes to what its sockets said of themselves, and to what `ss` says of the same rows.
//!
//! Sound because neither is ours: `getsockopt` gives the kernel's own numbers, at offsets that a table here repeats from
//! `linux/tcp.h`, read before and after the dump; a counter lies between the two, a clock as well, and where nothing
//! else differs between them (every capture waits for such a moment) everything else is equal. And of `ss`, whose own
//! decoder and own dump stand behind its text, every word must be explained by a decoded field.

#![allow(
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

#[path = "truth/explain.rs"]
mod explain;
#[path = "kernel_bytes/fixtures.rs"]
mod fixtures;
#[path = "truth/model.rs"]
mod model;
#[path = "truth/reads.rs"]
mod reads;
#[path = "truth/rows.rs"]
mod rows;
#[path = "truth/ss.rs"]
mod ss;
#[path = "truth/tokens.rs"]
mod tokens;
