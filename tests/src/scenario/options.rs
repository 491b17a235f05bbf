//! Socket options that a row shows.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{Gid, Uid, fchown};
use socket2::TcpKeepalive;

use super::netns::sysctl;
use super::sockets::{
    FastOpen, Md5Sig, connect, join, listen, listen_on, pair, read, start_connect, tcp, wait_acknowledged,
    write,
};
use super::stage::Stage;
use super::states::{v4, v6};
use super::{Scenario, absent};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "marking",
        about: "SO_MARK, SO_PRIORITY, IP_TOS, IPV6_TCLASS, and owners other than root",
        run: marking,
    },
    Scenario {
        name: "socket-options",
        about: "each bit of INET_DIAG_SOCKOPT that TCP can have",
        run: socket_options,
    },
    Scenario {
        name: "keepalive",
        about: "a connection with keepalive, one with a limit of its pacing rate, one with a small segment size",
        run: keepalive,
    },
    Scenario { name: "cgroup", about: "sockets of a process in a cgroup (v2) of its own", run: cgroup },
    Scenario {
        name: "fast-open",
        about: "data in a SYN, and a fast-open client whose connect is put off until it writes",
        run: fast_open,
    },
    Scenario {
        name: "md5",
        about: "TCP MD5 keys (the keys are `test key`) of a listener and a connection",
        run: md5,
    },
];

fn marking(stage: &mut Stage) -> Result<()> {
    for address in [v4(24861), v6(24861)] {
        let listener = listen(address, 16)?;
        let client = tcp(address)?;
        client.set_mark(0x1234)?;
        if address.is_ipv4() {
            client.set_tos_v4(0x10)?;
        } else {
            client.set_tclass_v6(0x28)?;
            setsockopt(&client, sockopt::Ipv4Tos, &0x10)?;
        }
        let server = join(&client, &listener)?;
        fchown(client.as_fd(), Some(Uid::from_raw(1234)), Some(Gid::from_raw(1234)))?;
        server.set_priority(5)?;
        server.set_mark(0xffff_fffe)?;
        write(&client, b'm', 1000, 1000)?;
        read(&server, 1000)?;
        stage.hold("listener", listener);
        stage.hold("marked client of uid 1234", client);
        stage.hold("server with a priority", server);
    }
    Ok(())
}

fn socket_options(stage: &mut Stage) -> Result<()> {
    type Set = fn(&socket2::Socket) -> Result<()>;
    let options: [(&str, Set); 7] = [
        ("none", |_| Ok(())),
        ("recverr", |socket| Ok(setsockopt(socket, sockopt::Ipv4RecvErr, &true)?)),
        ("freebind", |socket| Ok(socket.set_freebind_v4(true)?)),
        ("transparent", |socket| Ok(socket.set_ip_transparent_v4(true)?)),
        ("bind_address_no_port", |socket| Ok(setsockopt(socket, sockopt::IpBindAddressNoPort, &true)?)),
        ("multicast_loop off", |socket| Ok(setsockopt(socket, sockopt::IpMulticastLoop, &false)?)),
        ("multicast_all off", |socket| Ok(socket.set_multicast_all_v4(false)?)),
    ];
    let listener = listen(v4(24862), 16)?;
    for (name, set) in options {
        let client = tcp(v4(24862))?;
        set(&client).with_context(|| format!("set {name}"))?;
        stage.hold("server", join(&client, &listener)?);
        stage.hold(name, client);
    }
    stage.hold("listener", listener);
    Ok(())
}

fn keepalive(stage: &mut Stage) -> Result<()> {
    let listener = listen(v4(24863), 16)?;
    let (client, server) = pair(&listener)?;
    client.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(900)))?;
    stage.hold("client with keepalive", client);
    stage.hold("server", server);
    let (client, server) = pair(&listener)?;
    setsockopt(&client, MaxPacingRate, &1_000_000)?;
    client.set_tcp_nodelay(true)?;
    write(&client, b'p', 5000, 1000)?;
    read(&server, 5000)?;
    wait_acknowledged(&client)?;
    stage.hold("paced client", client);
    stage.hold("server", server);
    let client = tcp(v4(24863))?;
    client.set_tcp_mss(600)?;
    let server = join(&client, &listener)?;
    write(&server, b'q', 5000, 5000)?;
    read(&client, 5000)?;
    stage.hold("client of small segments", client);
    stage.hold("server", server);
    stage.hold("listener", listener);
    Ok(())
}

use nix::{setsockopt_impl, sockopt_impl};
sockopt_impl!(
    /// Limit of the pacing rate, bytes/s.
    MaxPacingRate, SetOnly, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, u32
);

/// This process in a cgroup of its own; back where it was, and the cgroup removed, when dropped.
struct OwnCgroup {
    dir: PathBuf,
    home: PathBuf,
    mounted: Option<tempfile::TempDir>,
}

