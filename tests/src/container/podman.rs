//! podman with runc, and its Docker-compatible API on a socket.

use std::path::PathBuf;
use std::time::Duration;

use super::engine::Engine;
use super::{Cgroups, Container, Room};
use crate::process::Process;

/// An engine of its own: store, state and socket in a room.
#[derive(Debug)]
pub struct Podman {
    service: Option<Process>,
    room: Room,
}

impl Podman {
    /// An engine that knows the image, and has no container yet.
    pub fn start(cgroups: Cgroups) -> Self {
        let podman = Self { service: None, room: Room::new("podman", cgroups) };
        podman.load_image();
        podman
    }
}

impl Engine for Podman {
    const RUNTIME: &'static str = "podman";
    const IMAGE: &'static str = ".ImageName";
    const REMOVE: &'static [&'static str] = &["rm", "--force", "--time", "0"];

    fn room(&self) -> &Room {
        &self.room
    }

    fn argv(&self, args: &[&str]) -> Vec<String> {
        let mut argv = vec!["podman".to_owned()];
        for (option, folder) in [("--root", "store"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            argv.extend([option.to_owned(), self.room.path(folder)]);
        }
        let rest = ["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--storage-driver", "vfs"];
        argv.extend(rest.map(str::to_owned));
        argv.extend(["--events-backend", "file"].map(str::to_owned));
        argv.extend(args.iter().map(|&arg| arg.to_owned()));
        argv
    }

    fn serve(&mut self) -> PathBuf {
        let socket = self.socket();
        if self.service.is_none() {
            let address = format!("unix://{}", socket.display());
            let argv = self.argv(&["system", "service", "--time", "0", &address]);
            let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
            self.service = Some(self.room.start("podman system service", &argv));
            self.wait_until_served();
        }
        socket
    }

    fn cgroup_of(&self, container: &Container) -> String {
        format!("{}/libpod-{}", self.room.cgroup(), container.id)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if let Some(mut service) = self.service.take() {
            service.terminate(Duration::from_secs(20));
        }
        if !std::thread::panicking() {
            self.run(&["rm", "--all", "--force", "--time", "0"]);
        }
    }
}
