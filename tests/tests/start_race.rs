//! Promise: sockets older than the agent, opened while it starts, and opened during the first dump: each appears exactly
//! once per poll, merged by cookie.
//!
//! Why the comparison is sound: cookies are never used again, and a socket is only expected in a poll if it was open from
//! before the poll began until after its last row had arrived.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use xtcp_tests::agent::{Agent, agent};
use xtcp_tests::grpc;
use xtcp_tests::host::{allow_open_files, alone, scale};
use xtcp_tests::netns::Netns;
use xtcp_tests::row::{Row, cookies_of_poll};
use xtcp_tests::traffic;

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn sockets_older_than_the_agent_and_opened_while_it_dumps_appear_once_in_every_poll() {
    let _alone = alone();
    allow_open_files(19_000);
    let netns = [Netns::named("race"), Netns::anonymous("race")];
    let old: Vec<TcpStream> = netns.iter().flat_map(|netns| netns.run_in(|| open(2_000))).collect();
    let (agent, young) = start_while_opening(&netns, Duration::from_millis(300));
    println!("{} sockets were older, {} were opened while the agent started", old.len(), young.len());
    let (old, young) = (cookies(&old), cookies(&young));
    assert!(young.len() > 100, "the race was no race");
    // A young socket came after its namespace's dump, or before it: in one way or the other it must be seen.
    wait_for_rows_of(&agent, &young, &old);
    let first = cookies_of_poll(&agent.delivered_rows(), 1);
    exactly_once("older, first poll", &old, &first);
    none_twice(&first);
    let second = grpc::poll(agent.grpc);
    let number = second.iter().find_map(Row::poll).expect("rows of a poll say its number");
    assert!(
        second.iter().all(|row| row.poll() == Some(number)),
        "a poll's stream has rows of that poll only"
    );
    let second = cookies_of_poll(&second, number);
    exactly_once("older, second poll", &old, &second);
    exactly_once("younger, second poll", &young, &second);
    none_twice(&second);
}

#[test]
fn opening_and_closing_without_pause_while_the_agent_starts_confuses_no_poll() {
    let _alone = alone();
    allow_open_files(5_000);
    let netns = Netns::anonymous("churn");
    netns.sysctl("ipv4/ip_local_port_range", "1024 65000");
    // As many as a churner may open in a round: what a closed connection leaves must not block its ports.
    netns.sysctl("ipv4/tcp_max_tw_buckets", "1024");
    for round in 0..scale(10, 50) {
        let stay = cookies(&netns.run_in(|| open(50)));
        assert_eq!(stay.len(), 100);
        let kept = netns.run_in(|| open(50));
        let kept_cookies = cookies(&kept);
        let stop = AtomicBool::new(false);
        let churned = AtomicUsize::new(0);
        let (first, second) = std::thread::scope(|scope| {
            // Also when something fails here, so that the scope ends.
            let _stops = StopOnDrop(&stop);
            for _ in 0..2 {
                scope.spawn(|| netns.run_in(|| churn(&stop, &churned)));
            }
            let agent = agent().start();
            let first = agent.delivered_rows();
            let second = grpc::poll(agent.grpc);
            (first, second)
        });
        println!("round {round}: {} connections were opened and closed", churned.load(Ordering::Relaxed));
        let first = cookies_of_poll(&first, 1);
        exactly_once("kept, first poll", &kept_cookies, &first);
        none_twice(&first);
        let number = second.iter().find_map(Row::poll).expect("rows of a poll say its number");
        let second = cookies_of_poll(&second, number);
        exactly_once("kept, second poll", &kept_cookies, &second);
        none_twice(&second);
        assert!(
            stay.iter().all(|cookie| !first.contains_key(cookie)),
            "a socket that was closed before has a row"
        );
        drop(kept);
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Opens and closes without pause: with FIN from either side, and with a reset.
fn churn(stop: &AtomicBool, count: &AtomicUsize) {
    let listener = traffic::listen((Ipv4Addr::LOCALHOST, 0).into());
    let address = listener.local_addr().unwrap();
    while !stop.load(Ordering::Relaxed) {
        let client = traffic::connect(address);
        let server = traffic::accept(&listener);
        match count.fetch_add(1, Ordering::Relaxed) % 4 {
            0 => traffic::reset_on_close(&client),
            1 => drop(client),
            _ => traffic::reset_on_close(&server),
        }
    }
}

/// Starts an agent while one thread in each namespace opens connections without pause and keeps them, until
/// `longer` after the agent is ready.
fn start_while_opening(netns: &[Netns], longer: Duration) -> (Agent, Vec<TcpStream>) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stops = StopOnDrop(&stop);
        let openers: Vec<_> =
            netns.iter().map(|netns| scope.spawn(|| netns.run_in(|| open_until(&stop, 2_500)))).collect();
        let agent = agent().start();
        let ready = Instant::now();
        while ready.elapsed() < longer && openers.iter().any(|opener| !opener.is_finished()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(stops);
        let young = openers.into_iter().flat_map(|opener| opener.join().unwrap()).collect();
        (agent, young)
    })
}

/// At most `limit` connections, evenly over about the time that a start takes.
fn open_until(stop: &AtomicBool, limit: usize) -> Vec<TcpStream> {
    let listener = traffic::listen((Ipv4Addr::LOCALHOST, 0).into());
    let address = listener.local_addr().unwrap();
    let mut streams = Vec::new();
    while !stop.load(Ordering::Relaxed) && streams.len() < 2 * limit {
        streams.push(traffic::connect(address));
        streams.push(traffic::accept(&listener));
        // The pace that makes the race last as long as the start does; nothing is waited for.
        std::thread::sleep(Duration::from_micros(200));
    }
    streams
}

/// Both ends of `count` connections, half over IPv6.
fn open(count: usize) -> Vec<TcpStream> {
    let ips: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let mut streams = Vec::with_capacity(2 * count);
    for ip in ips {
        let listener = traffic::listen(SocketAddr::from((ip, 0)));
        let address = listener.local_addr().unwrap();
        for _ in 0..count / 2 {
            streams.push(traffic::connect(address));
            streams.push(traffic::accept(&listener));
        }
    }
    streams
}

fn cookies(streams: &[TcpStream]) -> Vec<u64> {
    streams.iter().map(traffic::cookie).collect()
}

fn wait_for_rows_of(agent: &Agent, young: &[u64], old: &[u64]) {
    let mut missing: std::collections::BTreeSet<u64> = young.iter().chain(old).copied().collect();
    let total = missing.len();
    agent.wait_for_row(&format!("rows of all {total} sockets"), LIMIT, |row| {
        missing.remove(&row.cookie());
        missing.is_empty()
    });
}

fn exactly_once(what: &str, cookies: &[u64], counts: &BTreeMap<u64, usize>) {
    let wrong: Vec<_> = cookies
        .iter()
        .map(|cookie| (cookie, counts.get(cookie).copied().unwrap_or(0)))
        .filter(|(_, count)| *count != 1)
        .collect();
    let shown = &wrong[..wrong.len().min(10)];
    assert!(
        wrong.is_empty(),
        "{what}: {} of {} cookies, with their rows: {shown:?}",
        wrong.len(),
        cookies.len()
    );
}

fn none_twice(counts: &BTreeMap<u64, usize>) {
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).take(10).collect();
    assert!(twice.is_empty(), "cookies with more than one row in a poll: {twice:?}");
}
