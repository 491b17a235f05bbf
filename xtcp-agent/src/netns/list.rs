//! The kernel's own list of network namespaces (`listns`, 6.19).
//!
//! It shows those that a process, a descriptor or a mount holds, by id alone; the inode is learned by opening each once.

use std::collections::HashMap;
use std::io;

use nix::sys::stat::fstat;

use super::NetnsId;
use super::handle::Handles;
use crate::sys;

/// Ids asked for in one call.
const IDS_PER_CALL: usize = 512;

/// Reads the list, where there is one.
#[derive(Debug)]
pub struct Listing {
    /// What the kernel listed last: an id is never another namespace's, so its inode is asked for once.
    known: HashMap<u64, u32>,
    offered: bool,
}

impl Listing {
    /// Finds out whether this kernel lists namespaces and opens them by id.
    pub fn probe(handles: Handles) -> Self {
        let offered = handles != Handles::Unsupported && sys::list_netns(0, &mut [0]).is_ok();
        Self { known: HashMap::new(), offered }
    }

    /// None on any kernel.
    pub fn none() -> Self {
        Self { known: HashMap::new(), offered: false }
    }

    /// Whether there is a list.
    pub fn is_offered(&self) -> bool {
        self.offered
    }

    /// The namespaces in use, each with its cookie; empty where there is no list. 5 µs for each that was not listed before.
    /// One that ends meanwhile is left out.
    pub fn read(&mut self) -> io::Result<Vec<NetnsId>> {
        let mut listed = HashMap::new();
        let mut after = 0;
        if !self.offered {
            return Ok(Vec::new());
        }
        loop {
            let mut ids = [0; IDS_PER_CALL];
            let count = sys::list_netns(after, &mut ids)?;
            for id in ids.iter().copied().take(count) {
                after = id;
                let known = self.known.get(&id).copied();
                if let Some(inode) = known.map_or_else(|| inode_of(id), |inode| Ok(Some(inode)))? {
                    listed.insert(id, inode);
                }
            }
            if count < ids.len() {
                break;
            }
        }
        self.known = listed;
        Ok(self.known.iter().map(|(cookie, inode)| NetnsId { inode: *inode, cookie: *cookie }).collect())
    }
}

/// Inode of the namespace with this id; `None` when it has ended or may not be opened.
fn inode_of(id: u64) -> io::Result<Option<u32>> {
    match sys::open_netns(id, 0) {
        Ok(namespace) => Ok(u32::try_from(fstat(&namespace)?.st_ino).ok()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ESTALE | libc::EPERM | libc::EACCES) => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_list_nothing_is_listed() {
        let mut listing = Listing::probe(Handles::Unsupported);
        assert!(!listing.is_offered());
        assert_eq!(listing.read().unwrap(), []);
    }

    #[test]
    fn a_kernel_that_lists_namespaces_lists_our_own() {
        let mut listing = Listing::probe(Handles::probe());
        let own = crate::netns::enter::current().unwrap();
        let listed = listing.read().unwrap();
        assert_eq!(listed.contains(&own), listing.is_offered(), "{listed:?}");
    }
}
