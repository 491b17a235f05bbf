//! What the path of a cgroup says about whose it is. Pure.
//!
//! Engines name a container's cgroup after its full id, kubelet a pod's after its uid, systemd a unit's after the unit.
//! The innermost name counts: of a container that runs in another one it is the inner one, of a unit of a systemd that
//! runs in a container that unit.

/// Digits of a container's id: docker, podman, CRI-O and containerd's CRI make them alike.
const ID_DIGITS: usize = 64;
/// Longest uid of a pod that is believed: they are UUIDs (36), or MD5 sums of a file (32).
const UID_LENGTH: usize = 64;

/// What a cgroup's path says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Id of the container, 64 digits (LXC: its name), and its engine where the path tells it.
    pub container: Option<(String, Option<&'static str>)>,
    /// Uid of the pod, as Kubernetes writes it.
    pub pod_uid: Option<String>,
    /// The systemd unit, as systemd writes it; not the scope that is a container's own.
    pub unit: Option<String>,
    /// The path, beginning with `/`.
    pub path: String,
}

impl Place {
    /// Reads a path such as `/system.slice/ssh.service`. Any text will do: what is not understood says nothing.
    pub fn of_path(path: &str) -> Self {
        // A process that ended leaves its cgroup's name with a remark.
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        let mut place = Self { path: path.to_owned(), ..Self::default() };
        let mut parent = "";
        let mut in_kubepods = false;
        for name in path.split('/').filter(|name| !matches!(*name, "" | "..")) {
            if let Some(uid) = pod_uid(name, in_kubepods) {
                // A container that comes further in is the pod's; one that came before holds the whole node.
                place.container = None;
                place.pod_uid = Some(uid);
            }
            in_kubepods |= name.contains("kubepods");
            if let Some((id, runtime)) = container(name, parent) {
                place.container = Some((id, runtime));
            } else if is_unit(name) {
                place.unit = Some(name.to_owned());
            }
            parent = name;
        }
        place
    }

    /// Reads what `/proc/<pid>/cgroup` holds: of its hierarchies the one that says most, of equals the unified one (v2),
    /// then systemd's own, then the first. `None` when there is no hierarchy at all.
    pub fn of_process(text: &str) -> Option<Self> {
        let hierarchies = text.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            Some((controllers, Self::of_path(path)))
        });
        // `max_by_key` gives the last of equals.
        let best = hierarchies.enumerate().max_by_key(|(at, (controllers, place))| {
            let kind = match *controllers {
                "" => 2,
                "name=systemd" => 1,
                _ => 0,
            };
            (place.weight(), kind, std::cmp::Reverse(*at))
        });
        best.map(|(_, (_, place))| place)
    }

    /// How much it says.
    fn weight(&self) -> u8 {
        let says = |fact: bool, weight| if fact { weight } else { 0 };
        says(self.container.is_some(), 8)
            + says(self.pod_uid.is_some(), 4)
            + says(self.unit.is_some(), 2)
            + says(self.path != "/", 1)
    }
}

/// Reads the name of a pod's cgroup: `kubepods-burstable-pod<uid>.slice` by systemd, which writes `_` for `-`, or
/// `pod<uid>` somewhere below `kubepods`.
fn pod_uid(name: &str, in_kubepods: bool) -> Option<String> {
    let uid = if let Some(slice) = name.split(':').next().and_then(|name| name.strip_suffix(".slice")) {
        let (before, uid) = slice.rsplit_once("-pod")?;
        before.contains("kubepods").then_some(uid)?
    } else {
        name.strip_prefix("pod").filter(|_| in_kubepods)?
    };
    let fits = uid.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    (fits && !uid.is_empty() && uid.len() <= UID_LENGTH).then(|| uid.replace('_', "-"))
}

/// Reads the name of a container's cgroup, with the name of the one around it.
fn container(name: &str, parent: &str) -> Option<(String, Option<&'static str>)> {
    if let Some(lxc) = name.strip_prefix("lxc.payload.").or_else(|| Some(name).filter(|_| parent == "lxc")) {
        return Some((lxc.to_owned(), Some("lxc")));
    }
    // `<slice>:<prefix>:<id>` is systemd's way of naming, given to an engine that makes folders.
    let (prefix, id) = if let Some((before, id)) = name.rsplit_once(':') {
        (before.rsplit(':').next().unwrap_or_default(), id)
    } else {
        let name = name.strip_suffix(".scope").unwrap_or(name);
        name.rsplit_once('-').unwrap_or(("", name))
    };
    if id.len() != ID_DIGITS || !id.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f')) {
        return None;
    }
    let runtime = match prefix {
        "docker" => Some("docker"),
        "cri-containerd" | "nerdctl" => Some("containerd"),
        "crio" => Some("cri-o"),
        "libpod" | "libpod-payload" => Some("podman"),
        // A container's monitor is not in the container.
        "libpod-conmon" | "crio-conmon" => return None,
        "" => match parent {
            "docker" => Some("docker"),
            _ => None,
        },
        _ => None,
    };
    Some((id.to_owned(), runtime))
}

/// Units of these kinds hold processes.
fn is_unit(name: &str) -> bool {
    let kind = name.rsplit_once('.').filter(|(name, _)| !name.is_empty()).map(|(_, kind)| kind);
    matches!(kind, Some("service" | "scope" | "socket" | "mount" | "swap"))
}

#[cfg(test)]
mod tests;
