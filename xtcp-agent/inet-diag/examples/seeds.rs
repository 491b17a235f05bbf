//! What the fuzzer begins with: `seeds <folder>` writes every fixture as inputs of every target into
//! `<folder>/<target>/`. They are made, not kept: the fixtures are the only copy.

#[path = "../tests/kernel_bytes/fixtures.rs"]
mod fixtures;
#[path = "../fuzz/fuzz_targets/stream.rs"]
#[allow(dead_code, reason = "a target splits")]
mod stream;

use std::error::Error;
use std::path::Path;

/// Bytes of a stream: what a fuzzer can still change in all its places.
const LONGEST: usize = 16 << 10;

/// Every word of the language.
const FILTERS: [&str; 6] = [
    "state established exclude time-wait ( sport = :443 or dport >= 1024 ) and not dport != :https",
    "src 10.0.0.0/8 && dst != [2001:db8::/32]:22 || inet6:[::1]",
    "src inet:192.0.2.1:80 & dst inet6:* | ! src :*",
    "dev = eth0 or dev != 3 and fwmark = 0x15/0xff",
    "cgroup = \"/sys/fs/cgroup/web (1)\" or cgroup != 77 and autobound",
    "sport eq 1 neq dport lt 2 gt 3 leq 4 geq 5 ne 6",
];

fn write(folder: &Path, target: &str, inputs: &[Vec<u8>]) -> Result<(), Box<dyn Error>> {
    let folder = folder.join(target);
    std::fs::create_dir_all(&folder).map_err(|error| format!("create {}: {error}", folder.display()))?;
    for (number, input) in inputs.iter().enumerate() {
        let file = folder.join(format!("fixture-{number}"));
        std::fs::write(&file, input).map_err(|error| format!("write {}: {error}", file.display()))?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("usage: seeds <folder>")?;
    let folder = Path::new(&folder);
    let datagrams: Vec<_> = fixtures::all().collect();
    let owned = |inputs: &[&[u8]]| inputs.iter().map(|input| input.to_vec()).collect::<Vec<_>>();
    write(folder, "framing", &owned(&datagrams))?;
    write(folder, "attributes", &owned(&fixtures::all_rows()))?;
    let exchanges = fixtures::captures().iter().flat_map(fixtures::Capture::exchanges);
    let streams = exchanges.map(|(_, answers)| stream::join(&answers)).filter(|one| one.len() <= LONGEST);
    write(folder, "filter", &FILTERS.map(|text| text.as_bytes().to_vec()))?;
    write(folder, "dump", &streams.collect::<Vec<_>>())
}
