//! How long until a container's name is known: from when its engine says that it was started to the change that a client
//! of the agent sees.

use std::ffi::OsString;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::LIMIT;
use crate::agent::{agent, binary};
use crate::bench::{Stopped, pause};
use crate::container::docker::Docker;
use crate::container::engine::Engine;
use crate::container::podman::Podman;
use crate::container::{Cgroups, Container};
use crate::host::monotonic_ns;
use crate::process::{Process, run};
use crate::stats::Latencies;

/// Measures and prints.
pub(super) fn main(rounds: u32) -> Result<(), Stopped> {
    println!(
        "\nFrom a container's start, as its engine tells it, to its namespace's name, {rounds} times each"
    );
    println!("  {:36} {:>11} {:>11}", "", "named, p50", "p99");
    of_engine("Docker", Docker::start(Cgroups::Host), rounds)?;
    of_engine("Podman", Podman::start(Cgroups::Host), rounds)
}

fn of_engine<E: Engine>(name: &str, mut engine: E, rounds: u32) -> Result<(), Stopped> {
    let named = measure(&mut engine, rounds)?;
    let ms = |percent| named.percentile(percent).as_secs_f64() * 1e3;
    println!("  {:36} {:>8.1} ms {:>8.1} ms", format!("eBPF, {name}"), ms(50), ms(99));
    Ok(())
}

fn measure<E: Engine>(engine: &mut E, rounds: u32) -> Result<Latencies, Stopped> {
    let socket = engine.serve().display().to_string();
    let agent = agent().without_rows().args(&["--docker-socket", &socket]).start();
    let words = ["netns", "--watch", "--json", "--agent", &agent.grpc.to_string()].map(OsString::from);
    let watch =
        Process::start("netns --watch", &std::iter::once(binary().into()).chain(words).collect::<Vec<_>>());
    let mut named = Vec::new();
    for round in 0..rounds {
        pause(Duration::from_millis(20))?;
        // No name is used again.
        let container = engine.container(&format!("round-{round}"));
        let line = watch.stdout.wait_for(LIMIT, |line| {
            let change: Value = serde_json::from_str(line).expect("each change is an object");
            change["name"] == container.name.as_str()
        });
        let line = line.unwrap_or_else(|| panic!("{} is not told: {}", container.name, watch.stdout.text()));
        named.push(line.arrived_ns.saturating_sub(started_ns(engine, &container)));
        engine.remove(&container);
    }
    Ok(Latencies::new(named))
}

/// When its engine started it, `CLOCK_MONOTONIC` nanoseconds. The wall clock may not be set meanwhile.
fn started_ns<E: Engine>(engine: &E, container: &Container) -> u64 {
    let told = engine.inspect(&container.name, "json .State.StartedAt");
    let started = run(&["date", "--date", told.trim_matches('"'), "+%s%N"]);
    let started: u64 = started.trim().parse().unwrap_or_else(|_| panic!("{told} is no time"));
    let started = SystemTime::UNIX_EPOCH + Duration::from_nanos(started);
    let since = started.elapsed().expect("the wall clock was not set back");
    monotonic_ns().saturating_sub(u64::try_from(since.as_nanos()).expect("it started today"))
}
