//! Promise: a row of a socket inside a container says which container, with its name and image where an engine tells; a
//! row of a service's socket says which unit.
//!
//! The containers are podman's with runc, on this host's cgroups and on cgroup2 alone; what the rows say is compared with
//! what podman says. Each container has one connection to itself on a port that no other has, so that a row's container
//! is known without the agent.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use xtcp_proto::flat_record::v1::xtcp_flat_record::WorkloadSource;
use xtcp_tests::agent::{Agent, agent};
use xtcp_tests::container::podman::Podman;
use xtcp_tests::container::service::Service;
use xtcp_tests::container::{Cgroups, Container, image};
use xtcp_tests::host::{alone, monotonic_ns};
use xtcp_tests::row::Row;
use xtcp_tests::traffic;

const LIMIT: Duration = Duration::from_secs(30);

/// Nothing that happens by itself finds a namespace within a test's time.
const WITHOUT_EBPF: [&str; 4] = ["--ebpf", "off", "--reconcile-frequency", "1h"];

#[test]
fn rows_name_containers_older_and_younger_than_the_agent_on_the_hosts_cgroups() {
    rows_name_containers(Cgroups::Host, &[]);
}

#[test]
fn rows_name_containers_older_and_younger_than_the_agent_on_cgroup2() {
    rows_name_containers(Cgroups::V2, &[]);
}

#[test]
fn without_ebpf_an_engines_events_lead_to_containers_younger_than_the_agent_on_the_hosts_cgroups() {
    rows_name_containers(Cgroups::Host, &WITHOUT_EBPF);
}

#[test]
fn without_ebpf_an_engines_events_lead_to_containers_younger_than_the_agent_on_cgroup2() {
    rows_name_containers(Cgroups::V2, &WITHOUT_EBPF);
}

fn rows_name_containers(cgroups: Cgroups, args: &[&str]) {
    let _alone = alone();
    let mut podman = Podman::start(cgroups);
    let socket = podman.serve().display().to_string();
    let older = podman.container("older");
    let agent = agent().frequency("200ms").args(&["--docker-socket", &socket]).args(args).start();
    check(&podman, &agent, &older);
    let younger = podman.container("younger");
    check(&podman, &agent, &younger);

    // The same container in another namespace.
    let again = podman.restart(&older);
    check(&podman, &agent, &again);

    // Another container of the same name.
    podman.remove(&younger);
    let next = podman.container("younger");
    assert_ne!(next.id, younger.id);
    check(&podman, &agent, &next);
    nobody_elses(&agent, &[&older, &younger, &again, &next]);
}

#[test]
fn without_an_engines_word_its_cgroup_tells_the_id_of_a_container_and_no_name() {
    let _alone = alone();
    let podman = Podman::start(Cgroups::Host);
    let older = podman.container("older");
    let agent = agent().frequency("200ms").args(&["--docker-socket", "off", "--cri-socket", "off"]).start();
    let younger = podman.container("younger");
    for container in [&older, &younger] {
        let row = wait_for_row(&agent, container, |row| !row.record.container_id.is_empty());
        assert_eq!(row.record.container_id, container.id);
        assert_eq!(row.record.container_runtime, "podman");
        assert_eq!((row.record.container_name.as_str(), row.record.container_image.as_str()), ("", ""));
        assert_eq!(row.record.workload_source(), WorkloadSource::Cgroup);
        assert_eq!(row.record.cgroup_path, format!("{}/libpod-{}", podman.cgroup(), container.id));
    }
}

