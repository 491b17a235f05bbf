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
    write(folder, "dump", &streams.collect::<Vec<_>>())
}
