//! What the programs counted, and the filters that may change while they run. Owns the attached programs.

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use xtcp_common::counter;
use xtcp_common::event::kind;
use xtcp_common::setting;

use super::EbpfError;

/// Number of event kinds, as a length.
const KINDS: usize = kind::COUNT as usize;

/// Counters of the kernel side since load, summed over all processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Samples handed to the ring buffer, by [`kind`].
    pub submitted: [u64; KINDS],
    /// Samples lost because the ring buffer was full, by [`kind`]. Index 0: runs of a program that the kernel skipped
    /// because the program was interrupted on that processor (`recursion_misses`, 5.12+); what they would have
    /// reported, or filtered, is not known.
    pub lost: [u64; KINDS],
    /// Transitions left out by the state mask.
    pub filtered_state: u64,
    /// Transitions left out by the namespace filter.
    pub filtered_netns: u64,
    /// Transitions left out by the port filter.
    pub filtered_port: u64,
    /// Transitions of sockets that are neither TCP nor MPTCP.
    pub filtered_protocol: u64,
    /// Closing events without last numbers, because the socket is no full TCP socket.
    pub no_tcp_sock: u64,
}

impl Counters {
    /// From the map's values, by the indices of [`counter`].
    fn from_values(values: &[u64; counter::COUNT as usize]) -> Self {
        let at = |index: u32| values.get(index as usize).copied().unwrap_or(0);
        let mut counters = Self {
            submitted: [0; KINDS],
            lost: [0; KINDS],
            filtered_state: at(counter::FILTERED_STATE),
            filtered_netns: at(counter::FILTERED_NETNS),
            filtered_port: at(counter::FILTERED_PORT),
            filtered_protocol: at(counter::FILTERED_PROTOCOL),
            no_tcp_sock: at(counter::NO_TCP_SOCK),
        };
        for (kind, (submitted, lost)) in (0u32..).zip(counters.submitted.iter_mut().zip(&mut counters.lost)) {
            *submitted = at(counter::SUBMITTED + kind);
            *lost = at(counter::LOST + kind);
        }
        counters
    }
}

/// The attached programs. They stay attached as long as a clone of this lives, or until [`Control::detach`].
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    /// Dropping a link detaches its program.
    links: Mutex<Vec<Box<dyn Any + Send>>>,
    counters: PerCpuArray<MapData, [u64; counter::COUNT as usize]>,
    netns_drop: Mutex<HashMap<MapData, u32, u8>>,
    /// `/proc/self/fdinfo` of each attached program. Sound as long as the program's descriptor is open, that is as
    /// long as `_programs` lives: the kernel looks the number up at every read.
    fdinfo: Vec<File>,
    /// Declared last, closed last.
    _programs: Mutex<Ebpf>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    /// Takes the maps that it needs out of `ebpf`, whose programs are attached by `links`.
    pub(super) fn new(
        mut ebpf: Ebpf,
        links: Vec<Box<dyn Any + Send>>,
        fdinfo: Vec<File>,
    ) -> Result<Self, EbpfError> {
        let counters = super::take_map(&mut ebpf, setting::COUNTERS)?;
        let netns_drop = super::take_map(&mut ebpf, setting::NETNS_DROP)?;
        Ok(Self(Arc::new(Inner {
            links: Mutex::new(links),
            counters,
            netns_drop: Mutex::new(netns_drop),
            fdinfo,
            _programs: Mutex::new(ebpf),
        })))
    }

    /// The kernel side's counters. One lookup and one read for each attached program: some microseconds.
    ///
    /// # Errors
    ///
    /// When the lookup fails, which the kernel gives no reason to expect.
    pub fn counters(&self) -> Result<Counters, EbpfError> {
        let per_cpu = self
            .0
            .counters
            .get(&0, 0)
            .map_err(|source| EbpfError::Map { name: setting::COUNTERS, source })?;
        let mut sum = [0u64; counter::COUNT as usize];
        for values in per_cpu.iter() {
            for (total, value) in sum.iter_mut().zip(values) {
                *total += value;
            }
        }
        let mut counters = Counters::from_values(&sum);
        let skipped = self.0.fdinfo.iter().map(recursion_misses).sum();
        if let Some(unknown) = counters.lost.first_mut() {
            *unknown = skipped;
        }
        Ok(counters)
    }

    /// Leaves the sockets of a namespace out (`true`) or lets them pass again. Without effect unless
    /// [`EbpfConfig::netns_filter`](super::EbpfConfig::netns_filter) was set.
    ///
    /// # Errors
    ///
    /// When the map is full: [`setting::NETNS_DROP_ENTRIES`].
    pub fn set_netns_drop(&self, inode: u32, drop: bool) -> Result<(), EbpfError> {
        let mut map = self.0.netns_drop.lock().unwrap_or_else(PoisonError::into_inner);
        let done = if drop { map.insert(inode, 1, 0) } else { map.remove(&inode) };
        match done {
            // Not in the map, which is what was asked for.
            Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error))
                if !drop && error.io_error.raw_os_error() == Some(libc::ENOENT) =>
            {
                Ok(())
            }
            other => other.map_err(|source| EbpfError::Map { name: setting::NETNS_DROP, source }),
        }
    }

    /// Detaches every program, for all clones. What the ring buffer holds can still be drained, and the counters no
    /// longer change.
    pub fn detach(&self) {
        self.0.links.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// `recursion_misses` of one program (5.12+, `bpf_prog_show_fdinfo`); 0 where the kernel does not tell.
fn recursion_misses(fdinfo: &File) -> u64 {
    let mut buffer = [0; 1024];
    let Ok(length) = fdinfo.read_at(&mut buffer, 0) else { return 0 };
    let text = buffer.get(..length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("");
    let line = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_come_from_their_own_index() {
        let mut values = [0; counter::COUNT as usize];
        for (index, value) in (1000u64..).zip(values.iter_mut()) {
            *value = index;
        }
        let counters = Counters::from_values(&values);
        assert_eq!(counters.submitted[kind::TCP_CLOSE as usize], 1005);
        assert_eq!(counters.lost[kind::NETNS_CREATED as usize], 1008);
        assert_eq!(counters.filtered_state, 1014);
        assert_eq!(counters.no_tcp_sock, 1018);
    }
}
