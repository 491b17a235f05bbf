//! The benchmark's parts, and what they share: a stop that leaves nothing behind, clocks of CPU time, medians, tables.

pub mod discovery;
pub mod events;
mod floor;
pub mod hold;
pub mod idle;
mod lookup;
pub mod poll;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::Agent;
use crate::host::require_root;
use crate::netns;

static STOP: AtomicBool = AtomicBool::new(false);

/// SIGINT, SIGTERM or SIGHUP came.
#[derive(Debug)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped; everything that was made is removed")
    }
}

/// Runs a benchmark so that a signal ends it at its next [`pause`], and all that it owns goes away with its values.
pub fn run(benchmark: impl FnOnce() -> Result<(), Stopped>) -> Result<(), Stopped> {
    require_root();
    netns::sweep();
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let catch = |kind| signal(kind).expect("signals can be caught");
                let (mut int, mut term) = (catch(SignalKind::interrupt()), catch(SignalKind::terminate()));
                let mut hangup = catch(SignalKind::hangup());
                let _ = ready.send(());
                tokio::select! { _ = int.recv() => {}, _ = term.recv() => {}, _ = hangup.recv() => {} }
                STOP.store(true, Ordering::Relaxed);
            });
        })
        .expect("a thread can be started");
    is_ready.recv().expect("signals can be caught");
    println!("{}", host());
    benchmark()
}

/// Sleeps, unless it is time to stop.
fn pause(time: Duration) -> Result<(), Stopped> {
    let end = Instant::now() + time;
    loop {
        if STOP.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
}

/// CPU time of a process, all threads that it ever had.
fn cpu_of(pid: u32) -> Duration {
    let pid = Pid::from_raw(i32::try_from(pid).expect("process ids fit"));
    let clock = clock_getcpuclockid(pid).expect("a running process has a CPU clock");
    clock_gettime(clock).expect("the CPU clock of a running process can be read").into()
}

/// CPU time of those threads of a process that live and whose names begin with one of these.
fn cpu_of_threads(pid: u32, names: &[&str]) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a running process has threads");
    let cpu = threads.filter_map(|thread| {
        let thread = thread.expect("threads can be listed").path();
        // It may end meanwhile.
        let name = std::fs::read_to_string(thread.join("comm")).ok()?;
        let times = std::fs::read_to_string(thread.join("schedstat")).ok()?;
        let wanted = names.iter().any(|wanted| name.starts_with(wanted));
        let ns = times.split(' ').next().and_then(|ns| ns.parse().ok()).expect("schedstat begins with ns");
        wanted.then(|| Duration::from_nanos(ns))
    });
    cpu.sum()
}

/// CPU time of the calling thread.
fn cpu_of_thread() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a thread has a CPU clock").into()
}

/// Waits until the agent has used next to no CPU for `quiet`, at most 20 s.
fn settle(agent: &Agent, quiet: Duration) -> Result<(), Stopped> {
    let pid = agent.process.pid();
    for _ in 0..(20_000 / quiet.as_millis().max(1)) {
        let before = cpu_of(pid);
        pause(quiet)?;
        if cpu_of(pid).saturating_sub(before) < quiet / 20 {
            return Ok(());
        }
    }
    Ok(())
}

/// Resident memory of a process, MiB.
fn rss_mib(pid: u32) -> f64 {
    let status =
        std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process has a status");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<f64>().ok()).expect("VmRSS is a number") / 1024.0
}

/// The middle value, and the extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Self { median, min: values[0], max: values[values.len() - 1] }
    }
}

/// Kernel, processors and load: what absolute figures depend on.
fn host() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "Linux {}, {processors} processors, load {}. Medians; in brackets the lowest and the highest round.",
        kernel.trim(),
        load.split(' ').next().unwrap_or_default()
    )
}

/// A value as a float: exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of minutes")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of([9.0, 1.0, 3.0]), Spread { median: 3.0, min: 1.0, max: 9.0 });
    }

    #[test]
    fn cpu_time_of_this_process_grows_with_work() {
        let (before, of_thread) = (cpu_of(std::process::id()), cpu_of_thread());
        while cpu_of_thread().saturating_sub(of_thread) < Duration::from_millis(5) {}
        assert!(cpu_of(std::process::id()).saturating_sub(before) >= Duration::from_millis(5));
        assert!(rss_mib(std::process::id()) > 0.1);
    }
}
