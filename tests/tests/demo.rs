//! Promise: `cargo xtask run --demo` shows rows and events at once, and removes what it made: at its end, and after
//! Ctrl-C.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::time::Duration;

use nix::sys::signal::Signal;
use xtcp_tests::host::alone;
use xtcp_tests::process::{Process, run};

const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn the_demo_shows_rows_and_events_and_leaves_nothing() {
    let _alone = alone();
    let mut demo = start("12");
    let status = demo.wait(LIMIT).expect("the demo ends by itself");
    let text = demo.stdout.text();
    println!("{text}");
    assert!(status.success(), "{status}: {}", demo.stderr.text());
    for namespace in ["xtcp-demo-1", "xtcp-demo-2", "xtcp-demo-3"] {
        assert!(text.contains(namespace), "nothing is said of {namespace}");
    }
    for word in ["ESTABLISHED", "netns created", "closed"] {
        assert!(text.to_lowercase().contains(&word.to_lowercase()), "{word:?} is never said");
    }
    assert_nothing_left();
}

#[test]
fn the_demo_removes_everything_after_ctrl_c() {
    let _alone = alone();
    let mut demo = start("120");
    let running = || run(&["ip", "netns", "list"]).contains("xtcp-demo-3");
    xtcp_tests::host::wait_for("the demo's namespaces", LIMIT, || running().then_some(()));
    demo.signal(Signal::SIGINT);
    demo.wait(Duration::from_secs(30)).expect("Ctrl-C ends the demo");
    assert_nothing_left();
}

fn start(seconds: &str) -> Process {
    Process::start("demo", &["cargo", "xtask", "run", "--demo", "--demo-seconds", seconds])
}

fn assert_nothing_left() {
    let left = run(&["ip", "netns", "list"]);
    assert!(!left.contains("xtcp-demo"), "namespaces are left: {left}");
}
