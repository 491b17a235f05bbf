//! What a test wants of this host: root, a scale, a clock, free ports, and nobody beside it.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Div;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};

/// Fails the test, with what to do, unless it runs as root.
pub fn require_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes network namespaces and loads eBPF programs: run it as root, with `cargo xtask test`"
    );
}

/// Picks by `XTCP_SCALE`: `ci` (the default) ends in minutes, `full` is the scale that the promises state, and `tenth` is
/// a tenth of `ci`, but at least once, for where everything takes longer.
pub fn scale<T: Div<Output = T> + From<u8> + Ord>(ci: T, full: T) -> T {
    match std::env::var("XTCP_SCALE").as_deref() {
        Err(_) | Ok("" | "ci") => ci,
        Ok("full") => full,
        Ok("tenth") => (ci / T::from(10)).max(T::from(1)),
        Ok(other) => panic!("XTCP_SCALE is {other:?}; it can be ci, full or tenth"),
    }
}

/// How many times longer than on a host of its own everything may take: `XTCP_SLOWNESS`, else 1. An emulated processor is
/// ten to thirty times slower, and what a test waits for and bounds grows with it.
pub fn slowness() -> u32 {
    match std::env::var("XTCP_SLOWNESS") {
        Err(_) => 1,
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("XTCP_SLOWNESS is {text:?}: {e}")),
    }
}

/// The running kernel's major and minor version.
pub fn kernel() -> (u32, u32) {
    let release =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel tells its release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => panic!("{release:?} is no kernel release"),
    }
}

/// Starts every test: asks for root, and holds off the other tests of this binary. They would not only disturb what is
/// measured: a process that another test starts has copies of this test's sockets from its `fork` to its `exec`, and a
/// socket that is closed meanwhile stays open a little longer, and is closed by somebody else.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    require_root();
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of the events' `monotonic_ns`.
pub fn monotonic_ns() -> u64 {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC can be read"));
    u64::try_from(now.as_nanos()).expect("the host booted less than 584 years ago")
}

/// A TCP port of 127.0.0.1 on which nobody listens, outside the range of ports that the kernel hands out.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 11_000).expect("fits");
    for _ in 0..11_000 {
        let port = 21_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 11_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port of 127.0.0.1 between 21000 and 31999 is free");
}

/// Allows as many open files as the hard limit does, and fails when that is fewer than `needed`.
pub fn allow_open_files(needed: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files can be read");
    assert!(hard >= needed, "this test opens {needed} files and the hard limit (ulimit -Hn) is {hard}");
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit may rise to the hard one");
    }
}

/// Asks again every millisecond times [`slowness`] until there is an answer; fails naming `what` after `limit` times as much.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let (limit, pause) = (limit * slowness(), Duration::from_millis(1) * slowness());
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        // Where everything is slow, whoever asks all the time takes it from what is waited for.
        std::thread::sleep(pause);
    }
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_owned()
}

/// A server that is no package (`kafka`, a folder of jars; `nsqd`; `minio`), in the folder that `XTCP_SERVERS` names.
pub fn server(name: &str) -> PathBuf {
    let home =
        std::env::var_os("XTCP_SERVERS").map_or_else(|| workspace().join("target/servers"), PathBuf::from);
    let path = home.join(name);
    assert!(path.exists(), "there is no {name} at {}: run `cargo xtask servers`", path.display());
    path
}

/// A Python with what the tests' clients import, by `XTCP_TEST_PYTHON`.
pub fn python() -> PathBuf {
    let Some(python) = std::env::var_os("XTCP_TEST_PYTHON") else {
        panic!("XTCP_TEST_PYTHON names no Python with the clients' packages: run `cargo xtask test`")
    };
    python.into()
}
