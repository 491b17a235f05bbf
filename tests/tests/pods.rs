//! Promise: a row of a socket inside a pod says which pod and container, and a pod that is removed is gone within a second.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use xtcp_tests::container::Cgroups;
use xtcp_tests::container::containerd::Containerd;
use xtcp_tests::host::alone;

#[test]
fn the_room_of_an_engine_is_gone_with_it() {
    let _alone = alone();
    for cgroups in [Cgroups::Host, Cgroups::V2] {
        let containerd = Containerd::start(cgroups);
        let pod =
            containerd.pod("shop", "till-0", "5e3f0d4a-8d0e-4b0e-9d0b-0d8a3a0d4b11", &[("app", "till")]);
        println!("{cgroups:?}: {pod:?}");
        let one = containerd.container(&pod, "one");
        let two = containerd.container(&pod, "two");
        println!("{}", one.cgroups());
        assert_eq!(one.netns_inode, two.netns_inode);
        assert_eq!(one.netns_inode, pod.netns_inode);
        assert!(std::path::Path::new("/sys/class/net").join(&pod.veth).exists());
        containerd.remove(&pod);
        assert!(!pod.netns_path.exists());
        assert!(!std::path::Path::new("/sys/class/net").join(&pod.veth).exists());
    }
}
