//! What podman and Docker have in common: the words of their command line, and a socket with the Docker API.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Container, Room, image};
use crate::host::{free_port, wait_for};

/// An engine of its own in a room, whose containers have network namespaces of their own.
pub trait Engine {
    /// What the agent is to call it.
    const RUNTIME: &'static str;
    /// Where `inspect` has the image's name.
    const IMAGE: &'static str;
    /// What it ends a container with.
    const REMOVE: &'static [&'static str];

    /// Where it is.
    fn room(&self) -> &Room;

    /// A command line for it.
    fn argv(&self, args: &[&str]) -> Vec<String>;

    /// Serves the Docker API, unless it does already; returns its socket once it answers.
    fn serve(&mut self) -> PathBuf;

    /// The cgroup of a container, as the host sees it.
    fn cgroup_of(&self, container: &Container) -> String;

    /// Where the Docker API is served.
    fn socket(&self) -> PathBuf {
        self.room().dir().join("docker.sock")
    }

    /// Waits until somebody listens there.
    fn wait_until_served(&self) {
        let socket = self.socket();
        wait_for(&format!("{} to listen", socket.display()), Duration::from_secs(60), || {
            UnixStream::connect(&socket).ok()
        });
    }

    /// Makes the image known to it.
    fn load_image(&self) {
        let archive = image::archive(self.room());
        self.run(&["load", "--quiet", "--input", &archive]);
    }

    /// Starts a container with a network namespace of its own.
    fn container(&self, name: &str) -> Container {
        self.container_with(name, &[])
    }

    /// Starts a container with more options of `run`.
    fn container_with(&self, name: &str, options: &[&str]) -> Container {
        let port = free_port();
        let mut args = vec!["run", "--detach", "--name", name, "--cgroup-parent", self.room().cgroup()];
        // Neither needs a privilege that this host may not give.
        args.extend(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--pids-limit", "0"]);
        args.extend(["--network", "none"]);
        args.extend(options);
        args.push(image::NAME);
        let command = image::command(port);
        args.extend(command.iter().map(String::as_str));
        let id = self.run(&args).trim().to_owned();
        Container::new(id, name, self.pid(name), port)
    }

    /// Ends its processes, and waits as long as it takes until the engine knows. Docker itself gives up after ten seconds,
    /// and takes the end for that of the process that it starts next.
    fn end(&self, container: &str) {
        let pid = i32::try_from(self.pid(container)).expect("process ids fit");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the container's first process runs");
        self.run(&["wait", container]);
    }

    /// Ends it and starts it again: the same id, another process, another namespace.
    fn restart(&self, container: &Container) -> Container {
        self.end(&container.id);
        self.run(&["start", &container.id]);
        Container::new(container.id.clone(), &container.name, self.pid(&container.id), container.port)
    }

    /// Ends and forgets it.
    fn remove(&self, container: &Container) {
        self.end(&container.id);
        self.run(&[Self::REMOVE, &[&container.id]].concat());
    }

    /// Runs a command inside to its end.
    fn exec(&self, container: &Container, argv: &[&str]) -> String {
        self.run(&[&["exec", &container.id], argv].concat())
    }

    /// Its id, name and image, as the engine tells them.
    fn tells(&self, container: &Container) -> [String; 3] {
        [".Id", ".Name", Self::IMAGE].map(|field| {
            let told = self.inspect(&container.name, field);
            told.trim_start_matches('/').to_owned()
        })
    }

    /// A field of `inspect`, as a Go template names it.
    fn inspect(&self, name: &str, field: &str) -> String {
        self.run(&["inspect", "--format", &format!("{{{{{field}}}}}"), name]).trim().to_owned()
    }

    /// Its first process, in the host's process ids.
    fn pid(&self, name: &str) -> u32 {
        let pid = self.inspect(name, ".State.Pid");
        pid.parse().ok().filter(|&pid| pid > 0).unwrap_or_else(|| panic!("{name} has no process: {pid:?}"))
    }

    /// Runs its command line to the end; its standard output.
    fn run(&self, args: &[&str]) -> String {
        let argv = self.argv(args);
        self.room().run(&argv.iter().map(String::as_str).collect::<Vec<_>>())
    }
}
