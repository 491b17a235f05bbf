//! Many network namespaces, made as fast as the kernel makes them: by threads that call `unshare` again and again, with no
//! process for each.
//!
//! Each can carry a connection of its own, whose ports no other namespace of the fleet has: so a row tells from which it must
//! have come.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netlink_sys::Socket as Netlink;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use xtcp_agent::sys::{netns_cookie, open_netns};

use crate::host::{monotonic_ns, require_root, wait_for};
use crate::netns::{Id, PREFIX, is_orphan};
use crate::row::Row;
use crate::traffic::{cookie, reset_on_close};

/// First port of the first namespace of a fleet.
const FIRST_PORT: u16 = 10_000;
/// Namespaces of a fleet whose ports are all different.
const PORT_PAIRS: u16 = 26_000;

/// A connection over loopback, and its listener.
#[derive(Debug)]
pub struct Conversation {
    client: TcpStream,
    server: TcpStream,
    listener: TcpListener,
}

impl Conversation {
    /// In the calling thread's namespace, with the ports of namespace `index`.
    fn begin(index: usize) -> Self {
        let (listens, connects) = ports(index);
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, listens).into();
        let listener = TcpListener::bind(address).expect("nobody else is in a new namespace");
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
        client.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, connects)).into()).expect("its port is free");
        client.connect(&address.into()).expect("loopback is up");
        let (server, _) = listener.accept().expect("the connection is in the queue");
        Self { client: client.into(), server, listener }
    }
}

impl Conversation {
    /// Cookies of the client, of the server, and of the listener.
    pub fn cookies(&self) -> [u64; 3] {
        [cookie(&self.client), cookie(&self.server), cookie(&self.listener)]
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // Else an orphan in FIN_WAIT1 keeps the namespace for a minute: the kernel's doing.
        reset_on_close(&self.client);
    }
}

/// A namespace of a fleet.
#[derive(Debug)]
pub struct Member {
    /// Its place in the fleet.
    pub index: usize,
    /// Who it is.
    pub id: Id,
    /// Where it is mounted; `None` for one that only a descriptor or its connection holds.
    pub path: Option<PathBuf>,
    /// Keeps one without a mount.
    pub file: Option<File>,
    /// Its connection, which keeps it too.
    pub conversation: Option<Conversation>,
}

impl Member {
    /// Makes a namespace on the calling thread, which is left in it: mounted at `path`, or held by a descriptor; with a
    /// connection inside if `talks`.
    pub fn begin(index: usize, path: Option<PathBuf>, talks: bool) -> Self {
        let since_ns = monotonic_ns();
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
        let inside = "/proc/thread-self/ns/net";
        let inode = std::fs::metadata(inside).expect("a thread has a namespace").ino();
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket can be made");
        let cookie = netns_cookie(socket.as_fd()).expect("SO_NETNS_COOKIE can be read").unwrap_or(0);
        drop(socket);
        let id = Id { inode, cookie, since_ns };
        let file = path.is_none().then(|| File::open(inside).expect("a namespace opens"));
        if let Some(path) = &path {
            File::create(path).unwrap_or_else(|e| panic!("{} cannot be made: {e}", path.display()));
            mount(Some(inside), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .unwrap_or_else(|e| panic!("{} cannot be mounted: {e}", path.display()));
        }
        let conversation = talks.then(|| {
            bring_loopback_up();
            Conversation::begin(index)
        });
        Self { index, id, path, file, conversation }
    }

    /// Ends it: its connection is reset, its mount and its descriptor go.
    pub fn end(mut self) {
        self.conversation = None;
        self.file = None;
        if let Some(path) = &self.path {
            remove(path);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            remove(path);
        }
    }
}

/// Where harbours are: a tmpfs.
const PLACE: &str = "/run";

/// Where a fleet's namespaces are mounted: a tmpfs of its own, so that none outlives the test and no other program on the host
/// looks at it.
#[derive(Debug)]
pub struct Harbour {
    dir: TempDir,
}

impl Harbour {
    /// An empty one. Removes those whose test was killed before it could.
    pub fn new() -> Self {
        require_root();
        sweep(Path::new(PLACE));
        let prefix = format!("{PREFIX}-{}-fleet-", std::process::id());
        let dir =
            tempfile::Builder::new().prefix(&prefix).tempdir_in(PLACE).expect("its place can be written");
        Self { dir }
    }

    /// Its folder, for `--netns-dir`.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Makes one namespace on the calling thread, which is left in it: mounted here under `name`, or held by a descriptor;
    /// with a connection inside if `talks`.
    pub fn launch(&self, index: usize, name: Option<&str>, talks: bool) -> Member {
        Member::begin(index, name.map(|name| self.path().join(name)), talks)
    }

    /// As [`launch`](Self::launch), mounted under a name that need not be text.
    pub fn launch_as(&self, index: usize, name: &OsStr, talks: bool) -> Member {
        Member::begin(index, Some(self.path().join(name)), talks)
    }

