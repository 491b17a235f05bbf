//! Promise: a row of a socket inside a container says which container, with its name and image where an engine tells; a
//! row of a service's socket says which unit.
//!
//! The containers are podman's and Docker's with runc, on this host's cgroups and on cgroup2 alone; what the rows say is
//! compared with what the engine says. Each container has one connection to itself on a port that no other has, so that a row's container
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
use xtcp_tests::container::docker::Docker;
use xtcp_tests::container::engine::Engine;
use xtcp_tests::container::podman::Podman;
use xtcp_tests::container::service::Service;
use xtcp_tests::container::{Cgroups, Container, image};
use xtcp_tests::events::Subscriber;
use xtcp_tests::host::{alone, monotonic_ns, wait_for};
use xtcp_tests::nats::NatsServer;
use xtcp_tests::row::Row;
use xtcp_tests::traffic;

const LIMIT: Duration = Duration::from_secs(60);

/// Nothing that happens by itself finds a namespace within a test's time.
const WITHOUT_EBPF: [&str; 4] = ["--ebpf", "off", "--reconcile-frequency", "1h"];

#[test]
fn rows_name_containers_older_and_younger_than_the_agent_on_the_hosts_cgroups() {
    let _alone = alone();
    rows_name_containers(Podman::start(Cgroups::Host), &[]);
}

#[test]
fn rows_name_containers_older_and_younger_than_the_agent_on_cgroup2() {
    let _alone = alone();
    rows_name_containers(Podman::start(Cgroups::V2), &[]);
}

#[test]
fn without_ebpf_an_engines_events_lead_to_containers_younger_than_the_agent_on_the_hosts_cgroups() {
    let _alone = alone();
    rows_name_containers(Podman::start(Cgroups::Host), &WITHOUT_EBPF);
}

#[test]
fn rows_name_dockers_containers_older_and_younger_than_the_agent_on_the_hosts_cgroups() {
    let _alone = alone();
    rows_name_containers(Docker::start(Cgroups::Host), &[]);
}

#[test]
fn without_ebpf_rows_name_dockers_containers_older_and_younger_than_the_agent_on_cgroup2() {
    let _alone = alone();
    rows_name_containers(Docker::start(Cgroups::V2), &WITHOUT_EBPF);
}

fn rows_name_containers<E: Engine>(mut engine: E, args: &[&str]) {
    let socket = engine.serve().display().to_string();
    let older = engine.container("older");
    let agent = agent().frequency("200ms").args(&["--docker-socket", &socket]).args(args).start();
    check(&engine, &agent, &older);
    // Labels as compose gives them, which mean nothing to the agent.
    let compose = ["--label", "com.docker.compose.project=shop", "--label", "com.docker.compose.service=web"];
    let younger = engine.container_with("shop-web-1", &compose);
    check(&engine, &agent, &younger);

    // The same container in another namespace.
    let again = engine.restart(&older);
    check(&engine, &agent, &again);

    // Another container of the same name.
    engine.remove(&younger);
    let next = engine.container("shop-web-1");
    assert_ne!(next.id, younger.id);
    check(&engine, &agent, &next);
    nobody_elses(&agent, &[&older, &younger, &again, &next]);
}

#[test]
fn a_container_of_podman_whose_label_opts_out_has_neither_rows_nor_events() {
    let _alone = alone();
    a_label_opts_out(Podman::start(Cgroups::Host));
}

#[test]
fn a_container_of_docker_whose_label_opts_out_has_neither_rows_nor_events() {
    let _alone = alone();
    a_label_opts_out(Docker::start(Cgroups::Host));
}

