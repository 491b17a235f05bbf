//! The decoder's unit, property and corpus tests under miri, which interprets them and knows every rule of the language.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::instrumented::{self, Compiler};
use crate::libtest;
use crate::stage::Stages;

/// How long a test may say nothing: miri is a thousand times slower than the machine.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

const NOBODY_HAS_IT: &str = "\
no toolchain here has miri, so nothing was run; where rustup can fetch components:
  rustup toolchain install nightly --component miri --component rust-src";

pub(crate) fn main() -> Result<()> {
    let mut stages = Stages::default();
    stages.run_noting("miri", |notes| {
        let Some((name, bin)) =
            instrumented::toolchains().into_iter().find(|(_, bin)| bin.join("cargo-miri").exists())
        else {
            bail!(NOBODY_HAS_IT);
        };
        println!("miri of {name}");
        let mut cargo = Compiler::at(bin)?.command("cargo")?;
        // The fixtures are files. Fewer cases, and under cfg(miri) fewer places of damage.
        cargo.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", "4");
        cargo.args(["miri", "test", "--locked", "--package", "xtcp-inet-diag", "--lib"]);
        cargo.args(["--test", "kernel_bytes", "--test", "wire"]);
        if libtest::run(&mut cargo, PATIENCE, notes)? == 0 {
            bail!("no test ran");
        }
        Ok(())
    });
    stages.finish("cargo xtask miri")
}
