//! The containers of the tests are real, and gone after a panic.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::path::Path;

use xtcp_tests::container::Cgroups;
use xtcp_tests::container::podman::Podman;
use xtcp_tests::host::alone;

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
