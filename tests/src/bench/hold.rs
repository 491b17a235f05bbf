//! Many connections held open, in processes of their own: the limit of open files is a process's.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::time::Duration;

use crate::container::service::Service;
use crate::host::allow_open_files;
use crate::netns::Netns;
use crate::process::Process;
use crate::traffic::{accept, connect, listen};

/// Connections of one process: 16 000 open files, below the hard limits that hosts have.
const PER_PROCESS: u32 = 8_000;
/// The first listener's port, below those that the kernel hands out.
const FIRST_PORT: u16 = 10_000;

/// What one process holds.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Options {
    /// Connections, both ends of each
    connections: u32,
    /// The port to which they go
    port: u16,
}

/// Makes connections over loopback, alternately IPv4 and IPv6, says so, and holds them until its standard input ends.
pub fn main(options: Options) -> ExitCode {
    allow_open_files(u64::from(2 * options.connections) + 64);
    let ips: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let listeners = ips.map(|ip| listen((ip, options.port).into()));
    let both = ips.iter().zip(&listeners).cycle();
    let held: Vec<_> = both
        .take(usize::try_from(options.connections).expect("fits"))
        .map(|(&ip, listener)| (connect((ip, options.port).into()), accept(listener)))
        .collect();
    println!("{}", held.len());
    let _ = std::io::stdin().read(&mut [0; 1]);
    ExitCode::SUCCESS
}

/// Holds `connections` in a namespace until the processes are dropped.
pub(super) fn hold(netns: &Netns, connections: u32) -> Vec<Process> {
    start(netns, connections, |argv| Process::start("holder", argv), |holder| holder)
}

/// The same, each process in the cgroup of a service of its own.
pub(super) fn hold_in_services(netns: &Netns, connections: u32) -> Vec<Service> {
    start(netns, connections, |argv| Service::start("bench", argv), |service| &service.process)
}

fn start<T>(
    netns: &Netns,
    connections: u32,
    start: impl Fn(&[&str]) -> T,
    process: impl Fn(&T) -> &Process,
) -> Vec<T> {
    let itself = std::env::current_exe().expect("this program has a file").to_string_lossy().into_owned();
    let enter = format!("--net={}", netns.path().display());
    let parts = (0..connections).step_by(PER_PROCESS as usize).zip(FIRST_PORT..);
    let holders: Vec<T> = parts
        .map(|(from, port)| {
            let (part, port) = ((connections - from).min(PER_PROCESS).to_string(), port.to_string());
            start(&["nsenter", &enter, "--", &itself, "hold", &part, &port])
        })
        .collect();
    for holder in holders.iter().map(process) {
        let said = holder.stdout.wait_for(Duration::from_secs(60), |_| true);
        assert!(said.is_some(), "connections were not made in a minute: {}", holder.stderr.text());
    }
    holders
}
