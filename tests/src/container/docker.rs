//! Docker with runc: a daemon and a containerd of its own.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::engine::Engine;
use super::{Cgroups, Container, Room, containerd};
use crate::host::wait_for;
use crate::process::Process;

/// A daemon whose store, state, socket and settings are in a room. It touches neither bridges nor packet filters.
#[derive(Debug)]
pub struct Docker {
    daemon: Process,
    containerd: Process,
    room: Room,
}

impl Docker {
    /// A daemon that knows the image, and has no container yet.
    pub fn start(cgroups: Cgroups) -> Self {
        let room = Room::new("docker", cgroups);
        // One of dockerd's own has 15 seconds to start, however slow the host is.
        let containerd = containerd::daemon(&room, "io.containerd.grpc.v1.cri", "");
        let below = room.path(containerd::SOCKET);
        wait_for("Docker's containerd to listen", Duration::from_secs(60), || {
            UnixStream::connect(&below).ok()
        });
        let host = format!("unix://{}", room.path("docker.sock"));
        let [store, run, pid] = ["store", "run", "docker.pid"].map(|name| room.path(name));
        let mut argv = vec![
            "dockerd",
            "--host",
            &host,
            "--containerd",
            &below,
            "--data-root",
            &store,
            "--exec-root",
            &run,
        ];
        argv.extend(["--pidfile", &pid, "--storage-driver", "vfs", "--log-level", "warn"]);
        argv.extend(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
        let daemon = room.start("dockerd", &argv);
        let docker = Self { daemon, containerd, room };
        docker.wait_until_served();
        docker.load_image();
        docker
    }
}

impl Engine for Docker {
    const RUNTIME: &'static str = "docker";
    const IMAGE: &'static str = ".Config.Image";
    const REMOVE: &'static [&'static str] = &["rm", "--force"];

    fn room(&self) -> &Room {
        &self.room
    }

    fn argv(&self, args: &[&str]) -> Vec<String> {
        let mut argv = vec!["docker".to_owned(), "--config".to_owned(), self.room.path("client")];
        argv.extend(["--host".to_owned(), format!("unix://{}", self.room.path("docker.sock"))]);
        argv.extend(args.iter().map(|&arg| arg.to_owned()));
        argv
    }

    fn serve(&mut self) -> PathBuf {
        self.socket()
    }

    fn cgroup_of(&self, container: &Container) -> String {
        format!("{}/{}", self.room.cgroup(), container.id)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            for running in self.run(&["ps", "--quiet"]).split_whitespace() {
                self.end(running);
            }
            let all = self.run(&["ps", "--all", "--quiet"]);
            let all: Vec<&str> = all.split_whitespace().collect();
            if !all.is_empty() {
                self.run(&[Self::REMOVE, &all].concat());
            }
        }
        self.daemon.terminate(Duration::from_secs(20));
        self.containerd.terminate(Duration::from_secs(20));
    }
}
