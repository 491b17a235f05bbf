//! Promise: a row of a socket inside a container says which container.
//!
//! The containers are podman's with runc, on this host's cgroups and on cgroup2 alone; what the rows say is compared with
//! what podman says of them.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use xtcp_tests::container::podman::Podman;
use xtcp_tests::container::{Cgroups, netns_inode};
use xtcp_tests::host::alone;

#[test]
fn the_room_of_an_engine_is_gone_with_it() {
    let _alone = alone();
    for cgroups in [Cgroups::Host, Cgroups::V2] {
        let mut podman = Podman::start(cgroups);
        podman.serve();
        let first = podman.container("first");
        let second = podman.container("second");
        println!("{cgroups:?}: {}", first.cgroups());
        let path = format!("{}/libpod-{}", podman.cgroup(), first.id);
        assert!(first.cgroups().lines().any(|line| line.ends_with(&path)), "{}", first.cgroups());
        assert_ne!(first.netns_inode, second.netns_inode);
        let again = podman.restart(&first);
        assert_ne!(again.pid, first.pid);
        assert_eq!(podman.inspect(&again.id, ".Id"), first.id);
        podman.remove(&second);
        assert_eq!(netns_inode(again.pid), again.netns_inode);
        drop(podman);
        assert!(!std::path::Path::new(&format!("/proc/{}", again.pid)).exists());
    }
}
