//! Promise: started with no flags it polls every 10 s, serves gRPC on 127.0.0.1:8889 and metrics on 127.0.0.1:9088, sends
//! change events to a NATS on 127.0.0.1:4222 if one is there, and prints in a few lines what it watches, what attached,
//! and the exact commands to see rows and events.
//!
//! It runs in a network namespace of its own, where those ports are free.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::net::Ipv4Addr;
use std::time::Duration;

use xtcp_tests::agent::binary;
use xtcp_tests::host::{alone, wait_for};
use xtcp_tests::http;
use xtcp_tests::netns::Netns;
use xtcp_tests::process::Process;
use xtcp_tests::traffic;

#[test]
fn started_with_no_flags_it_serves_on_loopback_and_says_how_to_look() {
    let _alone = alone();
    let home = Netns::named("home");
    let binary = binary();
    let argv = ["nsenter".into(), format!("--net={}", home.path().display()).into(), binary.into_os_string()];
    let mut agent = Process::start("xtcp2-agent", &argv);
    let ready = || home.run_in(|| http::get((Ipv4Addr::LOCALHOST, 9088).into(), "/readyz"));
    wait_for("/readyz on 127.0.0.1:9088", Duration::from_secs(30), || {
        assert!(agent.try_wait().is_none(), "{}", agent.stderr.text());
        matches!(ready(), Ok((200, _))).then_some(())
    });
    let page = home.run_in(|| http::get((Ipv4Addr::LOCALHOST, 9088).into(), "/metrics")).unwrap().1;
    assert!(page.contains("xtcp_build_info"), "{page}");
    let health = home.run_in(|| http::get((Ipv4Addr::LOCALHOST, 9088).into(), "/healthz")).unwrap();
    assert_eq!(health.0, 200);
    drop(home.run_in(|| traffic::connect((Ipv4Addr::LOCALHOST, 8889).into())));
    let listeners = home.exec(&["ss", "-tlnH"]);
    let elsewhere: Vec<_> = listeners.lines().filter(|line| !line.contains("127.0.0.1:")).collect();
    assert!(elsewhere.is_empty(), "it listens elsewhere than on loopback: {elsewhere:?}");
    let nats = agent.stderr.wait_for(Duration::from_secs(10), |line| line.contains("127.0.0.1:4222"));
    assert!(nats.is_some(), "it does not say that there is no NATS: {}", agent.stderr.text());
    let said = agent.stderr.text();
    println!("{said}");
    assert!(agent.stderr.len() <= 20, "a few lines");
    for word in ["inet_sock_set_state", "10s", "127.0.0.1:8889", "http://127.0.0.1:9088/metrics"] {
        assert!(said.contains(word), "{word:?} is never said: {said}");
    }
    assert!(agent.stdout.is_empty(), "rows go to null");
    let status = agent.terminate(Duration::from_secs(12)).expect("SIGTERM ends it in time");
    assert_eq!(status.code(), Some(0));
}
