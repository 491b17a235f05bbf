//! The ABI between the eBPF programs and the agent, and nothing else.
//!
//! Both sides compile this crate: what crosses the ring buffer ([`event`]), why something did not cross it
//! ([`counter`]), and which kernel struct offsets and settings the loader writes into the programs'
//! read-only data before they are loaded ([`offset`], [`setting`]), and what the contexts of classic tracepoints
//! look like ([`tracepoint`]).
#![no_std]
#![forbid(unsafe_code)]

pub mod counter;
pub mod event;
pub mod offset;
pub mod setting;
pub mod tracepoint;
