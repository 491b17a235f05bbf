//! Promise: `xtcp2-agent netns` lists the network namespaces that are there, by the names and inodes that `ip` and `lsns`
//! have, with what their last dump gave; with `--watch` it shows each as it comes and goes; and without an agent it looks
//! itself and says so.
#![allow(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use serde_json::Value;
use xtcp_tests::agent::{Agent, agent, binary, run_to_end};
use xtcp_tests::host::{alone, free_port, wait_for};
use xtcp_tests::netns::Netns;
use xtcp_tests::process::{Process, run};
use xtcp_tests::traffic::pair;

const LIMIT: Duration = Duration::from_secs(60);

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// What it lists of this agent.
fn list(agent: &Agent) -> Vec<Value> {
    let mut listed = run_to_end(&[], &["netns", "--json", "--agent", &agent.grpc.to_string()]);
    let status = listed.wait(LIMIT).unwrap();
    assert_eq!(status.code(), Some(0), "{}", listed.stderr.text());
    assert!(listed.stderr.is_empty(), "{}", listed.stderr.text());
    objects(&listed.stdout.text())
}

/// Name and inode of everything under /run/netns.
fn mounted() -> BTreeSet<(String, u64)> {
    let names = run(&["ip", "netns", "list"]);
    let names = names.lines().filter_map(|line| line.split_whitespace().next());
    names
        .filter_map(|name| {
            let there = std::fs::metadata(format!("/run/netns/{name}")).ok()?;
            Some((name.to_owned(), there.ino()))
        })
        .collect()
}

/// Inodes that lsns shows.
fn with_processes() -> BTreeSet<u64> {
    run(&["lsns", "-t", "net", "-n", "-r", "-o", "NS"])
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect()
}

#[test]
fn the_list_has_the_names_and_inodes_that_ip_and_lsns_show_and_the_sockets_of_the_last_dump() {
    let _alone = alone();
    let (named, anonymous) = (Netns::named("list"), Netns::anonymous("list"));
    let _held = (named.run_in(|| pair(Ipv4Addr::LOCALHOST)), anonymous.run_in(|| pair(Ipv4Addr::LOCALHOST)));
    let before = (mounted(), with_processes());
    let agent = agent().without_rows().start();
    let listed = wait_for("every namespace to be polled", LIMIT, || {
        let listed = list(&agent);
        let mine = [&named, &anonymous].map(|netns| listed.iter().find(|of| of["inode"] == netns.inode));
        mine.iter().all(|of| of.is_some_and(|of| of["state"] == "polled")).then_some(listed)
    });
    // Others may come and go meanwhile: what was there all the time must be listed.
    let after = (mounted(), with_processes());
    for (name, inode) in before.0.intersection(&after.0) {
        assert!(
            listed.iter().any(|of| of["inode"] == *inode && of["name"] == **name),
            "{name} {inode}: {listed:?}"
        );
    }
    for inode in before.1.intersection(&after.1) {
        assert!(listed.iter().any(|of| of["inode"] == *inode), "{inode}: {listed:?}");
    }
    let inodes: BTreeSet<u64> = listed.iter().map(|of| of["inode"].as_u64().unwrap()).collect();
    assert_eq!(inodes.len(), listed.len(), "none twice");
    for netns in [&named, &anonymous] {
        let of = listed.iter().find(|of| of["inode"] == netns.inode).unwrap();
        assert_eq!(of["sockets"], 3, "a listener and both ends: {of}");
        assert_eq!(of["cookie"].as_u64().unwrap_or(0), netns.id.cookie, "{of}");
        let name = netns.name.clone().unwrap_or_else(|| format!("netns:[{}]", netns.inode));
        assert_eq!(
            (&of["name"], &of["own"], &of["error"]),
            (&name.into(), &false.into(), &Value::Null),
            "{of}"
        );
        assert!(of["last_dump_us"].as_u64().unwrap() > 0, "{of}");
    }
    let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["inode"], &listed[0]["own"]),
        (&"default".into(), &own.into(), &true.into())
    );
}

