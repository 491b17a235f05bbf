//! Promise: a row of a socket inside a Kubernetes pod says which pod and which container, and a pod that was removed is
//! gone within a second, however often the agent polls it.
//!
//! The pods are containerd's, made over its CRI as a kubelet makes them, with a veth by CNI, on this host's cgroups and
//! on cgroup2 alone. That a namespace is gone is told by a veth of the test's own, which no plugin removes: its outer end
//! goes with the namespace, and an open socket or nsfs descriptor of the agent would keep both.
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
use xtcp_tests::container::containerd::{Containerd, Pod};
use xtcp_tests::container::{Cgroups, Container, image};
use xtcp_tests::host::{alone, monotonic_ns, scale, wait_for};
use xtcp_tests::netns::Netns;
use xtcp_tests::stats::Latencies;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn rows_name_pods_older_and_younger_than_the_agent_on_the_hosts_cgroups() {
    rows_name_pods(Cgroups::Host, true);
}

#[test]
fn rows_name_pods_older_and_younger_than_the_agent_on_cgroup2() {
    rows_name_pods(Cgroups::V2, true);
}

#[test]
fn without_ebpf_rows_name_pods_older_and_younger_than_the_agent_on_the_hosts_cgroups() {
    rows_name_pods(Cgroups::Host, false);
}

#[test]
fn without_ebpf_rows_name_pods_older_and_younger_than_the_agent_on_cgroup2() {
    rows_name_pods(Cgroups::V2, false);
}

fn rows_name_pods(cgroups: Cgroups, ebpf: bool) {
    let _alone = alone();
    let containerd = Containerd::start(cgroups);
    let socket = containerd.socket().display().to_string();
    let older = containerd.pod("shop", "till-0", "5e3f0d4a-8d0e-4b0e-9d0b-0d8a3a0d4b11", &[("app", "till")]);
    let scan = containerd.container(&older, "scan");
    // Which of a pod's containers has a socket, only its process tells: of sockets older than the agent, a walk.
    let args = ["--cri-socket", &socket, "--pod-labels", "app", "--process-scan", "start"];
    let without: &[&str] = if ebpf { &[] } else { &["--ebpf", "off", "--reconcile-frequency", "1h"] };
    let agent = agent().frequency("200ms").args(&args).args(without).start();
    // Of younger ones nothing but eBPF tells on v1; on cgroup2 also the cgroup that the kernel tells of each socket.
    let told = ebpf || cgroups == Cgroups::V2;
    check(&agent, &older, &scan, true);

    // Two containers of one pod are in one namespace.
    let pay = containerd.container(&older, "pay");
    assert_eq!(pay.netns_inode, scan.netns_inode);
    check(&agent, &older, &pay, told);

    // As after a crash: a container of the same name in the same namespace.
    containerd.remove_container(&pay);
    let again = containerd.container_of_attempt(&older, "pay", 1);
    assert_ne!(again.id, pay.id);
    check(&agent, &older, &again, told);

    let younger =
        containerd.pod("depot", "till-0", "0b9d5d9e-52fa-4d0c-8c2a-6a5f7b1f0d22", &[("app", "depot")]);
    let rack = containerd.container(&younger, "rack");
    check(&agent, &younger, &rack, told);

    nobody_elses(&agent, &[(&older, &scan), (&older, &pay), (&older, &again), (&younger, &rack)]);
    containerd.remove(&older);
    containerd.remove(&younger);
}

#[test]
fn a_pod_is_gone_within_a_second_of_its_removal_while_it_is_polled_every_100_ms() {
    let _alone = alone();
    let containerd = Containerd::start(Cgroups::Host);
    let outside = Netns::named("outside");
    let socket = containerd.socket().display().to_string();
    let agent = agent().frequency("100ms").args(&["--cri-socket", &socket]).start();
    let (mut removed_ns, mut gone_ns) = (Vec::new(), Vec::new());
    for round in 0..scale(3, 50) {
        let uid = format!("7c1d3f6a-0000-4000-8000-{round:012}");
        let pod = containerd.pod("shop", &format!("till-{round}"), &uid, &[]);
        let container = containerd.container(&pod, "pay");
        let veth = Path::new("/sys/class/net").join(&pod.veth);
        let pid = pod.pid.to_string();
        outside.exec(&["ip", "link", "add", "peer", "type", "veth", "peer", "name", "extra", "netns", &pid]);
        let peer = || outside.run_in(|| Path::new("/proc/thread-self/net/dev_snmp6/peer").exists());
        assert!(veth.exists() && pod.netns_path.exists() && peer());
        let mut polls = Vec::new();
        agent.wait_for_row("two polls of the pod", LIMIT, |row| {
            if row.record.netns_inode == pod.netns_inode && container.has_port_of(row) {
                polls.extend(row.poll().filter(|poll| !polls.contains(poll)));
            }
            polls.len() >= 2
        });
        let begin = monotonic_ns();
        containerd.remove(&pod);
        let removed = monotonic_ns();
        assert!(!pod.netns_path.exists(), "containerd unmounts it");
        wait_for("the pod's namespace and veths to go", Duration::from_secs(20), || {
            (!peer() && !veth.exists()).then_some(())
        });
        removed_ns.push(removed - begin);
        gone_ns.push(monotonic_ns() - removed);
    }
    println!("removal by containerd: {:.2?} (p50)", Latencies::new(removed_ns).percentile(50));
    Latencies::new(gone_ns).report("end of a pod's removal to its namespace's end", Duration::from_secs(1));
}

