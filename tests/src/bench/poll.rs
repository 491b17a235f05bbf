//! What a poll costs: the agent's CPU for each socket against one bare dump of the same namespace, in turn.

use std::time::{Duration, Instant};

use super::hold::{hold, hold_in_services};
use super::{Spread, Stopped, cpu_of_threads, float, floor, pause, rss_mib, settle};
use crate::agent::{Agent, agent};
use crate::grpc;
use crate::netns::Netns;

/// How large, and how often.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Options {
    /// Established sockets in each of the two namespaces that are polled
    #[arg(long, value_name = "SOCKETS", default_value = "20000",
          value_parser = clap::value_parser!(u32).range(1_000..=400_000))]
    sockets: u32,
    /// Polls that are measured of each kind of rows, each beside a bare dump
    #[arg(long, value_name = "POLLS", default_value = "15", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    polls: u32,
}

/// Length of the window in which an agent is watched that has nothing to poll.
const IDLE_WINDOW: Duration = Duration::from_secs(5);
/// Pieces of time in which an agent's CPU shows whether it is polling.
const STEP: Duration = Duration::from_millis(20);
/// Pieces without work after which a poll is over: where processors are short it may stand still for a while.
const QUIET_STEPS: u32 = 6;
/// The agent's threads that make rows, and those that send them. What else happens on the host is others' work.
const WORKERS: &str = "xtcp-netns";
const SENDERS: &str = "xtcp-io";
/// Longest wait until owners and workloads are known.
const LEARNT: Duration = Duration::from_secs(60);

/// Rows that differ in what is known of them.
struct Kind {
    what: &'static str,
    /// Their processes are in cgroups of services.
    in_services: bool,
    /// Their processes are looked for.
    scan: bool,
}

const KINDS: [Kind; 4] = [
    Kind { what: "agent: every row a record, --dest null", in_services: false, scan: false },
    Kind { what: "  with its owner", in_services: false, scan: true },
    Kind { what: "  with its cgroup's workload", in_services: true, scan: false },
    Kind { what: "  with its owner and its workload", in_services: true, scan: true },
];

/// What was measured of one kind of rows.
struct Measured {
    /// CPU for each socket of the floor and of the agent, nanoseconds, one a round.
    rounds: Vec<(f64, f64)>,
    sockets: u64,
    rss_mib: f64,
    /// How many of the rows have an owner, and the unit of a service.
    known: Shares,
    /// Rows that are missing, or too many.
    off: f64,
}

#[derive(Clone, Copy, Default)]
struct Shares {
    owner: f64,
    unit: f64,
}

/// Measures and prints.
pub fn main(options: &Options) -> Result<(), Stopped> {
    let (plain, services) = (Netns::named("poll"), Netns::named("services"));
    let (rss_before, idle) = {
        let agent = start(*options, &plain, false);
        settle(&agent, Duration::from_millis(500))?;
        let rss = rss_mib(agent.process.pid());
        // Without sockets: what the polls and the waiting cost anyhow, on both sides.
        let (start, began) = (cpu(&agent), Instant::now());
        pause(IDLE_WINDOW)?;
        (rss, cpu(&agent).saturating_sub(start).div_f64(began.elapsed().as_secs_f64()))
    };
    let empty = Spread::of((0..9).map(|_| plain.run_in(floor::dump).cpu.as_secs_f64()));
    let empty = Duration::from_secs_f64(empty.median);

    let _holders = hold(&plain, options.sockets / 2);
    let _services = hold_in_services(&services, options.sockets / 2);
    let mut measured = Vec::new();
    for kind in &KINDS {
        let netns = if kind.in_services { &services } else { &plain };
        measured.push((kind, measure(*options, kind, netns, idle, empty)?));
    }
    print(&measured, rss_before);
    Ok(())
}

fn start(options: Options, netns: &Netns, scan: bool) -> Agent {
    let include = netns.inode.to_string();
    let scan = if scan { "start" } else { "off" };
    agent()
        .frequency(&format!("{}s", (options.sockets / 50_000).max(1)))
        .without_rows()
        .args(&["--jitter-pct", "0", "--netns-include", &include, "--ebpf", "off", "--process-scan", scan])
        .start()
}

