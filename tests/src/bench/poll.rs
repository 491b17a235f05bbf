//! What a poll costs: the agent's CPU for each socket against one bare dump of the same namespace, in turn.

use std::time::{Duration, Instant};

use super::hold::hold;
use super::{Spread, Stopped, cpu_of, float, floor, pause, rss_mib, settle};
use crate::agent::{Agent, agent};
use crate::netns::Netns;

/// How large, and how often.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Options {
    /// Established sockets in the namespace that is polled
    #[arg(long, value_name = "SOCKETS", default_value = "20000",
          value_parser = clap::value_parser!(u32).range(1_000..=400_000))]
    sockets: u32,
    /// Polls that are measured, each beside a bare dump
    #[arg(long, value_name = "POLLS", default_value = "21", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    polls: u32,
}

/// Length of the window in which an agent is watched that has nothing to poll.
const IDLE_WINDOW: Duration = Duration::from_secs(5);
/// Pieces of time in which an agent's CPU shows whether it is polling.
const STEP: Duration = Duration::from_millis(20);
/// Pieces without work after which a poll is over: where processors are short it may stand still for a while.
const QUIET_STEPS: u32 = 6;

/// Measures and prints.
pub fn main(options: &Options) -> Result<(), Stopped> {
    let netns = Netns::named("poll");
    let include = netns.inode.to_string();
    let agent = agent()
        .frequency(&format!("{}s", (options.sockets / 50_000).max(1)))
        .without_rows()
        .args(&["--jitter-pct", "0", "--netns-include", &include])
        .start();
    let pid = agent.process.pid();
    settle(&agent, Duration::from_millis(500))?;
    let rss_before = rss_mib(pid);

    // Without sockets: what the polls and the waiting cost anyhow, on both sides.
    let (start, began) = (cpu_of(pid), Instant::now());
    pause(IDLE_WINDOW)?;
    let idle = cpu_of(pid).saturating_sub(start).div_f64(began.elapsed().as_secs_f64());
    let empty = Spread::of((0..9).map(|_| netns.run_in(floor::dump).cpu.as_secs_f64()));
    let empty = Duration::from_secs_f64(empty.median);

    let _holders = hold(&netns, options.sockets / 2);
    settle(&agent, Duration::from_millis(50))?;
    let sockets = netns.run_in(floor::dump).rows;
    let mut rounds = Vec::new();
    let mut from = after_a_poll(&agent)?;
    let rows_before = agent.metrics().sum("xtcp_rows_total", &["reason=\"poll\""]);
    for _ in 0..options.polls {
        let floor = netns.run_in(floor::dump);
        let to = after_a_poll(&agent)?;
        let waiting = idle.mul_f64((to.0 - from.0).as_secs_f64());
        let polling = to.1.saturating_sub(from.1).saturating_sub(waiting);
        rounds.push((per(floor.cpu.saturating_sub(empty), floor.rows), per(polling, sockets)));
        from = to;
    }
    let rows = agent.metrics().sum("xtcp_rows_total", &["reason=\"poll\""]) - rows_before;
    print(&rounds, sockets, (rss_before, rss_mib(pid)));
    let expected = float(sockets) * f64::from(options.polls);
    if (rows - expected).abs() > 0.5 {
        println!(
            "  NOTE: the polls gave {rows} rows in all, not {expected}: the figures are not of whole polls"
        );
    }
    Ok(())
}

/// Waits for the next poll and its end; when, and the agent's CPU then. A scrape of its metrics would be counted.
fn after_a_poll(agent: &Agent) -> Result<(Instant, Duration), Stopped> {
    let pid = agent.process.pid();
    let mut polling = false;
    let mut quiet = 0;
    let mut before = cpu_of(pid);
    loop {
        pause(STEP)?;
        let now = cpu_of(pid);
        let busy = now.saturating_sub(before) > STEP / 10;
        polling |= busy;
        quiet = if busy { 0 } else { quiet + 1 };
        if polling && quiet >= QUIET_STEPS {
            return Ok((Instant::now(), now));
        }
        before = now;
    }
}

fn per(cpu: Duration, sockets: u64) -> f64 {
    cpu.as_secs_f64() * 1e9 / float(sockets)
}

fn print(rounds: &[(f64, f64)], sockets: u64, rss: (f64, f64)) {
    let floor = Spread::of(rounds.iter().map(|(floor, _)| *floor));
    let agent = Spread::of(rounds.iter().map(|(_, agent)| *agent));
    let ratio = Spread::of(rounds.iter().map(|(floor, agent)| agent / floor));
    println!("\nA poll of one namespace with {sockets} sockets, {} rounds", rounds.len());
    println!("  {:44} {:>8} {:>17}   {:>6} {:>15}", "", "ns CPU/socket", "", "ratio", "");
    let line = |what: &str, cpu: Spread, ratio: Spread| {
        let (range, spread) = (
            format!("[{:.0} .. {:.0}]", cpu.min, cpu.max),
            format!("[{:.2} .. {:.2}]", ratio.min, ratio.max),
        );
        println!("  {what:44} {:>8.0} {range:>22}   {:>6.2} {spread:>15}", cpu.median, ratio.median);
    };
    line("floor: one bare dump, nothing decoded", floor, Spread::of([1.0]));
    line("agent: every row a record, --dest null", agent, ratio);
    println!("  agent's memory (RSS): {:.1} MiB before the sockets, {:.1} MiB after the polls", rss.0, rss.1);
}
