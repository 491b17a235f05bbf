//! Promise: a pod that was removed is gone within a second, however often the agent polls it.
//!
//! The pods are containerd's, made over its CRI as a kubelet makes them, with a veth by CNI. That a namespace is gone is told by a veth of the test's own, which no plugin removes: its outer end
//! goes with the namespace, and an open socket or nsfs descriptor of the agent would keep both.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::path::Path;
use std::time::Duration;

use xtcp_tests::agent::agent;
use xtcp_tests::container::Cgroups;
use xtcp_tests::container::containerd::{Containerd, Pod};
use xtcp_tests::host::{alone, monotonic_ns, scale, wait_for};
use xtcp_tests::netns::Netns;
use xtcp_tests::stats::Latencies;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_pod_is_gone_within_a_second_of_its_removal_while_it_is_polled_every_100_ms() {
    let _alone = alone();
    let containerd = Containerd::start(Cgroups::Host);
    let outside = Netns::named("outside");
    let agent = agent().frequency("100ms").start();
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

fn cgroup_of(containerd: &Containerd, pod: &Pod) -> String {
    format!("{}/kubepods/besteffort/pod{}", containerd.cgroup_root(), pod.uid)
}
