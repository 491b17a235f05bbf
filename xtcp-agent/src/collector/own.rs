//! Which sockets are this process's own, by the kernel's list of its descriptors.

use foldhash::HashSet;
use std::fs;

/// Inodes of the sockets that this process holds, as `inet_diag` tells them. One that opens a moment later is missed.
pub(super) fn socket_inodes() -> HashSet<u32> {
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else {
        return HashSet::default();
    };
    descriptors
        .flatten()
        .filter_map(|descriptor| {
            let file = fs::read_link(descriptor.path()).ok()?;
            file.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_socket_is_own_while_it_is_open() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let inode = nix::sys::stat::fstat(listener.as_fd()).expect("an open descriptor").st_ino;
        let inode = u32::try_from(inode).expect("inodes of sockets count up from boot");
        assert!(socket_inodes().contains(&inode));
        drop(listener);
        assert!(!socket_inodes().contains(&inode));
    }
}