/// The label counts from when the engine has told of it on; another container shows that rows and events do come.
fn a_label_opts_out<E: Engine>(mut engine: E) {
    const SHY: [&str; 2] = ["--label", "xtcp2.io/exclude=true"];
    let socket = engine.serve().display().to_string();
    let older = engine.container_with("older", &SHY);
    let nats = NatsServer::start();
    let subscriber = Subscriber::new(&nats);
    let args = ["--docker-socket", &socket];
    let agent = agent().frequency("200ms").events_to(&nats).args(&args).start();
    let younger = engine.container_with("younger", &SHY);
    let open = engine.container_with("open", &["--label", "xtcp2.io/exclude=false"]);
    wait_for("both containers to be left out", LIMIT, || {
        (agent.metrics().sum("xtcp_netns_opted_out", &[]) >= 2.0).then_some(())
    });
    wait_for_row(&agent, &open, |row| !row.record.container_name.is_empty());
    // Whatever was under way by then is through once others are polled twice.
    let mut polls = Vec::new();
    let start = monotonic_ns();
    wait_for_row(&agent, &open, |row| {
        polls.extend(row.poll().filter(|poll| row.arrived_ns > start && !polls.contains(poll)));
        polls.len() >= 2
    });
    let start = monotonic_ns();
    for container in [&older, &younger, &open] {
        let once = "nc 127.0.0.1 $0 </dev/null & usleep 100000; kill $!";
        engine.exec(container, &["/bin/sh", "-c", once, &container.port.to_string()]);
    }
    subscriber.wait_for("an event of the container that did not opt out", LIMIT, |seen| {
        seen.arrived_ns > start && seen.inode() == open.netns_inode && seen.state().is_some()
    });
    wait_for_row(&agent, &open, |row| row.arrived_ns > start);
    for shy in [&older, &younger] {
        let rows = agent.rows().into_iter().filter(|row| row.arrived_ns > start);
        let told: Vec<Row> = rows.filter(|row| row.record.netns_inode == shy.netns_inode).collect();
        assert!(told.is_empty(), "{} opted out: {told:?}", shy.name);
        let events = subscriber.all().into_iter().filter(|seen| seen.arrived_ns > start);
        let told: Vec<_> =
            events.filter(|seen| seen.inode() == shy.netns_inode && seen.state().is_some()).collect();
        assert!(told.is_empty(), "{} opted out: {told:?}", shy.name);
    }
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
        assert_eq!(row.record.cgroup_path, podman.cgroup_of(container));
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
    leaves_nothing_behind(Podman::start);
    leaves_nothing_behind(Docker::start);
}

fn leaves_nothing_behind<E: Engine>(start: fn(Cgroups) -> E) {
    let mut left = None;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut engine = start(Cgroups::Host);
        let socket = engine.serve();
        let container = engine.container("left");
        let path = engine.cgroup_of(&container);
        assert!(container.cgroups().lines().any(|line| line.ends_with(&path)), "{}", container.cgroups());
        left = Some((container.pid, engine.room().cgroup().to_owned(), socket));
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    let (pid, cgroup, socket) = left.unwrap();
    assert!(!Path::new(&format!("/proc/{pid}/ns/net")).exists());
    assert!(!socket.exists());
    for mount in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"] {
        assert!(!Path::new(&format!("{mount}{cgroup}")).exists(), "{mount}{cgroup}");
    }
}

/// Waits until rows tell all that the engine does of a container.
fn check<E: Engine>(engine: &E, agent: &Agent, container: &Container) {
    let start = (Instant::now(), monotonic_ns());
    // Whose the socket's process is may be known before whose the namespace is, which is called by its inode till then, or
    // by its container's id.
    let named = |row: &Row| row.record.netns.clone();
    let is_named = |row: &Row| !named(row).starts_with("netns:[") && !container.id.starts_with(&named(row));
    let fresh =
        |row: &Row| row.arrived_ns > start.1 && !row.record.container_name.is_empty() && is_named(row);
    let row = wait_for_row(agent, container, fresh);
    println!("{} after {:.2?}", container.name, start.0.elapsed());
    let record = &row.record;
    let told = [&record.container_id, &record.container_name, &record.container_image].map(String::clone);
    assert_eq!(told, engine.tells(container));
    assert_eq!(told, [&*container.id, &container.name, image::NAME].map(str::to_owned));
    assert_eq!(record.container_runtime, E::RUNTIME);
    assert_eq!(record.workload_source(), WorkloadSource::Docker);
    assert_eq!(record.cgroup_path, engine.cgroup_of(container));
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