fn measure(
    options: Options,
    kind: &Kind,
    netns: &Netns,
    idle: Duration,
    empty: Duration,
) -> Result<Measured, Stopped> {
    let agent = start(options, netns, kind.scan);
    let sockets = netns.run_in(floor::dump).rows;
    let known = learnt(&agent, netns, kind)?;
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
    let off = rows - float(sockets) * f64::from(options.polls);
    Ok(Measured { rounds, sockets, rss_mib: rss_mib(agent.process.pid()), known, off })
}

/// Waits until what rows are to have is known; how many of them have it.
fn learnt(agent: &Agent, netns: &Netns, kind: &Kind) -> Result<Shares, Stopped> {
    let start = Instant::now();
    loop {
        pause(Duration::from_secs(1))?;
        let rows = grpc::poll(agent.grpc);
        let of_netns =
            || rows.iter().filter(|row| row.record.netns_inode == netns.inode).map(|row| &row.record);
        let all = float(of_netns().count() as u64).max(1.0);
        let share = |count: usize| float(count as u64) / all;
        let shares = Shares {
            owner: share(of_netns().filter(|record| record.pid != 0).count()),
            unit: share(of_netns().filter(|record| !record.systemd_unit.is_empty()).count()),
        };
        let missing = (kind.scan && shares.owner < 0.99) || (kind.in_services && shares.unit < 0.99);
        if !missing || start.elapsed() > LEARNT {
            return Ok(shares);
        }
    }
}

/// CPU of what makes rows and passes them on.
fn cpu(agent: &Agent) -> Duration {
    cpu_of_threads(agent.process.pid(), &[WORKERS, SENDERS])
}

/// Waits for the next poll and its end; when, and the agent's CPU then. A scrape of its metrics would be counted.
fn after_a_poll(agent: &Agent) -> Result<(Instant, Duration), Stopped> {
    let workers = || cpu_of_threads(agent.process.pid(), &[WORKERS]);
    let mut polling = false;
    let mut quiet = 0;
    let mut before = workers();
    loop {
        pause(STEP)?;
        let now = workers();
        let busy = now.saturating_sub(before) > STEP / 10;
        polling |= busy;
        quiet = if busy { 0 } else { quiet + 1 };
        if polling && quiet >= QUIET_STEPS {
            return Ok((Instant::now(), cpu(agent)));
        }
        before = now;
    }
}

fn per(cpu: Duration, sockets: u64) -> f64 {
    cpu.as_secs_f64() * 1e9 / float(sockets)
}

fn print(measured: &[(&Kind, Measured)], rss_before: f64) {
    let sockets: Vec<String> = measured.iter().map(|(_, of_kind)| of_kind.sockets.to_string()).collect();
    println!(
        "\nPolls of one namespace with {} sockets, {} rounds each",
        sockets.join(", "),
        measured[0].1.rounds.len()
    );
    println!(
        "  {:40} {:>13} {:>17}   {:>6} {:>15} {:>7} {:>7}",
        "", "ns CPU/socket", "", "ratio", "", "owners", "units"
    );
    let line = |what: &str, cpu: Spread, ratio: Spread, known: &str| {
        let range = format!("[{:.0} .. {:.0}]", cpu.min, cpu.max);
        let spread = format!("[{:.2} .. {:.2}]", ratio.min, ratio.max);
        println!("  {what:40} {:>13.0} {range:>17}   {:>6.2} {spread:>15}{known}", cpu.median, ratio.median);
    };
    let floors = measured.iter().flat_map(|(_, of_kind)| &of_kind.rounds).map(|(floor, _)| *floor);
    line("floor: one bare dump, nothing decoded", Spread::of(floors), Spread::of([1.0]), "");
    for (kind, Measured { rounds, known, .. }) in measured {
        let agent = Spread::of(rounds.iter().map(|(_, agent)| *agent));
        let ratio = Spread::of(rounds.iter().map(|(floor, agent)| agent / floor));
        let known = format!(" {:>5.0} % {:>5.0} %", 100.0 * known.owner, 100.0 * known.unit);
        line(kind.what, agent, ratio, &known);
    }
    let rss: Vec<String> = measured.iter().map(|(_, of_kind)| format!("{:.1}", of_kind.rss_mib)).collect();
    println!(
        "  agent's memory (RSS): {rss_before:.1} MiB before the sockets, after the polls {} MiB",
        rss.join(", ")
    );
    for (kind, Measured { off, .. }) in measured {
        if off.abs() > 0.5 {
            println!("  NOTE: {}: {off:+} rows: the figures are not of whole polls", kind.what.trim());
        }
    }
}
