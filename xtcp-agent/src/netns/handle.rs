//! nsfs file handles: a way to a namespace by its cookie, and proof of its death.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use nix::sys::utsname::uname;

use super::NetnsId;
use crate::sys;

/// What this kernel's nsfs handles can do.
///
/// Since 6.19 the kernel also lists namespaces (`listns`) and counts active references apart from all
/// references: a handle then opens only what a process, a descriptor or a mount holds, so that `ESTALE` proves
/// nothing about one that a socket keeps alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handles {
    /// None (before 6.18, or not permitted).
    Unsupported,
    /// They open living namespaces, but do not prove death (6.19).
    Open,
    /// They open every living namespace, and prove death (6.18).
    Certain,
}

impl Handles {
    /// Tries on the caller's own namespace: its handle must carry its cookie, and must open.
    pub fn probe() -> Self {
        match Self::try_own() {
            Ok(true) if proves_death() => Self::Certain,
            Ok(true) => Self::Open,
            Ok(false) | Err(_) => Self::Unsupported,
        }
    }

    fn try_own() -> io::Result<bool> {
        let own = open("/proc/thread-self/ns/net", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let inode = fstat(&own)?.st_ino;
        let socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_SOCK_DIAG)?;
        let (Some(cookie), Some(id), Ok(inode)) =
            (sys::netns_cookie(socket.as_fd())?, sys::namespace_id(own.as_fd())?, u32::try_from(inode))
        else {
            return Ok(false);
        };
        Ok(cookie == id && sys::open_netns(cookie, inode).is_ok())
    }

    /// Opens a namespace. `None` where that is not possible at all: no support, or the cookie is not known.
    pub fn open(self, id: NetnsId) -> Option<io::Result<OwnedFd>> {
        (self != Self::Unsupported && id.cookie != 0).then(|| sys::open_netns(id.cookie, id.inode))
    }

    /// Whether a namespace lives. `None` when this kernel cannot tell. About 3 µs.
    pub fn alive(self, id: NetnsId) -> Option<bool> {
        match self.open(id)? {
            Ok(_) => Some(true),
            Err(error) if error.raw_os_error() == Some(Errno::ESTALE as i32) => {
                (self == Self::Certain).then_some(false)
            }
            Err(_) => None,
        }
    }
}

/// Whether `ESTALE` means dead: from 6.19 on it may also mean that only sockets are left.
fn proves_death() -> bool {
    let Ok(name) = uname() else { return false };
    let release = name.release().to_string_lossy();
    matches!(parse_release(&release), Some(version) if version < (6, 19))
}

/// Major and minor of a kernel release such as `6.18.4-cloud-amd64`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_read_up_to_its_minor_number() {
        assert_eq!(parse_release("6.18.44-cloud-amd64"), Some((6, 18)));
        assert_eq!(parse_release("7.2-rc1"), Some((7, 2)));
        assert_eq!(parse_release("5.10"), Some((5, 10)));
        assert_eq!(parse_release("linux"), None);
    }

    #[test]
    fn a_namespace_without_cookie_cannot_be_opened_nor_judged() {
        let id = NetnsId { inode: 1, cookie: 0 };
        assert!(Handles::Certain.open(id).is_none());
        assert_eq!(Handles::Certain.alive(id), None);
    }

    #[test]
    fn without_handles_nothing_is_said() {
        assert_eq!(Handles::Unsupported.alive(NetnsId { inode: 1, cookie: 1 }), None);
    }
}
