//! containerd with runc, its CRI, and a CNI network of one veth for each pod: what is below a kubelet.

use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::cri::{
    ContainerConfig, ContainerId, ContainerMetadata, ContainerStatusRequest, ContainerStatusResponse,
    CreateContainerRequest, Cri, Empty, ImageSpec, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxId,
    PodSandboxMetadata, PodSandboxStatusRequest, PodSandboxStatusResponse, RunPodSandboxRequest,
    StatusResponse, StopContainerRequest,
};
use super::{Cgroups, Container, Room, image, netns_inode};
use crate::host::{free_port, wait_for};
use crate::process::Process;

/// A pod without containers of its own yet: its pause process holds the network namespace.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Id of its sandbox: 64 hexadecimal digits.
    pub id: String,
    /// Its uid, as Kubernetes writes one.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// The namespace of Kubernetes that it is in.
    pub namespace: String,
    /// Its pause process.
    pub pid: u32,
    /// Inode of its network namespace.
    pub netns_inode: u64,
    /// The bind mount that holds its network namespace, `/run/netns/cni-…`.
    pub netns_path: PathBuf,
    /// The outer end of its veth, in the host's network namespace.
    pub veth: String,
    config: PodSandboxConfig,
}

impl Pod {
    /// One of its labels.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.config.labels.get(key).map(String::as_str)
    }
}

/// The daemon's socket in its room's folder.
pub(super) const SOCKET: &str = "containerd.sock";

/// Starts the daemon in a room, without one of its plugins, with settings of the others.
pub(super) fn daemon(room: &Room, disabled: &str, plugins: &str) -> Process {
    let [root, state, socket, settings] =
        ["root", "state", SOCKET, "config.toml"].map(|name| room.path(name));
    let text = format!(
        r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["{disabled}"]
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
{plugins}"#
    );
    std::fs::write(&settings, text).expect("settings can be written");
    room.start("containerd", &["containerd", "--log-level", "warn", "--config", &settings])
}

/// An engine of its own.
#[derive(Debug)]
pub struct Containerd {
    cri: Cri,
    /// Bind mounts of network namespaces, until their pod was removed.
    mounts: std::sync::Mutex<Vec<PathBuf>>,
    room: Room,
    _daemon: Process,
}

impl Containerd {
    /// An engine that knows the image and whose network is ready.
    pub fn start(cgroups: Cgroups) -> Self {
        let room = Room::new("containerd", cgroups);
        let daemon = daemon(&room, "io.containerd.internal.v1.opt", &cri_settings(&room, cgroups));
        let cri = Cri::new(&room.dir().join(SOCKET));
        let engine = Self { cri, mounts: std::sync::Mutex::default(), room, _daemon: daemon };
        engine.wait_until_ready();
        let archive = image::archive(&engine.room);
        engine.ctr(&["images", "import", "--snapshotter", "native", &archive]);
        engine
    }

    /// Where its CRI listens.
    pub fn socket(&self) -> PathBuf {
        self.room.dir().join(SOCKET)
    }

    /// The cgroup above those of its pods, as a kubelet's `--cgroup-root` sets it.
    pub fn cgroup_root(&self) -> &str {
        self.room.cgroup()
    }

    /// Makes a pod as a kubelet with the cgroupfs driver does for one that requests nothing.
    pub fn pod(&self, namespace: &str, name: &str, uid: &str, labels: &[(&str, &str)]) -> Pod {
        let own = [
            ("io.kubernetes.pod.name", name),
            ("io.kubernetes.pod.namespace", namespace),
            ("io.kubernetes.pod.uid", uid),
        ];
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: uid.to_owned(),
                namespace: namespace.to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: self.room.path("logs"),
            labels: strings(own.iter().chain(labels)),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/kubepods/besteffort/pod{uid}", self.room.cgroup()),
            }),
        };
        let request = RunPodSandboxRequest { config: Some(config.clone()) };
        let id = self.cri.call::<_, PodSandboxId>("RunPodSandbox", request).pod_sandbox_id;
        let status = self.pod_status(&id);
        let info = json(&status.info);
        let netns_path = netns_path(&info);
        self.mounts().push(netns_path.clone());
        let pid = pid(&info);
        Pod {
            uid: uid.to_owned(),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            pid,
            netns_inode: netns_inode(pid),
            veth: host_end(pid),
            netns_path,
            config,
            id,
        }
    }

    /// Starts a container in `pod`.
    pub fn container(&self, pod: &Pod, name: &str) -> Container {
        self.container_of_attempt(pod, name, 0)
    }

    /// Starts a container in `pod`, the one after `attempt` that ended.
    pub fn container_of_attempt(&self, pod: &Pod, name: &str, attempt: u32) -> Container {
        let port = free_port();
        let metadata = &pod.config.metadata.as_ref().expect("a pod's config names it");
        let labels = [
            ("io.kubernetes.container.name", name),
            ("io.kubernetes.pod.name", &metadata.name),
            ("io.kubernetes.pod.namespace", &metadata.namespace),
            ("io.kubernetes.pod.uid", &metadata.uid),
        ];
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt }),
            image: Some(ImageSpec { image: image::NAME.to_owned() }),
            command: image::command(port).to_vec(),
            labels: strings(labels.iter()),
            log_path: format!("{name}-{attempt}.log"),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let id = self.cri.call::<_, ContainerId>("CreateContainer", request).container_id;
        let _: Empty = self.cri.call("StartContainer", ContainerId { container_id: id.clone() });
        let request = ContainerStatusRequest { container_id: id.clone(), verbose: true };
        let status: ContainerStatusResponse = self.cri.call("ContainerStatus", request);
        Container::new(id, name, pid(&json(&status.info)), port)
    }

    /// Ends and forgets a container; its pod stays.
    pub fn remove_container(&self, container: &Container) {
        let id = container.id.clone();
        let request = StopContainerRequest { container_id: id.clone(), timeout: 0 };
        let _: Empty = self.cri.call("StopContainer", request);
        let _: Empty = self.cri.call("RemoveContainer", ContainerId { container_id: id });
    }

    /// Ends and forgets a pod with all of its containers, as a kubelet does for one that is deleted.
    pub fn remove(&self, pod: &Pod) {
        let id = || PodSandboxId { pod_sandbox_id: pod.id.clone() };
        let _: Empty = self.cri.call("StopPodSandbox", id());
        let _: Empty = self.cri.call("RemovePodSandbox", id());
        self.mounts().retain(|path| *path != pod.netns_path);
    }

    /// What the runtime says of a pod.
    pub fn pod_status(&self, id: &str) -> PodSandboxStatusResponse {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        self.cri.call("PodSandboxStatus", request)
    }

    fn mounts(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        self.mounts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn wait_until_ready(&self) {
        wait_for("containerd's CRI and its network to be ready", Duration::from_secs(60), || {
            let status = self.cri.try_call::<_, StatusResponse>("Status", Empty {}).ok()?.status?;
            status.conditions.iter().all(|condition| condition.status).then_some(())
        });
    }

    fn ctr(&self, args: &[&str]) {
        let socket = self.socket().display().to_string();
        let mut argv = vec!["ctr", "--address", &socket, "--namespace", "k8s.io"];
        argv.extend(args);
        self.room.run(&argv);
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // The room ends the processes; a bind mount of the host's would stay.
        for path in self.mounts().drain(..) {
            if let Some(name) = path.file_name() {
                let _ = std::process::Command::new("ip").args(["netns", "del"]).arg(name).output();
            }
        }
    }
}

