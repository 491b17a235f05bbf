//! Which sockets the operator wants: the filter's words and the lists of ports, as a program for the kernel.
//!
//! Never does: judge change events, which know too little of a socket.

use std::fmt;
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use xtcp_inet_diag::bytecode::Program;
use xtcp_inet_diag::filter::{Filter, Names};
use xtcp_inet_diag::state::States;

use crate::sys;

/// An interface or a cgroup that is not there: no socket is in it, and none ever will be under this number.
const NOWHERE: u32 = u32::MAX;

/// A filter in the words of `ss` that was understood; see [`xtcp_inet_diag::filter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketFilter(String);

impl FromStr for SocketFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let filter = Filter::parse(text).map_err(|e| e.to_string())?;
        if filter.states().is_some_and(States::is_empty) {
            return Err("its states exclude each other".to_owned());
        }
        // Interfaces and cgroups come and go; services must be known now.
        filter.compile(&Found { interface: &|_| Some(NOWHERE) }).map_err(|e| e.to_string())?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for SocketFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl SocketFilter {
    /// States that its first words select.
    pub fn states(&self) -> Option<States> {
        Filter::parse(&self.0).ok()?.states()
    }

    /// Its tests as a program; a name that is not there any more lets nothing pass where it stands.
    pub fn compile(&self, interface: &dyn Fn(&str) -> Option<u32>) -> Program {
        let names = Found { interface };
        match Filter::parse(&self.0).and_then(|filter| filter.compile(&names)) {
            Ok(program) => program,
            // It was compiled once when it was parsed: only a service can have gone since.
            Err(error) => {
                tracing::warn!(%error, "the filter cannot be applied: everything passes");
                Program::EVERYTHING
            }
        }
    }

    /// Whether it names an interface, which only a network namespace can look up.
    pub(crate) fn names_interfaces(&self) -> bool {
        struct All;
        impl Names for All {
            fn interface(&self, _: &str) -> Option<u32> {
                None
            }
            fn cgroup(&self, _: &str) -> Option<u64> {
                Some(0)
            }
            fn service(&self, _: &str) -> Option<u16> {
                Some(0)
            }
        }
        Filter::parse(&self.0).is_ok_and(|filter| filter.compile(&All).is_err())
    }

    /// Whether what it compiles to depends on what interfaces and cgroups there are.
    pub(crate) fn depends_on_names(&self) -> bool {
        Filter::parse(&self.0).is_ok_and(|filter| filter.depends_on_names())
    }
}

/// Names as this host knows them.
struct Found<'a> {
    interface: &'a dyn Fn(&str) -> Option<u32>,
}

impl Names for Found<'_> {
    fn interface(&self, name: &str) -> Option<u32> {
        Some((self.interface)(name).unwrap_or(NOWHERE))
    }

    fn cgroup(&self, path: &str) -> Option<u64> {
        Some(cgroup(path).unwrap_or(u64::from(NOWHERE)))
    }

    fn service(&self, name: &str) -> Option<u16> {
        service(&fs::read_to_string("/etc/services").unwrap_or_default(), name)
    }
}

/// The id of a cgroup: its path in the file system, or from the root of the cgroup v2 hierarchy.
fn cgroup(path: &str) -> Option<u64> {
    let id = |path: &Path| fs::metadata(path).ok().filter(fs::Metadata::is_dir).map(|folder| folder.ino());
    let mount = cgroup_mount(&fs::read_to_string("/proc/self/mounts").unwrap_or_default())?;
    if Path::new(path).starts_with(&mount) {
        return id(Path::new(path));
    }
    id(&mount.join(path.trim_start_matches('/')))
}

/// Where cgroup v2 is mounted, by the lines of `/proc/self/mounts`.
pub(crate) fn cgroup_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (folder, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| folder.replace("\\040", " ").into())
    })
}

/// A service's TCP port, by its name or another of its names.
fn service(services: &str, name: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (first, port) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        (first == name || words.any(|alias| alias == name)).then(|| port.parse().ok())?
    })
}

