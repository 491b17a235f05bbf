use proptest::prelude::*;

use super::*;

const A: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const B: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";
const ESCAPED: &str = "2c48913c_b29f_11e7_9350_020968147796";
const STATIC_UID: &str = "6a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d";

/// (path with `A`, `B`, `UID`, `ESCAPED` and `STATIC` for the constants; container; runtime; pod; unit)
type Example =
    (&'static str, Option<&'static str>, Option<&'static str>, Option<&'static str>, Option<&'static str>);

const EXAMPLES: &[Example] = &[
    // Docker, driver cgroupfs and driver systemd; its own default parent in a service.
    ("/docker/A", Some(A), Some("docker"), None, None),
    ("/system.slice/docker-A.scope", Some(A), Some("docker"), None, None),
    ("/../../system.slice/docker-A.scope", Some(A), Some("docker"), None, None),
    ("/system.slice/docker.service", None, None, None, Some("docker.service")),
    (
        "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-A.scope",
        Some(A),
        Some("docker"),
        None,
        Some("user@1000.service"),
    ),
    ("/docker/A/system.slice/nginx.service", Some(A), Some("docker"), None, Some("nginx.service")),
    // One in another.
    ("/docker/A/docker/B", Some(B), Some("docker"), None, None),
    (
        "/docker/A/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podESCAPED.slice/cri-containerd-B.scope",
        Some(B),
        Some("containerd"),
        Some(UID),
        None,
    ),
    ("/docker/A/kubepods/besteffort/podUID", None, None, Some(UID), None),
    // Kubernetes: kubelet with cgroupfs, with systemd; every class of service; a static pod.
    ("/kubepods/podUID/A", Some(A), None, Some(UID), None),
    ("/kubepods/burstable/podUID/A", Some(A), None, Some(UID), None),
    ("/kubepods/besteffort/podSTATIC/A", Some(A), None, Some(STATIC_UID), None),
    (
        "/kubepods.slice/kubepods-podESCAPED.slice/cri-containerd-A.scope",
        Some(A),
        Some("containerd"),
        Some(UID),
        None,
    ),
    (
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podESCAPED.slice/docker-A.scope",
        Some(A),
        Some("docker"),
        Some(UID),
        None,
    ),
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSTATIC.slice/crio-A.scope",
        Some(A),
        Some("cri-o"),
        Some(STATIC_UID),
        None,
    ),
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podESCAPED.slice/crio-A.scope/container",
        Some(A),
        Some("cri-o"),
        Some(UID),
        None,
    ),
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podESCAPED.slice/crio-conmon-A.scope",
        None,
        None,
        Some(UID),
        Some("crio-conmon-A.scope"),
    ),
    ("/kubepods-besteffort-podESCAPED.slice:cri-containerd:A", Some(A), Some("containerd"), Some(UID), None),
    (
        "/system.slice/containerd.service/kubepods-besteffort-podESCAPED.slice:cri-containerd:A",
        Some(A),
        Some("containerd"),
        Some(UID),
        Some("containerd.service"),
    ),
    ("/kubepods/besteffort/podUID", None, None, Some(UID), None),
    ("/kubepods", None, None, None, None),
    // Podman: root with systemd, with cgroupfs, without root, and as a service of its own.
    ("/machine.slice/libpod-A.scope", Some(A), Some("podman"), None, None),
    ("/machine.slice/libpod-A.scope/container", Some(A), Some("podman"), None, None),
    ("/libpod_parent/libpod-A", Some(A), Some("podman"), None, None),
    (
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-A.scope/container",
        Some(A),
        Some("podman"),
        None,
        Some("user@1000.service"),
    ),
    ("/system.slice/web.service/libpod-payload-A", Some(A), Some("podman"), None, Some("web.service")),
    ("/machine.slice/libpod-conmon-A.scope", None, None, None, Some("libpod-conmon-A.scope")),
    ("/machine.slice/machine-libpod_pod_A.slice/libpod-B.scope", Some(B), Some("podman"), None, None),
    // Others.
    ("/system.slice/nerdctl-A.scope", Some(A), Some("containerd"), None, None),
    ("/default/A", Some(A), None, None, None),
    ("/ecs/4b1f0d2c/A", Some(A), None, None, None),
    ("/lxc/web", Some("web"), Some("lxc"), None, None),
    ("/lxc.payload.web/system.slice/ssh.service", Some("web"), Some("lxc"), None, Some("ssh.service")),
    ("/lxc.monitor.web", None, None, None, None),
    // systemd.
    ("/system.slice/ssh.service", None, None, None, Some("ssh.service")),
    ("/system.slice/system-getty.slice/getty@tty1.service", None, None, None, Some("getty@tty1.service")),
    ("/system.slice/dev-hugepages.mount", None, None, None, Some("dev-hugepages.mount")),
    ("/system.slice/ssh.service (deleted)", None, None, None, Some("ssh.service")),
    ("/user.slice/user-1000.slice/session-3.scope", None, None, None, Some("session-3.scope")),
    (
        "/user.slice/user-0.slice/user@0.service/app.slice/app-a\\x2db.service",
        None,
        None,
        None,
        Some("app-a\\x2db.service"),
    ),
    ("/user.slice/user-1000.slice/user@1000.service/init.scope", None, None, None, Some("init.scope")),
    ("/init.scope", None, None, None, Some("init.scope")),
    ("/system.slice", None, None, None, None),
    // Nothing.
    ("/", None, None, None, None),
    ("", None, None, None, None),
    ("/.service", None, None, None, None),
    ("/pods/podUID", None, None, None, None),
    ("/kubepods/pod", None, None, None, None),
    ("/process_api/95b68f1c41f9a229d61feaa8d21a0b59", None, None, None, None),
    ("/docker/0123456789ab", None, None, None, None),
    ("/docker/buildkit/y7z4qv1c0p9w8x2k3m5n6b7t8", None, None, None, None),
];

