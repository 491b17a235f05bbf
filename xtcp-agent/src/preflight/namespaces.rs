//! Which namespaces this process is in, and what it sees of the others.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::PathBuf;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::sys::stat::stat;

use super::facts::{Is, Namespaces};
use super::host::same_inode;
use crate::netns::enter::Visitor;
use crate::netns::handle::Handles;
use crate::netns::{Door, Target};
use crate::sys;

/// `PROC_PID_INIT_INO` in `linux/proc_ns.h`: inode of the initial pid namespace.
const PID_INITIAL: u64 = 0xEFFF_FFFC;
/// `NET_NS_INIT_INO` in `linux/nsfs.h` (6.18): inode of the initial network namespace. Before it was whatever came.
const NET_INITIAL: u64 = 0xEFFF_FFF9;

pub(super) fn gather(folders: &[PathBuf]) -> Namespaces {
    let pid_namespace_is_initial = same_inode("/proc/self/ns/pid", PID_INITIAL, "pid");
    let (processes, processes_closed) = processes();
    Namespaces {
        entry: entry(),
        cookie: cookie(),
        handles: handles(),
        netns_is_initial: netns_is_initial(pid_namespace_is_initial.yes()),
        pid_namespace_is_initial,
        proc_is_complete: match fs::read_to_string("/proc/self/mountinfo") {
            Ok(mounts) => proc_is_complete(&mounts),
            Err(e) => Is::Unknown(format!("/proc/self/mountinfo: {e}")),
        },
        processes,
        processes_closed,
        folders: folders.iter().map(|folder| (folder.clone(), folder.is_dir())).collect(),
    }
}

/// Enters the namespace that this thread is in.
fn entry() -> Is {
    let entered = Visitor::new(Handles::Unsupported).map_err(|e| e.to_string()).and_then(|mut visitor| {
        let door = Door::Mount(PathBuf::from("/proc/thread-self/ns/net"));
        let target = Target { id: visitor.home(), doors: vec![door] };
        visitor.open_diag(&target).map_err(|e| e.to_string())
    });
    entered.map_or_else(Is::No, |_| Is::Yes)
}

/// Whether a socket tells the cookie of its namespace.
fn cookie() -> Is {
    let asked = Socket::new(NETLINK_SOCK_DIAG).and_then(|socket| sys::netns_cookie(socket.as_fd()));
    match asked {
        Ok(Some(_)) => Is::Yes,
        Ok(None) => Is::No("this kernel has no SO_NETNS_COOKIE (5.14)".to_owned()),
        Err(e) => Is::No(format!("SO_NETNS_COOKIE: {e}")),
    }
}

/// Whether a namespace can be opened by its id.
fn handles() -> Is {
    match Handles::probe() {
        Handles::Certain | Handles::Open => Is::Yes,
        Handles::Unsupported => {
            Is::No("this kernel has no nsfs handles (6.18), or they are not permitted".to_owned())
        }
    }
}

fn netns_is_initial(pid_namespace_is_initial: bool) -> Is {
    let own = match stat("/proc/self/ns/net") {
        Ok(own) => own.st_ino,
        Err(e) => return Is::Unknown(format!("/proc/self/ns/net: {e}")),
    };
    if own == NET_INITIAL {
        return Is::Yes;
    }
    // Where the inode is not fixed, the host's first process is in it, as far as one can tell.
    match stat("/proc/1/ns/net") {
        Ok(first) if pid_namespace_is_initial && first.st_ino == own => Is::Yes,
        Ok(first) if pid_namespace_is_initial => {
            Is::No(format!("it is net:[{own}], that of process 1 is net:[{}]", first.st_ino))
        }
        Ok(_) => Is::Unknown("process 1 is not the host's here".to_owned()),
        Err(e) => Is::Unknown(format!("/proc/1/ns/net: {e}")),
    }
}

/// Whether the topmost mount of `/proc` shows every process: no `hidepid=`, no `subset=pid`.
fn proc_is_complete(mounts: &str) -> Is {
    let of_proc = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    let Some((_, options)) = of_proc.and_then(|line| line.rsplit_once(' ')) else {
        return Is::Unknown("/proc is no mount of its own".to_owned());
    };
    let hides = |option: &&str| {
        let hidepid = option.strip_prefix("hidepid=");
        hidepid.is_some_and(|level| !matches!(level, "0" | "off")) || option.starts_with("subset=")
    };
    match options.split(',').find(hides) {
        Some(option) => Is::No(format!("/proc is mounted with {option}")),
        None => Is::Yes,
    }
}

/// How many processes show their network namespace, and how many do not.
fn processes() -> (u32, u32) {
    let (mut open, mut closed) = (0, 0);
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        match fs::read_link(entry.path().join("ns/net")) {
            // As some kernels (5.10.262) refuse it.
            Ok(link) if link.as_os_str().is_empty() => closed += 1,
            Ok(_) => open += 1,
            Err(e) if e.kind() == ErrorKind::PermissionDenied => closed += 1,
            // It ended meanwhile, or is a zombie.
            Err(_) => {}
        }
    }
    (open, closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_options_tell_whether_proc_hides_processes() {
        let line = |options| {
            format!(
                "22 27 0:21 / /proc rw,nosuid - proc proc {options}\n23 27 0:22 / /sys rw - sysfs sysfs rw\n"
            )
        };
        assert_eq!(proc_is_complete(&line("rw")), Is::Yes);
        assert_eq!(proc_is_complete(&line("rw,hidepid=0")), Is::Yes);
        for hiding in ["rw,hidepid=2", "rw,gid=4,hidepid=invisible", "rw,subset=pid"] {
            assert!(matches!(proc_is_complete(&line(hiding)), Is::No(_)), "{hiding}");
        }
        assert!(matches!(proc_is_complete(""), Is::Unknown(_)));
    }

    #[test]
    fn the_last_mount_over_proc_counts() {
        let both = "1 1 0:1 / /proc rw - proc proc rw\n2 1 0:2 / /proc rw - proc proc rw,hidepid=2\n";
        assert!(matches!(proc_is_complete(both), Is::No(_)));
    }

    #[test]
    fn this_process_at_least_shows_its_namespace() {
        assert!(processes().0 >= 1);
    }
}
