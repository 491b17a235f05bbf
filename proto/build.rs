//! Generates the Rust types, services and JSON forms of every `.proto` file here, without a `protoc` binary.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

const FILES: [&str; 4] = [
    "xtcp_flat_record/v1/xtcp_flat_record.proto",
    "xtcp_event/v1/xtcp_event.proto",
    "xtcp_netns/v1/netns_counters.proto",
    "xtcp_netns/v1/netns_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    println!("cargo::rerun-if-changed=build.rs");

    // The set keeps the comments: a client that asks by reflection is told what each field means.
    let set = protox::compile(FILES, [&root])?;
    let encoded = set.encode_to_vec();
    fs::write(out.join("descriptors.bin"), &encoded)?;

    let services = env::var_os("CARGO_FEATURE_SERVICES").is_some();
    tonic_prost_build::configure()
        .build_client(services)
        .build_server(services)
        // Large and rare: it must not make every event as large.
        .boxed(".xtcp_event.v1.Event.event.netns_counters")
        .compile_fds(set)?;
    pbjson_build::Builder::new().register_descriptors(&encoded)?.build(&[
        ".xtcp_flat_record.v1",
        ".xtcp_event.v1",
        ".xtcp_netns.v1",
    ])?;
    Ok(())
}