/// What the kernel is to answer with, and what passes of what it was not asked to judge.
#[derive(Clone, Debug, Default)]
pub struct SocketSelection {
    filter: Option<SocketFilter>,
    ports: Option<Box<Program>>,
    fixed: Option<Box<Program>>,
}

impl SocketSelection {
    /// Of the filter and both lists of ports. Lists that are too long for a program are left to who judges rows.
    pub fn new(filter: Option<SocketFilter>, include: &[u16], exclude: &[u16]) -> Self {
        let sorted = |ports: &[u16]| {
            let mut ports = ports.to_vec();
            ports.sort_unstable();
            ports.dedup();
            ports
        };
        let include = Program::any_port_of(&sorted(include));
        let exclude = Program::no_port_of(&sorted(exclude));
        let ports = include.zip(exclude).and_then(|(include, exclude)| include.and(&exclude)).map(Box::new);
        let mut selection = Self { filter, ports, fixed: None };
        if !selection.filter.as_ref().is_some_and(SocketFilter::depends_on_names) {
            selection.fixed = Some(Box::new(selection.compile(&|_| None)));
        }
        selection
    }

    /// The program for the network namespace of a socket.
    pub fn program(&self, socket: BorrowedFd<'_>) -> Program {
        match &self.fixed {
            Some(program) => **program,
            None => self.compile(&|name| sys::interface_index(socket, name).ok()),
        }
    }

    fn compile(&self, interface: &dyn Fn(&str) -> Option<u32>) -> Program {
        let filter = self.filter.as_ref().map_or(Program::EVERYTHING, |filter| filter.compile(interface));
        // What does not fit beside the filter is judged row by row, as it always is.
        self.ports.as_ref().and_then(|ports| filter.and(ports)).unwrap_or(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_known_by_each_of_its_names() {
        let services = "https\t443/tcp\t\t# http over TLS\nhttps 443/udp\nwww 80/tcp http\ntftp 69/udp\n";
        assert_eq!(service(services, "https"), Some(443));
        assert_eq!(service(services, "http"), Some(80));
        assert_eq!(service(services, "tftp"), None);
        assert_eq!(service(services, "#"), None);
    }

    #[test]
    fn the_mount_of_cgroup_v2_is_found_beside_v1() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup_mount(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup_mount("tmpfs / tmpfs rw 0 0"), None);
    }

    #[test]
    fn a_filter_is_checked_when_it_is_read() {
        let error = |text: &str| text.parse::<SocketFilter>().unwrap_err();
        assert!(error("dport = nothing-like-it").contains("no service"));
        assert!(error("dport = :443 nor").contains("byte 13"));
        assert!(error("state listening exclude listening").contains("exclude each other"));
        let filter: SocketFilter = "state established dev = not-there-yet".parse().unwrap();
        assert_eq!(filter.states(), Some(States::parse("established").unwrap()));
    }

    #[test]
    fn ports_and_filter_become_one_program() {
        let filter = |text: &str| Some(text.parse().unwrap());
        let none = SocketSelection::new(None, &[], &[]);
        assert!(none.fixed.is_some_and(|program| program.is_empty()));
        let both = SocketSelection::new(filter("src 10.0.0.0/8"), &[443, 80], &[22]);
        let alone = SocketSelection::new(filter("src 10.0.0.0/8"), &[], &[]);
        let (both, alone) = (both.fixed.unwrap(), alone.fixed.unwrap());
        assert!(both.as_bytes().len() > alone.as_bytes().len() && !alone.is_empty());
        let ports: Vec<u16> = (1..=2_000).map(|port| port * 2).collect();
        let long = SocketSelection::new(filter("src 10.0.0.0/8"), &ports, &[]);
        assert_eq!(*long.fixed.unwrap(), *alone, "a list that does not fit is judged row by row");
        assert!(SocketSelection::new(filter("dev = eth0"), &[], &[]).fixed.is_none());
    }
}