#[test]
fn the_table_has_a_line_for_each_namespace_under_its_titles() {
    let _alone = alone();
    let netns = Netns::named("table");
    let agent = agent().without_rows().start();
    let mut listed = run_to_end(&[], &["netns", "--agent", &agent.grpc.to_string()]);
    assert_eq!(listed.wait(LIMIT).unwrap().code(), Some(0), "{}", listed.stderr.text());
    let text = listed.stdout.text();
    let titles = text.lines().next().unwrap();
    let name = netns.name.clone().unwrap();
    let line = text.lines().find(|line| line.starts_with(&name)).unwrap_or_else(|| panic!("{text}"));
    let ends_at = titles.find("Inode").unwrap() + "Inode".len();
    assert!(line[..ends_at].ends_with(&netns.inode.to_string()), "{titles}\n{line}");
    assert!(text.lines().nth(1).unwrap().starts_with("default "), "the own one comes first: {text}");
}

#[test]
fn who_watches_sees_a_namespace_come_get_its_name_and_go() {
    let _alone = alone();
    let agent = agent().without_rows().start();
    let words = ["netns", "--watch", "--json", "--agent", &agent.grpc.to_string()].map(OsString::from);
    let argv: Vec<OsString> = std::iter::once(binary().into()).chain(words).collect();
    let mut watch = Process::start("netns --watch", &argv);
    let wait = |what: &str, name: &str, inode: Option<u64>| {
        let found = watch.stdout.wait_for(LIMIT, |line| {
            let change: Value = serde_json::from_str(line).unwrap();
            change["what"] == what
                && (name.is_empty() || change["name"] == name)
                && inode.is_none_or(|inode| change["inode"] == inode)
        });
        let found =
            found.unwrap_or_else(|| panic!("{name} {inode:?} is not told {what}: {}", watch.stdout.text()));
        serde_json::from_str::<Value>(&found.text).unwrap()
    };
    wait("exists", "default", None);
    let netns = Netns::named("watch");
    let (name, inode, cookie) = (netns.name.clone().unwrap(), netns.inode, netns.id.cookie);
    wait("created", "", Some(inode));
    wait("changed", &name, Some(inode));
    let before = watch.stdout.len();
    netns.end();
    let gone = wait("destroyed", &name, Some(inode));
    assert_eq!(gone["cookie"].as_u64().unwrap_or(0), cookie, "{gone}");
    assert!(watch.stdout.len() > before);
    drop(agent);
    let status = watch.wait(LIMIT).expect("it ends with its agent");
    assert_eq!(status.code(), Some(1), "{}", watch.stderr.text());
    assert!(watch.stderr.text().contains("the agent has ended"), "{}", watch.stderr.text());
}

#[test]
fn without_an_agent_it_looks_itself_and_says_so() {
    let _alone = alone();
    let netns = Netns::named("alone");
    let _held = netns.run_in(|| pair(Ipv4Addr::LOCALHOST));
    let port = free_port().to_string();
    let mut listed = run_to_end(&[], &["netns", "--json", "--grpc-port", &port]);
    let status = listed.wait(LIMIT).unwrap();
    let told = listed.stderr.text();
    // 1 where a namespace of somebody else ended while it was asked.
    assert!(matches!(status.code(), Some(0 | 1)), "{status}: {told}");
    assert!(
        told.contains(&format!("no agent answers at 127.0.0.1:{port}")) && told.contains("one look"),
        "{told}"
    );
    let listed = objects(&listed.stdout.text());
    let of = listed.iter().find(|of| of["inode"] == netns.inode).unwrap_or_else(|| panic!("{listed:?}"));
    assert_eq!((&of["name"], &of["sockets"]), (&netns.name.clone().unwrap().into(), &3.into()), "{of}");
    assert_eq!((&of["state"], &of["found"]), (&"polled".into(), &Value::Null), "{of}");

    let address = format!("127.0.0.1:{port}");
    for (args, expected) in [
        (vec!["netns", "--agent", &address], "no agent answers at"),
        (vec!["netns", "--watch", "--grpc-port", &port], "--watch needs a running agent"),
        (vec!["netns", "--agent", "not an address"], "is no address"),
    ] {
        let mut listed = run_to_end(&[], &args);
        let status = listed.wait(LIMIT).unwrap();
        let told = listed.stderr.text();
        assert_eq!(status.code(), Some(2), "{args:?}: {told}");
        assert!(told.contains(expected), "{args:?}: {told}");
    }
}