impl OwnCgroup {
    fn enter() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let at = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let at = at
            .filter(|words| words.get(2) == Some(&"cgroup2"))
            .find_map(|words| words.get(1).map(PathBuf::from));
        let mut mounted = None;
        let root = if let Some(root) = at {
            root
        } else {
            let dir = tempfile::tempdir()?;
            mount(Some("cgroup2"), dir.path(), Some("cgroup2"), MsFlags::empty(), None::<&Path>)
                .map_err(|error| absent(format!("cgroup2 cannot be mounted: {error}")))?;
            let root = dir.path().to_owned();
            mounted = Some(dir);
            root
        };
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let home = root.join(path);
        let dir = home.join(format!("xtcp-scenarios-{}", std::process::id()));
        let this = Self { dir, home, mounted };
        fs::create_dir(&this.dir).with_context(|| format!("make cgroup {}", this.dir.display()))?;
        Self::move_to(&this.dir)?;
        Ok(this)
    }

    fn move_to(dir: &Path) -> Result<()> {
        let file = dir.join("cgroup.procs");
        fs::write(&file, std::process::id().to_string()).with_context(|| format!("write {}", file.display()))
    }

    /// The kernel's id of it: the inode of its folder.
    fn id(&self) -> Result<u64> {
        Ok(fs::metadata(&self.dir)?.ino())
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        let _ = Self::move_to(&self.home);
        let _ = fs::remove_dir(&self.dir);
        if let Some(dir) = &self.mounted {
            let _ = umount2(dir.path(), MntFlags::MNT_DETACH);
        }
    }
}

fn cgroup(stage: &mut Stage) -> Result<()> {
    let cgroup = OwnCgroup::enter()?;
    let listener = listen(v4(24864), 16)?;
    let (client, server) = pair(&listener)?;
    stage.fact("cgroup_id", cgroup.id()?);
    stage.fact("cgroup_path", cgroup.dir.file_name().map(|name| name.to_string_lossy().into_owned()));
    stage.hold("listener", listener);
    stage.hold("client", client);
    stage.hold("server", server);
    stage.guard(cgroup);
    Ok(())
}

fn fast_open(stage: &mut Stage) -> Result<()> {
    // Client, server, neither needs a cookie.
    sysctl("ipv4/tcp_fastopen", "1543")?;
    let listener = tcp(v4(24865))?;
    setsockopt(&listener, FastOpen, &16)?;
    listen_on(&listener, v4(24865), 16)?;

    let client = tcp(v4(24865))?;
    setsockopt(&client, sockopt::TcpFastOpenConnect, &true)?;
    connect(&client, v4(24865))?;
    write(&client, b'o', 500, 500)?;
    let server = listener.accept()?.0;
    read(&server, 500)?;
    wait_acknowledged(&client)?;
    stage.hold("client that sent data in its SYN", client);
    stage.hold("server of it", server);

    let client = tcp(v4(24865))?;
    setsockopt(&client, sockopt::TcpFastOpenConnect, &true)?;
    start_connect(&client, v4(24865))?;
    stage.hold("client whose connect is put off", client);
    stage.hold("fast-open listener", listener);
    Ok(())
}

/// `struct tcp_md5sig` for a peer.
fn md5_key(peer: std::net::Ipv4Addr) -> [u8; 216] {
    const KEY: &[u8] = b"test key";
    let mut bytes = [0; 216];
    // sockaddr_in: family, port, address.
    bytes[..2].copy_from_slice(&2_u16.to_ne_bytes());
    bytes[4..8].copy_from_slice(&peer.octets());
    // After 128 bytes of address: flags, prefix length, key length, interface, key.
    bytes[130..132].copy_from_slice(&8_u16.to_ne_bytes());
    bytes[136..136 + KEY.len()].copy_from_slice(KEY);
    bytes
}

fn md5(stage: &mut Stage) -> Result<()> {
    let here = std::net::Ipv4Addr::LOCALHOST;
    let listener = tcp(v4(24866))?;
    setsockopt(&listener, Md5Sig, &md5_key(here))
        .map_err(|error| absent(format!("the kernel has no TCP MD5 signatures: TCP_MD5SIG: {error}")))?;
    listen_on(&listener, v4(24866), 16)?;
    let client = tcp(v4(24866))?;
    setsockopt(&client, Md5Sig, &md5_key(here))?;
    let server = join(&client, &listener)?;
    write(&client, b'5', 1000, 1000)?;
    read(&server, 1000)?;
    stage.note("the MD5 keys in these rows are test keys");
    stage.hold("listener with a key", listener);
    stage.hold("client", client);
    stage.hold("server", server);
    Ok(())
}
