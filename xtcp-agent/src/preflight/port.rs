//! Whether a port that the agent wants is free, and who has it where it is not.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use serde::Serialize;

/// A port that the agent wants to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Port {
    /// Nobody listens.
    Free {
        /// Where the agent would.
        address: SocketAddr,
    },
    /// Somebody listens.
    Taken {
        /// Where the agent would.
        address: SocketAddr,
        /// Process id of one that does, if it could be found.
        pid: Option<u32>,
        /// Its name.
        command: Option<String>,
    },
    /// It cannot be listened on for another reason.
    Refused {
        /// Where the agent would.
        address: SocketAddr,
        /// Why not.
        why: String,
    },
}

/// Listens for a moment.
pub(super) fn probe(address: SocketAddr) -> Port {
    match TcpListener::bind(address) {
        Ok(_) => Port::Free { address },
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            let holder = listener_inodes(address.port()).and_then(|inodes| owner(&inodes));
            let (pid, command) = holder.unzip();
            Port::Taken { address, pid, command: command.flatten() }
        }
        Err(e) => Port::Refused { address, why: e.to_string() },
    }
}

/// Socket inodes of the listeners on a port in this network namespace.
fn listener_inodes(port: u16) -> Option<Vec<String>> {
    let mut inodes = Vec::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let Ok(text) = fs::read_to_string(table) else { continue };
        inodes.extend(text.lines().skip(1).filter_map(|line| listener(line, port)));
    }
    (!inodes.is_empty()).then_some(inodes)
}

/// The inode of a line of `/proc/net/tcp`, if it is a listener (state 0A) on the port.
fn listener(line: &str, port: u16) -> Option<String> {
    let mut words = line.split_ascii_whitespace();
    let (_, hex_port) = words.nth(1)?.rsplit_once(':')?;
    let state = words.nth(1)?;
    let inode = words.nth(5)?;
    (state == "0A" && u16::from_str_radix(hex_port, 16) == Ok(port) && inode != "0").then(|| inode.to_owned())
}

/// The first process that has one of these sockets open.
fn owner(inodes: &[String]) -> Option<(u32, Option<String>)> {
    let targets: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let has = files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|link| link.to_str().is_some_and(|link| targets.iter().any(|target| target == link)));
        if has {
            let command = fs::read_to_string(process.path().join("comm")).ok();
            return Some((pid, command.map(|name| name.trim().to_owned())));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_with_its_holder() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap();
        match probe(address) {
            Port::Taken { pid, command, .. } => {
                assert_eq!(pid, Some(std::process::id()));
                assert!(command.is_some());
            }
            other => panic!("{other:?}"),
        }
        drop(holder);
        assert_eq!(probe(address), Port::Free { address });
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        assert!(matches!(probe("192.0.2.1:0".parse().unwrap()), Port::Refused { .. }));
    }

    #[test]
    fn only_listeners_on_the_port_count() {
        let line = |state| {
            format!(
                "   0: 0100007F:2710 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0"
            )
        };
        assert_eq!(listener(&line("0A"), 10_000).as_deref(), Some("4711"));
        assert_eq!(listener(&line("01"), 10_000), None);
        assert_eq!(listener(&line("0A"), 10_001), None);
    }
}
