//! `INET_DIAG_CGROUP_ID`. Since Linux 5.8, where the kernel has `CONFIG_SOCK_CGROUP_DATA`.

/// Id (inode) of the cgroup, in the v2 hierarchy, in which the socket was made; 1 is the root, also where
/// everything is mounted as v1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CgroupId(pub u64);

super::decode_integer!(CgroupId(u64));
