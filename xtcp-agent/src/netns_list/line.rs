//! One namespace in words: the cells of the table, and an object for programs.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use xtcp_proto::event::v1::NetnsSource;
use xtcp_proto::netns::v1::{Netns, NetnsOwner, NetnsState};

use crate::columns::Align::{Left, Right};
use crate::columns::{Column, plain};

/// The columns; the ways in follow.
pub(super) const COLUMNS: [Column; 10] = [
    Column::new("Name", Left),
    Column::new("Inode", Right),
    Column::new("Cookie", Right),
    Column::new("Nsid", Right),
    Column::new("State", Left),
    Column::new("Sockets", Right),
    Column::new("Age", Right),
    Column::new("Dumped", Right),
    Column::new("Took", Right),
    Column::new("Owner", Left),
];
/// Above what follows.
pub(super) const REST: &str = "Reached by";

/// What is not known.
const UNKNOWN: &str = "-";

/// A namespace for programs. Numbers are numbers; what is not known is null.
#[derive(Debug, Serialize)]
pub(super) struct Object<'a> {
    inode: u32,
    cookie: Option<u64>,
    name: &'a str,
    nsid: Option<u32>,
    own: bool,
    state: &'static str,
    /// Rows of the last dump.
    sockets: Option<u64>,
    /// RFC 3339.
    created: Option<String>,
    age_s: Option<f64>,
    /// RFC 3339.
    last_dump: Option<String>,
    last_dump_us: Option<u64>,
    error: Option<&'a str>,
    /// Null when it existed before the agent.
    found: Option<&'static str>,
    doors: &'a [String],
    owner: Option<Owner<'a>>,
}

#[derive(Debug, Serialize)]
struct Owner<'a> {
    container_id: Option<&'a str>,
    container_name: Option<&'a str>,
    container_image: Option<&'a str>,
    container_runtime: Option<&'a str>,
    pod_name: Option<&'a str>,
    pod_namespace: Option<&'a str>,
    pod_uid: Option<&'a str>,
    systemd_unit: Option<&'a str>,
    cgroup_path: Option<&'a str>,
}

/// The object of a namespace.
pub(super) fn object(netns: &Netns, now: SystemTime) -> Object<'_> {
    let created = time(netns.created_ns);
    let last = netns.last_dump.as_ref();
    Object {
        inode: netns.inode,
        cookie: (netns.cookie != 0).then_some(netns.cookie),
        name: &netns.name,
        nsid: netns.nsid,
        own: netns.own,
        state: state(netns.state()),
        sockets: last.map(|dump| dump.rows),
        created: created.map(stamp),
        age_s: created.map(|created| (since(created, now).as_secs_f64() * 1e3).round() / 1e3),
        last_dump: last.and_then(|dump| time(dump.timestamp_ns)).map(stamp),
        last_dump_us: last.map(|dump| dump.duration_ns / 1_000),
        error: last.map(|dump| dump.error.as_str()).filter(|error| !error.is_empty()),
        found: found(netns.found()),
        doors: &netns.doors,
        owner: netns.owner.as_ref().and_then(owner_object),
    }
}

fn owner_object(owner: &NetnsOwner) -> Option<Owner<'_>> {
    fn known(text: &str) -> Option<&str> {
        (!text.is_empty()).then_some(text)
    }
    (*owner != NetnsOwner::default()).then(|| Owner {
        container_id: known(&owner.container_id),
        container_name: known(&owner.container_name),
        container_image: known(&owner.container_image),
        container_runtime: known(&owner.container_runtime),
        pod_name: known(&owner.pod_name),
        pod_namespace: known(&owner.pod_namespace),
        pod_uid: known(&owner.pod_uid),
        systemd_unit: known(&owner.systemd_unit),
        cgroup_path: known(&owner.cgroup_path),
    })
}

/// The cells of a namespace, and how it is reached or why not.
pub(super) fn cells(netns: &Netns, now: SystemTime) -> ([String; COLUMNS.len()], String) {
    let known = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
    let last = netns.last_dump.as_ref();
    let ago = |at: SystemTime| short(since(at, now));
    let cells = [
        plain(&netns.name),
        netns.inode.to_string(),
        known((netns.cookie != 0).then(|| netns.cookie.to_string())),
        known(netns.nsid.map(|nsid| nsid.to_string())),
        state(netns.state()).to_owned(),
        known(last.map(|dump| dump.rows.to_string())),
        known(time(netns.created_ns).map(ago)),
        known(last.and_then(|dump| time(dump.timestamp_ns)).map(ago)),
        known(last.map(|dump| short(Duration::from_nanos(dump.duration_ns)))),
        known(netns.owner.as_ref().and_then(owner).map(|owner| plain(&owner))),
    ];
    let error = last.map(|dump| dump.error.as_str()).filter(|error| !error.is_empty());
    let rest = match (error, netns.doors.first()) {
        (Some(error), _) => plain(error),
        (None, Some(door)) => plain(door),
        (None, None) => UNKNOWN.to_owned(),
    };
    (cells, rest)
}

