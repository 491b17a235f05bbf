//! Who this host and this process are.

use std::hash::{BuildHasher, RandomState};
use std::io;

use crate::config::Identity;
use crate::record::builder::HostFields;

/// The fields that every row and event carries. The instance id is random; cookies and sequence numbers start anew with
/// each boot and each instance.
pub(crate) fn host(identity: &Identity) -> io::Result<HostFields> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    Ok(HostFields {
        hostname: identity.hostname.clone(),
        location: identity.location.clone(),
        label: identity.label.clone(),
        tag: identity.tag.clone(),
        boot_id,
        // The standard library seeds each RandomState with the operating system's random numbers.
        agent_instance: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
    })
}

/// A number that differs between agents, so that their polls do not fall together.
pub(super) fn seed(host: &HostFields) -> u64 {
    u64::from_str_radix(&host.agent_instance, 16).unwrap_or(1)
}

/// (major, minor) of the running kernel; (0, 0) when its release says otherwise.
pub(crate) fn kernel_version() -> (u32, u32) {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