/// Runs runc for pods on a cgroup2 whose controllers all belong to v1 hierarchies: leaves out the weight that containerd
/// gives every pause process.
const RUNC_WITHOUT_WEIGHT: &str = r#"#!/bin/sh
last=
for word; do
    if [ "$last" = --bundle ]; then sed -i 's/"shares":[0-9]*//' "$word/config.json"; fi
    last=$word
done
exec runc "$@"
"#;

/// The settings of its CRI; writes what they name.
fn cri_settings(room: &Room, cgroups: Cgroups) -> String {
    let runc = match cgroups {
        Cgroups::Host => "runc".to_owned(),
        Cgroups::V2 => room.path("runc-without-weight"),
    };
    let settings = format!(
        r#"[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  # Lowering a process' score takes a privilege that this host may not give.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{runc}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"#,
        image = image::NAME,
        cni = room.path("cni"),
    );
    // TEST-NET-2: nobody else on the host has these.
    let network = format!(
        r#"{{"cniVersion": "0.4.0", "name": "xtcp-test", "plugins": [{{"type": "ptp", "ipMasq": false,
        "ipam": {{"type": "host-local", "dataDir": "{}", "subnet": "198.51.100.0/24"}}}}]}}"#,
        room.path("addresses")
    );
    std::fs::create_dir(room.dir().join("cni")).expect("the network's folder can be made");
    std::fs::write(room.dir().join("cni/10-xtcp-test.conflist"), network).expect("settings can be written");
    let script = room.dir().join("runc-without-weight");
    std::fs::write(&script, RUNC_WITHOUT_WEIGHT).expect("a script can be written");
    std::fs::set_permissions(&script, Permissions::from_mode(0o755))
        .expect("a script can be made executable");
    settings
}

/// What a verbose status holds besides its published fields.
fn json(info: &HashMap<String, String>) -> serde_json::Value {
    let text = info.get("info").expect("a verbose status has its info");
    serde_json::from_str(text).expect("the info of a status is JSON")
}

fn pid(info: &serde_json::Value) -> u32 {
    let pid = info["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    pid.filter(|&pid| pid > 0).unwrap_or_else(|| panic!("there is no process: {info}"))
}

/// The bind mount of a sandbox's network namespace, by its OCI settings.
fn netns_path(info: &serde_json::Value) -> PathBuf {
    let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().expect("a sandbox has namespaces");
    let network = namespaces.iter().find(|namespace| namespace["type"] == "network");
    let path =
        network.and_then(|network| network["path"].as_str()).expect("a sandbox has a network namespace");
    PathBuf::from(path)
}

/// The name of the other end of a pod's `eth0`, in this process' network namespace.
fn host_end(pid: u32) -> String {
    let net = format!("--net=/proc/{pid}/ns/net");
    let inside = crate::process::run(&["nsenter", &net, "--", "ip", "-json", "link", "show", "eth0"]);
    let inside: serde_json::Value = serde_json::from_str(&inside).expect("ip writes JSON");
    let index = inside[0]["link_index"].as_u64().expect("a veth tells its peer");
    let outside = crate::process::run(&["ip", "-json", "link", "show"]);
    let outside: serde_json::Value = serde_json::from_str(&outside).expect("ip writes JSON");
    let link = outside.as_array().into_iter().flatten().find(|link| link["ifindex"].as_u64() == Some(index));
    link.and_then(|link| link["ifname"].as_str()).expect("the veth has an end on the host").to_owned()
}

fn strings<'a>(pairs: impl Iterator<Item = &'a (&'a str, &'a str)>) -> HashMap<String, String> {
    pairs.map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}
