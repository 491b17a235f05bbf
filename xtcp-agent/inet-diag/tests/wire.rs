//! The wire writer gives the bytes that prost gives for the record of the decoded row, whatever the row is.
//!
//! Sound because the two ways share no more than the table of attributes: the reference decodes all into structs, takes
//! these apart without `..`, and prost orders and encodes the fields.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

#[path = "wire/captures.rs"]
mod captures;
#[path = "kernel_bytes/fixtures.rs"]
mod fixtures;
#[path = "wire/identity.rs"]
mod identity;
#[path = "wire/reference.rs"]
mod reference;
#[path = "wire/same.rs"]
mod same;
