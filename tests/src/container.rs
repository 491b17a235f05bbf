//! Real containers: podman, Docker and containerd from Debian, with an image of one static busybox, in a room of their own.
//!
//! Nothing of the host's engines is touched: stores, sockets, settings and cgroups are the test's. No image registry is
//! asked, and no container has a way out of the host.

mod cgroup;
pub mod containerd;
pub mod cri;
pub mod docker;
pub mod engine;
pub mod image;
pub mod podman;
mod room;
pub mod service;

pub use room::{Cgroups, Room};

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::host::wait_for;
use crate::netns::PREFIX;
use crate::row::Row;

/// One running container.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its id: 64 hexadecimal digits.
    pub id: String,
    /// Its name as the engine tells it.
    pub name: String,
    /// Its first process, in the host's process ids.
    pub pid: u32,
    /// Inode of its network namespace.
    pub netns_inode: u64,
    /// Where its program listens on 127.0.0.1, with one connection to itself.
    pub port: u16,
}

impl Container {
    /// Looks at a process that was just started, and waits until its connection stands.
    fn new(id: String, name: &str, pid: u32, port: u16) -> Self {
        let container = Self { id, name: name.to_owned(), pid, netns_inode: netns_inode(pid), port };
        container.wait_for_connection();
        container
    }

    /// What `/proc/<pid>/cgroup` of its first process says.
    pub fn cgroups(&self) -> String {
        let path = format!("/proc/{}/cgroup", self.pid);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Whether a row is of its listener or its connection, by the port that nothing else has.
    pub fn has_port_of(&self, row: &Row) -> bool {
        let record = &row.record;
        [record.inet_diag_msg_socket_source_port, record.inet_diag_msg_socket_destination_port]
            .contains(&u32::from(self.port))
    }

    /// Both ends of its connection are in state ESTABLISHED: the one that connected is an IPv4 socket, the other is of a
    /// listener for both families.
    fn wait_for_connection(&self) {
        let port = format!(":{:04X}", self.port);
        let what = format!("the connection to port {} inside container {}", self.port, self.name);
        wait_for(&what, Duration::from_secs(20), || {
            let mut established = 0;
            for family in ["tcp", "tcp6"] {
                let path = format!("/proc/{}/net/{family}", self.pid);
                let table = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
                let of_port = table.lines().filter(|line| line.contains(&port));
                established += of_port.filter(|line| line.split_whitespace().nth(3) == Some("01")).count();
            }
            (established == 2).then_some(())
        });
    }
}

/// The inode of a process' network namespace.
pub fn netns_inode(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/ns/net");
    std::fs::metadata(&path).unwrap_or_else(|e| panic!("{path}: {e}")).ino()
}

/// A name that no other test and no other engine has.
fn unique(label: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}-{}-{label}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
