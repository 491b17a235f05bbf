//! podman with runc, and its Docker-compatible API on a socket.

use std::path::PathBuf;
use std::time::Duration;

use super::{Cgroups, Container, Room, image};
use crate::host::{free_port, wait_for};
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
        let archive = image::archive(&podman.room);
        podman.run(&["load", "--quiet", "--input", &archive]);
        podman
    }

    /// Serves the Docker API; returns its socket once it answers.
    pub fn serve(&mut self) -> PathBuf {
        let socket = self.socket();
        let address = format!("unix://{}", socket.display());
        let argv = self.argv(&["system", "service", "--time", "0", &address]);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        self.service = Some(self.room.start("podman system service", &argv));
        wait_for("podman's API to listen", Duration::from_secs(30), || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        socket
    }

    /// Where [`serve`](Self::serve) listens.
    pub fn socket(&self) -> PathBuf {
        self.room.dir().join("docker.sock")
    }

    /// Ends the API; containers stay.
    pub fn stop_serving(&mut self) {
        if let Some(mut service) = self.service.take() {
            service.terminate(Duration::from_secs(20));
        }
        let _ = std::fs::remove_file(self.socket());
    }

    /// Starts a container with a network namespace of its own.
    pub fn container(&self, name: &str) -> Container {
        self.container_with(name, &["--network", "none"])
    }

    /// Starts a container with more options of `podman run`.
    pub fn container_with(&self, name: &str, options: &[&str]) -> Container {
        let port = free_port();
        let mut args = vec!["run", "--detach", "--name", name, "--cgroup-parent", self.room.cgroup()];
        // Neither needs a privilege that this host may not give.
        args.extend(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--pids-limit", "0"]);
        args.extend(options);
        args.push(image::NAME);
        let command = image::command(port);
        args.extend(command.iter().map(String::as_str));
        let id = self.run(&args).trim().to_owned();
        Container::new(id, name, self.pid(name), port)
    }

    /// Stops it and starts it again: the same id, another process, another namespace.
    pub fn restart(&self, container: &Container) -> Container {
        self.run(&["restart", "--time", "0", &container.id]);
        Container::new(container.id.clone(), &container.name, self.pid(&container.id), container.port)
    }

    /// Ends and forgets it.
    pub fn remove(&self, container: &Container) {
        self.run(&["rm", "--force", "--time", "0", &container.id]);
    }

    /// A field of `podman inspect`, as a Go template names it.
    pub fn inspect(&self, name: &str, field: &str) -> String {
        self.run(&["inspect", "--format", &format!("{{{{{field}}}}}"), name]).trim().to_owned()
    }

    /// Its cgroup, which is above those of its containers.
    pub fn cgroup(&self) -> &str {
        self.room.cgroup()
    }

    fn pid(&self, name: &str) -> u32 {
        let pid = self.inspect(name, ".State.Pid");
        pid.parse().ok().filter(|&pid| pid > 0).unwrap_or_else(|| panic!("{name} has no process: {pid:?}"))
    }

    fn run(&self, args: &[&str]) -> String {
        let argv = self.argv(args);
        self.room.run(&argv.iter().map(String::as_str).collect::<Vec<_>>())
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
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.stop_serving();
        if !std::thread::panicking() {
            self.run(&["rm", "--all", "--force", "--time", "0"]);
        }
    }
}
