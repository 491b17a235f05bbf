//! What waiting costs: CPU and memory of an agent at default settings, without and with many empty namespaces.

use std::time::{Duration, Instant};

use super::{Stopped, cpu_of, pause, rss_mib, settle};
use crate::agent::{Agent, agent};
use crate::nats::NatsServer;
use crate::netns::{Netns, PREFIX};

/// How many, and how long.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Options {
    /// Empty namespaces
    #[arg(long, value_name = "NAMESPACES", default_value = "200", value_parser = clap::value_parser!(u32).range(1..=5_000))]
    namespaces: u32,
    /// Seconds of each measurement; a full scan comes every 30 s
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u64).range(10..=3_600))]
    seconds: u64,
}

/// What one window showed.
#[derive(Clone, Copy, Debug)]
struct Measured {
    cpu_ms_per_min: f64,
    rss_mib: f64,
    netns: f64,
    polls: f64,
    events: f64,
}

/// Measures and prints.
pub fn main(options: &Options) -> Result<(), Stopped> {
    let nats = NatsServer::start();
    // The defaults, but for ports that may be taken here, and for what other namespaces do: that would not be idle.
    let ours = format!("{PREFIX}-{}-idle-*", std::process::id());
    let agent =
        agent().frequency("10s").events_to(&nats).without_rows().args(&["--netns-include", &ours]).start();
    let window = Duration::from_secs(options.seconds);
    settle(&agent, Duration::from_secs(1))?;
    let without = measure(&agent, window)?;
    let mut namespaces = Vec::new();
    for _ in 0..options.namespaces {
        namespaces.push(Netns::named_bare("idle"));
        pause(Duration::ZERO)?;
    }
    pause(Duration::from_secs(1))?;
    settle(&agent, Duration::from_secs(1))?;
    let with = measure(&agent, window)?;
    println!("\nAn agent at default settings that has nothing to tell, {} s each", options.seconds);
    println!("  {:36} {:>14} {:>12} {:>12}", "", "ms CPU/minute", "of one core", "RSS, MiB");
    for (name, measured) in
        [("no namespace".to_owned(), without), (format!("{} empty namespaces", options.namespaces), with)]
    {
        let Measured { cpu_ms_per_min, rss_mib, netns, polls, events } = measured;
        println!("  {name:36} {cpu_ms_per_min:>14.0} {:>11.2}% {rss_mib:>12.1}", cpu_ms_per_min / 600.0);
        println!(
            "    {polls:.0} polls; {netns:.0} namespaces known on this host; {events:.0} change events meanwhile"
        );
    }
    let more = with.netns - without.netns;
    if more > 0.5 {
        let cpu = (with.cpu_ms_per_min - without.cpu_ms_per_min) * 1e3 / more / 6.0;
        let memory = (with.rss_mib - without.rss_mib) * 1024.0 / more;
        println!("  each namespace: {cpu:.0} µs of CPU a poll, {memory:.1} KiB");
    }
    Ok(())
}

fn measure(agent: &Agent, window: Duration) -> Result<Measured, Stopped> {
    let pid = agent.process.pid();
    let counts = |agent: &Agent| {
        let metrics = agent.metrics();
        (metrics.sum("xtcp_polls_total", &[]), metrics.sum("xtcp_change_events_total", &[]))
    };
    let before = counts(agent);
    let (cpu, began) = (cpu_of(pid), Instant::now());
    pause(window)?;
    let used = cpu_of(pid).saturating_sub(cpu);
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let after = counts(agent);
    Ok(Measured {
        cpu_ms_per_min: used.as_secs_f64() * 1e3 / minutes,
        rss_mib: rss_mib(pid),
        netns: agent.metrics().sum("xtcp_netns", &[]),
        polls: after.0 - before.0,
        events: after.1 - before.1,
    })
}
