//! Scenarios: sockets in every condition that inet_diag can show, and what the kernel says of them at one moment.
//!
//! Each scenario runs on a thread in a network namespace of its own, on loopback, with nothing but system calls: packets
//! are lost by a filter on the receiving socket and come late or marked by being sent again from a raw socket. So it
//! runs in a machine that holds nothing but this program. What is captured of a scenario is a netlink conversation, the
//! text of `ss` where there is one, and the truth: what `getsockopt` says of each socket before and after.

use std::fmt;

use anyhow::{Context, Result, anyhow};

mod congestion;
mod conversation;
mod errors;
mod families;
mod loss;
mod manifest;
mod many;
mod netns;
mod options;
mod queues;
mod raw;
mod sockets;
mod stage;
mod states;
mod truth;
mod ulp;

pub use manifest::capture_all;
use stage::{Capture, Stage};

/// One condition of sockets.
struct Scenario {
    /// Name of its files.
    name: &'static str,
    /// What is in it.
    about: &'static str,
    run: fn(&mut Stage) -> Result<()>,
}

/// Every scenario, by the module that knows how to bring it about.
fn all() -> impl Iterator<Item = &'static Scenario> {
    [
        states::SCENARIOS,
        families::SCENARIOS,
        congestion::SCENARIOS,
        loss::SCENARIOS,
        queues::SCENARIOS,
        options::SCENARIOS,
        ulp::SCENARIOS,
        many::SCENARIOS,
        errors::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

/// This kernel cannot show the scenario.
#[derive(Debug)]
struct Absent(String);

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Absent {}

/// The error that says so.
fn absent(reason: impl Into<String>) -> anyhow::Error {
    anyhow!(Absent(reason.into()))
}

impl Scenario {
    /// Runs it on a thread in a namespace of its own, which ends with it.
    fn capture(&'static self) -> Result<Capture> {
        let thread = std::thread::Builder::new().name(self.name.to_owned()).spawn(move || {
            netns::enter_fresh()?;
            let mut stage = Stage::new(self.name, self.about);
            (self.run)(&mut stage)?;
            stage.capture()
        })?;
        thread
            .join()
            .map_err(|_panic| anyhow!("its thread panicked"))?
            .with_context(|| format!("scenario {}", self.name))
    }
}