/// What people call the owner.
fn owner(owner: &NetnsOwner) -> Option<String> {
    let pod = || (!owner.pod_name.is_empty()).then(|| format!("{}/{}", owner.pod_namespace, owner.pod_name));
    let first = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    pod()
        .or_else(|| first(&owner.container_name))
        .or_else(|| (!owner.container_id.is_empty()).then(|| owner.container_id.chars().take(12).collect()))
        .or_else(|| first(&owner.systemd_unit))
        .or_else(|| first(&owner.cgroup_path))
}

fn state(state: NetnsState) -> &'static str {
    match state {
        NetnsState::Unspecified => "unknown",
        NetnsState::New => "new",
        NetnsState::Polled => "polled",
        NetnsState::Incomplete => "incomplete",
        NetnsState::Unreachable => "unreachable",
        NetnsState::Excluded => "excluded",
    }
}

fn found(source: NetnsSource) -> Option<&'static str> {
    match source {
        NetnsSource::Unspecified => None,
        other => Some(other.as_str_name().trim_start_matches("NETNS_SOURCE_")),
    }
}

/// A time of the agent's clock; `None` for 0, which stands for not known.
pub(super) fn time(ns: i64) -> Option<SystemTime> {
    let since = u64::try_from(ns).ok().filter(|ns| *ns > 0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(since))
}

/// RFC 3339 with microseconds.
pub(super) fn stamp(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time).to_string()
}

/// The clocks of two hosts may differ: nothing is younger than now.
fn since(time: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(time).unwrap_or_default()
}

/// A duration in one unit or two, as short as people need it.
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time < Duration::from_millis(1) => format!("{}us", time.as_micros()),
        0 => format!("{}ms", time.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_short_as_people_need_them() {
        let cases = [
            (Duration::from_nanos(153_400), "153us"),
            (Duration::from_micros(12_999), "12ms"),
            (Duration::from_millis(59_999), "59s"),
            (Duration::from_secs(61), "1m01s"),
            (Duration::from_secs(7_260), "2h01m"),
            (Duration::from_secs(90_000), "1d01h"),
        ];
        for (time, words) in cases {
            assert_eq!(short(time), words);
        }
    }

    #[test]
    fn an_owner_is_called_by_what_people_know_best() {
        let mut of = NetnsOwner { cgroup_path: "/a".to_owned(), ..NetnsOwner::default() };
        assert_eq!(owner(&NetnsOwner::default()), None);
        assert_eq!(owner(&of).as_deref(), Some("/a"));
        of.systemd_unit = "ssh.service".to_owned();
        assert_eq!(owner(&of).as_deref(), Some("ssh.service"));
        of.container_id = "0123456789abcdef".to_owned();
        assert_eq!(owner(&of).as_deref(), Some("0123456789ab"));
        of.container_name = "web".to_owned();
        assert_eq!(owner(&of).as_deref(), Some("web"));
        (of.pod_namespace, of.pod_name) = ("shop".to_owned(), "web-0".to_owned());
        assert_eq!(owner(&of).as_deref(), Some("shop/web-0"));
    }

    #[test]
    fn what_is_not_known_is_a_dash_for_people_and_null_for_programs() {
        let netns = Netns { inode: 7, name: "a\x1bb".to_owned(), ..Netns::default() };
        let (cells, rest) = cells(&netns, SystemTime::now());
        assert_eq!(cells.map(|cell| cell.replace("unknown", "-")).join(" "), "a\\u{1b}b 7 - - - - - - - -");
        assert_eq!(rest, "-");
        let object = serde_json::to_value(object(&netns, SystemTime::now())).unwrap();
        assert_eq!(object["inode"], 7);
        for key in ["cookie", "nsid", "sockets", "created", "age_s", "last_dump", "error", "found", "owner"] {
            assert!(object[key].is_null(), "{key}: {object}");
        }
    }
}