    /// Makes namespaces `from..to` on a thread of its own, each mounted under its number.
    pub fn launch_many(&self, from: usize, to: usize, talks: bool) -> Vec<Member> {
        on_a_thread(|| (from..to).map(|index| self.launch(index, Some(&index.to_string()), talks)).collect())
    }
}

impl Default for Harbour {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs `work` on a thread that may be left in another namespace.
pub fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("fleet".to_owned()).spawn_scoped(scope, work);
        thread
            .expect("a thread can be started")
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Port of the listener and of the client in namespace `index`.
pub fn ports(index: usize) -> (u16, u16) {
    let pair = u16::try_from(index % usize::from(PORT_PAIRS)).expect("smaller than the modulus");
    (FIRST_PORT + 2 * pair, FIRST_PORT + 2 * pair + 1)
}

/// Who was in a fleet, living and dead, and whose each of its sockets is: neither cookie is ever used again.
#[derive(Debug, Default)]
pub struct Roll {
    members: HashMap<usize, Id>,
    sockets: HashMap<u64, usize>,
}

impl Roll {
    /// Remembers a namespace and its sockets.
    pub fn add(&mut self, member: &Member) {
        self.members.insert(member.index, member.id);
        let cookies = member.conversation.as_ref().map(Conversation::cookies);
        self.sockets.extend(cookies.into_iter().flatten().map(|cookie| (cookie, member.index)));
    }

    /// Takes in another roll.
    pub fn merge(&mut self, other: Self) {
        self.members.extend(other.members);
        self.sockets.extend(other.sockets);
    }

    /// All namespaces.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = &Id> {
        self.members.values()
    }

    /// Cookies of all sockets.
    pub fn sockets(&self) -> impl ExactSizeIterator<Item = u64> {
        self.sockets.keys().copied()
    }

    /// Checks of every row of one of the sockets that it says the socket's namespace, and of every row of one of the
    /// namespaces that it has the namespace's ports. Returns how many rows were of the sockets.
    pub fn check(&self, rows: &[Row]) -> usize {
        let by_cookie: HashMap<u64, usize> = self
            .members
            .iter()
            .filter(|(_, id)| id.cookie != 0)
            .map(|(index, id)| (id.cookie, *index))
            .collect();
        let mut checked = 0;
        for row in rows {
            if let Some(index) = self.sockets.get(&row.cookie()) {
                let id = self.members[index];
                let said = (row.record.netns_inode, row.record.netns_cookie);
                assert_eq!(
                    said,
                    (id.inode, id.cookie),
                    "a socket of {index} under another identity: {row:?}"
                );
                checked += 1;
            }
            if let Some(index) = by_cookie.get(&row.record.netns_cookie) {
                let (listens, connects) = ports(*index);
                let own = |port: &u16| *port == listens || *port == connects;
                // A listener has no remote port; and the kernel takes its local one from a server's socket that is closed
                // a moment before it takes its state.
                let ports = [row.local().port(), row.remote().port()];
                assert!(
                    ports.iter().any(own) && ports.iter().all(|port| *port == 0 || own(port)),
                    "a row of namespace {index}, whose ports are {listens} and {connects}: {row:?}"
                );
            }
        }
        checked
    }
}

/// Waits until the kernel says that every one of these is dead: its file handle is stale.
pub fn wait_until_dead<'a>(ids: impl IntoIterator<Item = &'a Id>, limit: Duration) {
    for id in ids {
        let inode = u32::try_from(id.inode).expect("inodes of namespaces have 32 bits");
        wait_for("the handle of an ended namespace to be stale", limit, || {
            match open_netns(id.cookie, inode) {
                Ok(_) => None,
                Err(error) => (error.raw_os_error() == Some(Errno::ESTALE as i32)).then_some(()),
            }
        });
    }
}

/// Whether this kernel opens namespaces by handle (6.18): before it, there is no such proof of death.
pub fn has_handles() -> bool {
    crate::host::kernel() >= (6, 18)
}

/// Removes the harbours in `place` whose test is no more, and whatever is mounted in them.
fn sweep(place: &Path) {
    for harbour in std::fs::read_dir(place).into_iter().flatten().flatten() {
        if !is_orphan(&harbour.file_name().to_string_lossy()) {
            continue;
        }
        for file in std::fs::read_dir(harbour.path()).into_iter().flatten().flatten() {
            remove(&file.path());
        }
        let _ = std::fs::remove_dir(harbour.path());
    }
}

fn remove(path: &Path) {
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let _ = std::fs::remove_file(path);
}

/// `ip link set lo up` without a process: RTM_NEWLINK for the first device, `IFF_UP` set and to be changed.
fn bring_loopback_up() {
    const UP: u32 = 1;
    let mut message = Vec::with_capacity(32);
    message.extend(32_u32.to_ne_bytes());
    message.extend(16_u16.to_ne_bytes());
    // NLM_F_REQUEST and NLM_F_ACK.
    message.extend(5_u16.to_ne_bytes());
    message.extend([0; 8]);
    // struct ifinfomsg: family, padding, type, index, flags, change.
    message.extend([0; 4]);
    message.extend(1_i32.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    let socket = Netlink::new(NETLINK_ROUTE).expect("a netlink socket can be made");
    socket.send(&message, 0).expect("rtnetlink takes a request");
    let mut answer = Vec::with_capacity(4096);
    socket.recv(&mut answer, 0).expect("rtnetlink answers");
    assert_eq!(answer.get(16..20), Some(&[0; 4][..]), "loopback cannot be brought up");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harbour_of_a_dead_test_is_removed_and_that_of_a_living_one_stays() {
        let place = tempfile::tempdir().unwrap();
        let of = |pid: u32| place.path().join(format!("{PREFIX}-{pid}-fleet-a"));
        // No process has the largest number.
        let (dead, own) = (of(u32::MAX), of(std::process::id()));
        for harbour in [&dead, &own] {
            std::fs::create_dir(harbour).unwrap();
            std::fs::write(harbour.join("0"), "").unwrap();
        }
        sweep(place.path());
        assert!(!dead.exists() && own.join("0").exists());
    }
}