fn spelled(text: &str) -> String {
    // Upper case, so that no word of a path is hit.
    let words = [("STATIC", STATIC_UID), ("ESCAPED", ESCAPED), ("UID", UID), ("A", A), ("B", B)];
    words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
}

#[test]
fn the_paths_that_engines_kubelet_and_systemd_make_are_understood() {
    for (path, id, runtime, pod, unit) in EXAMPLES {
        let place = Place::of_path(&spelled(path));
        assert_eq!(place.container, id.map(|id| (id.to_owned(), *runtime)), "{path}");
        assert_eq!(place.pod_uid.as_deref(), *pod, "{path}");
        assert_eq!(place.unit, unit.map(spelled), "{path}");
    }
}

#[test]
fn of_a_process_the_hierarchy_that_says_most_counts() {
    let v1 = "12:pids:/docker/A\n2:cpu:/\n1:name=systemd:/system.slice/x.service\n0::/\n";
    assert_eq!(Place::of_process(&spelled(v1)).unwrap().path, spelled("/docker/A"));
    let v2 = "0::/system.slice/ssh.service\n";
    assert_eq!(Place::of_process(v2).unwrap().unit.as_deref(), Some("ssh.service"));
    let hybrid = "5:cpu:/system.slice/a.service\n1:name=systemd:/system.slice/b.service\n0::/\n";
    assert_eq!(Place::of_process(hybrid).unwrap().unit.as_deref(), Some("b.service"));
    let colons = "0::/kubepods-besteffort-podESCAPED.slice:cri-containerd:A\n";
    assert_eq!(Place::of_process(&spelled(colons)).unwrap().pod_uid.as_deref(), Some(UID));
    assert_eq!(Place::of_process("0::/\n").unwrap(), Place { path: "/".to_owned(), ..Place::default() });
    assert_eq!(Place::of_process(""), None);
    assert_eq!(Place::of_process("nonsense\nmore:of it"), None);
}

/// What `/proc/<pid>/cgroup` said on a host with v1 hierarchies and cgroup2 beside them: `v1` in each of the former,
/// except for what a container manager around it all did with memory.
fn on_a_hybrid_host(v1: &str, memory: &str, v2: &str) -> String {
    let own =
        ["9:name=systemd", "8:pids", "7:blkio", "6:freezer", "5:devices"].map(|id| format!("{id}:{v1}\n"));
    let rest = ["3:cpuset", "2:cpuacct", "1:cpu"].map(|id| format!("{id}:{v1}\n"));
    spelled(&format!("{}4:memory:{memory}\n{}0::{v2}\n", own.concat(), rest.concat()))
}

/// podman 4.3 and containerd 1.6 with runc 1.1, with their driver cgroupfs. Told to use cgroup2, they leave the v1
/// hierarchies as they inherited them.
#[test]
fn what_proc_says_of_containers_of_podman_and_containerd_is_understood() {
    let inherited = "/process_api/bc0bffe74cdd63e784b77a49fed7aa7c";
    let podman = ["/libpod_parent/libpod-A", "/own-parent/libpod-A"];
    let pods = ["/kubepods/besteffort/podUID/A", "/own-root/kubepods/besteffort/podUID/A"];
    for path in podman.iter().chain(&pods) {
        for text in [on_a_hybrid_host(path, path, path), on_a_hybrid_host("/", inherited, path)] {
            let place = Place::of_process(&text).unwrap();
            let in_pod = pods.contains(path);
            assert_eq!(place.container, Some((A.to_owned(), (!in_pod).then_some("podman"))), "{text}");
            assert_eq!(place.pod_uid, in_pod.then(|| UID.to_owned()), "{text}");
            assert_eq!((place.unit, place.path), (None, spelled(path)), "{text}");
        }
    }
    // podman's monitor of a container; cgroup2 with a cgroup namespace of the container's own, read from inside.
    let monitor = on_a_hybrid_host("/libpod_parent/conmon", inherited, "/");
    assert_eq!(Place::of_process(&monitor).unwrap().container, None);
    assert_eq!(Place::of_process("0::/\n").unwrap().container, None);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,300}") {
        let _ = Place::of_process(&text);
        let _ = Place::of_path(&text);
    }

    #[test]
    fn pieces_of_real_names_in_any_order_make_sense_or_nothing(
        names in prop::collection::vec(
            prop::sample::select(vec!["docker", "A", "docker-A.scope", "kubepods", "podUID", "kubepods-podESCAPED.slice",
                                      "system.slice", "x.service", "libpod-B.scope", "..", "", ":", "-", "lxc", "crio-"]),
            0..8,
        ),
    ) {
        let path = spelled(&format!("/{}", names.join("/")));
        let place = Place::of_path(&path);
        prop_assert_eq!(&place.path, &path);
        if let Some((id, runtime)) = &place.container {
            prop_assert!(path.contains(id.as_str()));
            prop_assert!(*runtime == Some("lxc") || id.len() == 64);
        }
        prop_assert!(place.pod_uid.is_none_or(|uid| uid == UID));
        prop_assert!(place.unit.is_none_or(|unit| path.contains(&unit)));
    }
}