#[test]
fn an_engine_leaves_nothing_behind_after_a_panic() {
    let _alone = alone();
    let mut left = None;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let containerd = Containerd::start(Cgroups::Host);
        let pod = containerd.pod("shop", "left", "3d7e0d4a-8d0e-4b0e-9d0b-0d8a3a0d4b33", &[]);
        let container = containerd.container(&pod, "pay");
        let path = format!("{}/{}", cgroup_of(&containerd, &pod), container.id);
        assert!(container.cgroups().lines().any(|line| line.ends_with(&path)), "{}", container.cgroups());
        assert!(pod.netns_path.starts_with("/var/run/netns"), "{}", pod.netns_path.display());
        assert!(pod.netns_path.exists() && Path::new("/sys/class/net").join(&pod.veth).exists());
        left = Some((pod, container, containerd.cgroup_root().to_owned()));
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    let (pod, container, cgroup) = left.unwrap();
    for pid in [pod.pid, container.pid] {
        assert!(!Path::new(&format!("/proc/{pid}/ns/net")).exists());
    }
    assert!(!pod.netns_path.exists());
    // The kernel takes a namespace apart in its own time.
    let veth = Path::new("/sys/class/net").join(&pod.veth);
    wait_for("the veth to go", Duration::from_secs(20), || (!veth.exists()).then_some(()));
    for mount in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"] {
        assert!(!Path::new(&format!("{mount}{cgroup}")).exists(), "{mount}{cgroup}");
    }
}

/// Waits until rows tell all of a container's pod and, where that is `told`, for its own sockets the container.
fn check(agent: &Agent, pod: &Pod, container: &Container, told: bool) {
    let start = (Instant::now(), monotonic_ns());
    let what = format!("a row of container {} of pod {}/{}", container.name, pod.namespace, pod.name);
    let row = agent.wait_for_row(&what, LIMIT, |row| {
        row.arrived_ns > start.1
            && row.record.netns_inode == pod.netns_inode
            && container.has_port_of(row)
            && !row.record.pod_name.is_empty()
            && (!told || !row.record.container_name.is_empty())
    });
    println!("{}/{} {} after {:.2?}", pod.namespace, pod.name, container.name, start.0.elapsed());
    let record = &row.record;
    assert_eq!(
        (&record.pod_name, &record.pod_namespace, &record.pod_uid),
        (&pod.name, &pod.namespace, &pod.uid)
    );
    assert_eq!(record.pod_labels, [format!("app={}", pod.label("app").unwrap())]);
    if told {
        assert_eq!((&record.container_id, &record.container_name), (&container.id, &container.name));
        assert_eq!(record.container_image, image::NAME);
        assert_eq!(record.container_runtime, "containerd");
    }
    assert_eq!(record.workload_source(), WorkloadSource::Cri);
    let mount = pod.netns_path.file_name().unwrap().to_str().unwrap();
    assert_eq!(record.netns, mount, "a namespace with a bind mount is named after it");
}

/// A row tells the pod and the container whose port it has, or none.
fn nobody_elses(agent: &Agent, containers: &[(&Pod, &Container)]) {
    let rows = agent.rows();
    assert!(!rows.is_empty());
    for row in rows {
        let owners = || containers.iter().filter(|(_, container)| container.has_port_of(&row));
        if owners().next().is_none() {
            continue;
        }
        let (pod, container) = (&row.record.pod_uid, &row.record.container_id);
        assert!(pod.is_empty() || owners().any(|(owner, _)| owner.uid == *pod), "{pod} is wrong: {row:?}");
        assert!(
            container.is_empty() || owners().any(|(_, owner)| owner.id == *container),
            "{container} is wrong: {row:?}"
        );
    }
}

fn cgroup_of(containerd: &Containerd, pod: &Pod) -> String {
    format!("{}/kubepods/besteffort/pod{}", containerd.cgroup_root(), pod.uid)
}
