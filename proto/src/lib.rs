//! The wire contract: flat records, change events and the services that stream them.
//!
//! Everything here is generated from the `.proto` files of this package; their comments are the reference for each
//! field's unit, range, kernel version and absence. Each message also has serde implementations for proto3 JSON.
#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]

/// Every file of the contract as an encoded `google.protobuf.FileDescriptorSet`, comments included; what gRPC
/// reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The file of package `xtcp_flat_record.v1` as it is, for consumers.
pub const FLAT_RECORD_PROTO: &str = include_str!("../xtcp_flat_record/v1/xtcp_flat_record.proto");

/// Package `xtcp_flat_record`.
pub mod flat_record {
    /// Package `xtcp_flat_record.v1`: one row for each TCP socket.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/xtcp_flat_record.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/xtcp_flat_record.v1.serde.rs"));
    }
}

// Modules that refer to each other have the names of their packages: that is how the generated code finds them.
pub use xtcp_event as event;
pub use xtcp_netns as netns;

/// Package `xtcp_event`.
pub mod xtcp_event {
    /// Package `xtcp_event.v1`: what the kernel did to network namespaces and TCP sockets, as it happened.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/xtcp_event.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/xtcp_event.v1.serde.rs"));
    }
}

/// Package `xtcp_netns`.
pub mod xtcp_netns {
    /// Package `xtcp_netns.v1`: network namespaces as the agent sees them, and what the kernel counts for each.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/xtcp_netns.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/xtcp_netns.v1.serde.rs"));
    }
}
