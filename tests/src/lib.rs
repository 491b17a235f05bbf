//! What the whole-program tests share: an agent and a NATS server as real processes, network namespaces and veths that
//! are removed again, generators of TCP traffic whose every connection is known, and readers of what the agent says.
//!
//! Everything that is started is ended by its own id, also when a test panics; every wait has a limit; traffic stays
//! on loopback and in namespaces that the test made. A helper here fails by panicking with a sentence, as a test does.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the library of the tests: it fails by panicking, and prints what it measured"
)]

pub mod agent;
pub mod authority;
pub mod bench;
pub mod container;
pub mod events;
pub mod fleet;
pub mod grpc;
pub mod host;
pub mod http;
pub mod kafka;
pub mod mmdb;
pub mod nats;
pub mod netns;
pub mod nsq;
pub mod process;
pub mod proxy;
pub mod recorder;
pub mod row;
pub mod s3;
pub mod scenario;
pub mod sink;
pub mod ss;
pub mod stats;
pub mod strace;
pub mod traffic;
pub mod uplinks;
pub mod valkey;
