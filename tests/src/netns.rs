//! Network namespaces and veth pairs, removed again on drop.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use xtcp_agent::sys::netns_cookie;

use crate::host::{monotonic_ns, require_root, wait_for};
use crate::process::{Process, run};

/// Starts the name of every namespace that the tests make; the id of the test's process follows.
pub const PREFIX: &str = "xtcp-t";

/// Who a network namespace is: the kernel gives a dead one's inode to the next, but never its cookie. Where it has no
/// cookies, what was told before the namespace was made is of a dead one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// Inode in nsfs.
    pub inode: u64,
    /// `SO_NETNS_COOKIE` of a socket inside; 0 before 5.14.
    pub cookie: u64,
    /// Before it was made, `CLOCK_MONOTONIC` nanoseconds.
    pub since_ns: u64,
}

/// A network namespace with loopback up.
#[derive(Debug)]
pub struct Netns {
    /// Its name under /run/netns; `None` for one that only a process holds.
    pub name: Option<String>,
    /// Its inode in nsfs.
    pub inode: u64,
    /// Who it is.
    pub id: Id,
    path: PathBuf,
    holder: Option<Process>,
}

impl Netns {
    /// One made by `ip netns add`, named after the test's process and `label`.
    pub fn named(label: &str) -> Self {
        let netns = Self::named_bare(label);
        netns.bring_loopback_up();
        netns
    }

    /// As [`named`](Self::named), with loopback left down: nothing but the one command has touched it.
    pub fn named_bare(label: &str) -> Self {
        require_root();
        let name = unique(label);
        let id = Id { inode: 0, cookie: 0, since_ns: monotonic_ns() };
        run(&["ip", "netns", "add", &name]);
        let path = Path::new("/run/netns").join(&name);
        // From here on the drop removes it, whatever fails.
        let mut netns = Self { name: Some(name), inode: 0, id, path, holder: None };
        netns.identify();
        netns
    }

    /// One made by `unshare -n`: no mount and no name, one process inside.
    pub fn anonymous(label: &str) -> Self {
        let netns = Self::anonymous_bare(label);
        netns.bring_loopback_up();
        netns
    }

    /// As [`anonymous`](Self::anonymous), with loopback left down.
    pub fn anonymous_bare(label: &str) -> Self {
        require_root();
        let id = Id { inode: 0, cookie: 0, since_ns: monotonic_ns() };
        // `cat` ends with its standard input, so it cannot outlive a test that was killed.
        let holder = Process::spawn(&unique(label), Command::new("unshare").args(["-n", "cat"]));
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.pid()));
        let home = inode(Path::new("/proc/thread-self/ns/net"));
        let entered = || std::fs::metadata(&path).is_ok_and(|meta| meta.ino() != home);
        wait_for("unshare -n to enter its namespace", Duration::from_secs(10), || entered().then_some(()));
        let mut netns = Self { name: None, inode: 0, id, path, holder: Some(holder) };
        netns.identify();
        netns
    }

    /// Where it can be opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The process that holds an anonymous one.
    pub fn holder_pid(&self) -> Option<u32> {
        self.holder.as_ref().map(Process::pid)
    }

    /// Runs `work` on a fresh thread inside. Sockets, threads and processes that it makes belong to this namespace.
    pub fn run_in<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file =
            File::open(&self.path).unwrap_or_else(|e| panic!("{} does not open: {e}", self.path.display()));
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name(format!("in {}", self.path.display()))
                .spawn_scoped(scope, move || {
                    enter(file);
                    assert_eq!(
                        inode(Path::new("/proc/thread-self/ns/net")),
                        self.inode,
                        "entered another namespace"
                    );
                    work()
                })
                .expect("a thread can be started");
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Runs `argv` inside and returns its standard output.
    pub fn exec(&self, argv: &[&str]) -> String {
        self.run_in(|| run(argv))
    }

    /// Writes `/proc/sys/net/<key>` inside.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = Path::new("/proc/sys/net").join(key);
        self.run_in(|| {
            std::fs::write(&path, value)
                .unwrap_or_else(|e| panic!("{} cannot be {value:?}: {e}", path.display()));
        });
    }

    /// Ends it now: `ip netns del`, or the end of the process inside. A process or socket left inside keeps it alive.
    pub fn end(mut self) {
        self.remove();
    }

    fn identify(&mut self) {
        self.inode = inode(&self.path);
        let cookie = self.run_in(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket can be made");
            netns_cookie(socket.as_fd()).expect("SO_NETNS_COOKIE can be read").unwrap_or(0)
        });
        self.id = Id { inode: self.inode, cookie, ..self.id };
    }

    fn remove(&mut self) {
        if let Some(name) = self.name.take() {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
        self.holder = None;
    }

    fn bring_loopback_up(&self) {
        self.exec(&["ip", "link", "set", "lo", "up"]);
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Joins two namespaces by a veth pair: device, and address with prefix length, of each end; both ends up.
pub fn join_by_veth(a: (&Netns, &str, &str), b: (&Netns, &str, &str)) {
    let peer = match (&b.0.name, b.0.holder_pid()) {
        (Some(name), _) => name.clone(),
        (None, Some(pid)) => pid.to_string(),
        (None, None) => panic!("namespace {} has neither name nor process", b.0.inode),
    };
    a.0.exec(&["ip", "link", "add", a.1, "type", "veth", "peer", "name", b.1, "netns", &peer]);
    for (netns, device, address) in [a, b] {
        netns.exec(&["ip", "address", "add", address, "dev", device, "nodad"]);
        netns.exec(&["ip", "link", "set", device, "up"]);
    }
}

/// Whether a name that begins with [`PREFIX`] and the id of a test's process is of one that is no more.
pub(crate) fn is_orphan(name: &str) -> bool {
    let owner =
        name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')).and_then(|r| r.split('-').next());
    owner.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
}

/// Removes named namespaces whose test was killed before it could.
pub fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        if is_orphan(&name) {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own thread enters a namespace that the test made, and ends there"
)]
fn enter(file: File) {
    setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a network namespace");
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).ino()
}

fn unique(label: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}-{}-{label}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