/// Its connection's other end and the listener are the test's, in the same namespace and another cgroup.
#[test]
fn a_row_of_a_services_socket_says_its_unit() {
    let _alone = alone();
    let agent = agent().frequency("200ms").start();
    let pair = traffic::listen("127.0.0.1:0".parse().unwrap());
    let address = pair.local_addr().unwrap();
    let helper = env!("CARGO_BIN_EXE_xtcp-test-helper");
    let service = Service::start("web", &[helper, &address.to_string()]);
    let server = traffic::accept(&pair);
    let client = server.peer_addr().unwrap();
    let what = "a row of the service's socket with its unit";
    let row = agent.wait_for_row(what, LIMIT, |row| {
        row.local() == client && row.remote() == address && !row.record.systemd_unit.is_empty()
    });
    assert_eq!(row.record.systemd_unit, service.unit);
    assert_eq!(row.record.cgroup_path, format!("/system.slice/{}", service.unit));
    assert_eq!(row.record.container_id, "");
    let others = agent.rows().into_iter().filter(|row| row.local() == address);
    assert_eq!(others.filter(|row| row.record.systemd_unit == service.unit).count(), 0);
}

#[test]
fn an_engine_leaves_nothing_behind_after_a_panic() {
    let _alone = alone();
    let mut left = (0, String::new(), String::new());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut podman = Podman::start(Cgroups::Host);
        let socket = podman.serve();
        let container = podman.container("left");
        let path = format!("{}/libpod-{}", podman.cgroup(), container.id);
        assert!(container.cgroups().lines().any(|line| line.ends_with(&path)), "{}", container.cgroups());
        left = (container.pid, podman.cgroup().to_owned(), socket.display().to_string());
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    let (pid, cgroup, socket) = left;
    assert!(pid > 0 && !Path::new(&format!("/proc/{pid}/ns/net")).exists());
    assert!(!Path::new(&socket).exists());
    for mount in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"] {
        assert!(!Path::new(&format!("{mount}{cgroup}")).exists(), "{mount}{cgroup}");
    }
}

/// Waits until rows tell all that podman does of a container.
fn check(podman: &Podman, agent: &Agent, container: &Container) {
    let start = (Instant::now(), monotonic_ns());
    // Whose the socket's process is may be known before whose the namespace is, which is called by its inode till then.
    let is_named = |row: &Row| !row.record.netns.starts_with("netns:[");
    let fresh =
        |row: &Row| row.arrived_ns > start.1 && !row.record.container_name.is_empty() && is_named(row);
    let row = wait_for_row(agent, container, fresh);
    println!("{} after {:.2?}", container.name, start.0.elapsed());
    let record = &row.record;
    assert_eq!(record.container_id, podman.inspect(&container.name, ".Id"));
    assert_eq!(record.container_id, container.id);
    assert_eq!(record.container_name, podman.inspect(&container.name, ".Name"));
    assert_eq!(record.container_image, podman.inspect(&container.name, ".ImageName"));
    assert_eq!(record.container_image, image::NAME);
    assert_eq!(record.container_runtime, "podman");
    assert_eq!(record.workload_source(), WorkloadSource::Docker);
    assert_eq!(record.cgroup_path, format!("{}/libpod-{}", podman.cgroup(), container.id));
    assert_eq!((record.pod_uid.as_str(), record.systemd_unit.as_str()), ("", ""));
    assert_eq!(
        record.netns, container.name,
        "its namespace has no bind mount: it is named after the container"
    );
}

fn wait_for_row(agent: &Agent, container: &Container, mut wanted: impl FnMut(&Row) -> bool) -> Row {
    let what = format!("a row of container {}", container.name);
    agent.wait_for_row(&what, LIMIT, |row| {
        row.record.netns_inode == container.netns_inode && container.has_port_of(row) && wanted(row)
    })
}

/// A row tells the container whose port it has, or none.
fn nobody_elses(agent: &Agent, containers: &[&Container]) {
    let rows = agent.rows();
    assert!(!rows.is_empty());
    for row in rows {
        let owners: Vec<_> = containers.iter().filter(|container| container.has_port_of(&row)).collect();
        let told = &row.record.container_id;
        assert!(
            told.is_empty() || owners.is_empty() || owners.iter().any(|owner| owner.id == *told),
            "a row of {owners:?} is told to be of {told}: {row:?}"
        );
    }
}
