//! The kernel, and what this process may do.

use std::fs;
use std::time::{Duration, SystemTime};

use aya::maps::MapType;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::stat::stat;

use super::capability::Capability;
use super::facts::{Is, Kernel, Lockdown, Privileges};

/// 2025-01-01: a clock before it was never set.
const WRITTEN: Duration = Duration::from_secs(1_735_689_600);
/// `PROC_USER_INIT_INO` in `linux/proc_ns.h`: inode of the initial user namespace.
const USER_INITIAL: u64 = 0xEFFF_FFFD;

pub(super) fn kernel() -> Kernel {
    let (release, machine) = match nix::sys::utsname::uname() {
        Ok(name) => {
            (name.release().to_string_lossy().into_owned(), name.machine().to_string_lossy().into_owned())
        }
        Err(_) => (String::new(), String::new()),
    };
    let clocksource = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let wall_clock_set = if since_epoch >= WRITTEN {
        Is::Yes
    } else {
        Is::No(format!("the wall clock says {} s since 1970", since_epoch.as_secs()))
    };
    Kernel {
        version: version(&release),
        release,
        machine,
        lockdown: match fs::read_to_string("/sys/kernel/security/lockdown") {
            Ok(text) => lockdown(&text),
            Err(e) => Lockdown::Unknown(format!(
                "/sys/kernel/security/lockdown: {e} (securityfs not mounted, or lockdown not compiled in)"
            )),
        },
        clocksource: fs::read_to_string(clocksource).ok().map(|text| text.trim().to_owned()),
        wall_clock_set,
    }
}

/// Major and minor number of a release such as `6.18.4-cloud-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The word in brackets of `none [integrity] confidentiality`.
fn lockdown(text: &str) -> Lockdown {
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word);
    match chosen {
        Some("none") => Lockdown::None,
        Some("integrity") => Lockdown::Integrity,
        Some("confidentiality") => Lockdown::Confidentiality,
        _ => Lockdown::Unknown(format!("{:?} names no known level", text.trim())),
    }
}

pub(super) fn privileges() -> Privileges {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    Privileges {
        uid: nix::unistd::geteuid().as_raw(),
        capabilities: Capability::in_mask(
            field(&status, "CapEff").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default(),
        ),
        user_namespace_is_initial: same_inode("/proc/self/ns/user", USER_INITIAL, "user"),
        seccomp_filter: field(&status, "Seccomp") == Some("2"),
        memlock_bytes: limit(Resource::RLIMIT_MEMLOCK),
        open_files: limit(Resource::RLIMIT_NOFILE),
    }
}

/// The value of a line `Name:\tvalue`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// A soft limit; None is unlimited, and so is one that cannot be asked for.
fn limit(resource: Resource) -> Option<u64> {
    getrlimit(resource).ok().map(|(soft, _)| soft).filter(|soft| *soft != RLIM_INFINITY)
}

/// Whether a namespace of this process is the one with this inode.
pub(super) fn same_inode(path: &str, inode: u64, kind: &str) -> Is {
    match stat(path) {
        Ok(found) if found.st_ino == inode => Is::Yes,
        Ok(found) => Is::No(format!("it is {kind}:[{}], the host's is {kind}:[{inode}]", found.st_ino)),
        Err(e) => Is::Unknown(format!("{path}: {e}")),
    }
}

/// Makes a ring buffer of one page and gives it back at once.
pub(super) fn ring_buffer() -> Is {
    match aya::sys::is_map_supported(MapType::RingBuf) {
        Ok(true) => Is::Yes,
        Ok(false) => Is::No("this kernel has no ring buffer map (5.8)".to_owned()),
        Err(e) => Is::No(format!("{}: {}", e.call, e.io_error)),
    }
}

pub(super) fn readable(path: &str) -> Is {
    match fs::File::open(path) {
        Ok(_) => Is::Yes,
        Err(e) => Is::No(format!("{path}: {e}")),
    }
}

pub(super) fn number(path: &str) -> Option<u8> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_is_the_word_in_brackets() {
        assert_eq!(lockdown("none [integrity] confidentiality\n"), Lockdown::Integrity);
        assert_eq!(lockdown("[none] integrity confidentiality\n"), Lockdown::None);
        assert!(matches!(lockdown(""), Lockdown::Unknown(_)));
    }

    #[test]
    fn a_release_begins_with_two_numbers() {
        assert_eq!(version("6.12.0-1-amd64"), Some((6, 12)));
        assert_eq!(version("7.2-rc1"), Some((7, 2)));
        assert_eq!(version("linux"), None);
    }

    #[test]
    fn a_status_field_is_found_by_its_whole_name() {
        let status = "Seccomp_filters:\t1\nSeccomp:\t2\nCapEff:\t000001ffffffffff\n";
        assert_eq!(field(status, "Seccomp"), Some("2"));
        assert_eq!(field(status, "Cap"), None);
    }
}
