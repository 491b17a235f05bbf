//! Promise: rows say whose a namespace is: the container's id and the pod's uid as its cgroup's path has them, and name
//! and image as the container engine of this node tells; what opts out is left out; an engine that hangs delays nothing.
//!
//! Nothing here is a container: processes with namespaces of their own join cgroups that are named as engines and kubelet
//! name theirs, in a hierarchy of version 2 that the test mounts, and the engine is a few lines of HTTP. That it is so with
//! real ones is proven elsewhere.
#![allow(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use xtcp_proto::flat_record::v1::xtcp_flat_record::{OwnerSource, WorkloadSource};
use xtcp_tests::agent::{Agent, agent, binary};
use xtcp_tests::grpc;
use xtcp_tests::host::{alone, wait_for};
use xtcp_tests::process::{Process, run};
use xtcp_tests::row::Row;

const LIMIT: Duration = Duration::from_secs(60);
const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";

/// Cgroups of version 2 in a folder of the test's own, removed with it.
struct Cgroups {
    mounted: TempDir,
    own: String,
}

impl Cgroups {
    fn mount() -> Self {
        let mounted = tempfile::tempdir().unwrap();
        run(&["mount", "-t", "cgroup2", "none", mounted.path().to_str().unwrap()]);
        Self { mounted, own: format!("xtcp-t-{}", std::process::id()) }
    }

    /// The path of a cgroup as the kernel tells it, and its folder, which is made.
    fn make(&self, path: &str) -> (String, PathBuf) {
        let path = format!("/{}{path}", self.own);
        let folder = self.mounted.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(&folder).unwrap();
        (path, folder)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        // A cgroup can be removed once its last process is reaped.
        let folder = self.mounted.path().join(&self.own);
        let _ = Command::new("find").arg(&folder).args(["-depth", "-type", "d", "-delete"]).output();
        let _ = Command::new("umount").arg(self.mounted.path()).output();
    }
}

/// A process with a network namespace of its own, which it enters before it joins its cgroup, as engines do it, and where
/// it listens.
struct Tenant {
    process: Process,
    netns_inode: u64,
    cgroup: String,
}

impl Tenant {
    fn start(cgroups: &Cgroups, path: &str) -> Self {
        let (cgroup, folder) = cgroups.make(path);
        let helper = env!("CARGO_BIN_EXE_xtcp-test-helper");
        let arguments = ["-n", helper, "listen", folder.to_str().unwrap(), "80"];
        let process = Process::spawn("tenant", Command::new("unshare").args(arguments));
        wait_for("the tenant to listen", LIMIT, || (!process.stdout.is_empty()).then_some(()));
        let netns_inode = fs::metadata(format!("/proc/{}/ns/net", process.pid())).unwrap().ino();
        Self { process, netns_inode, cgroup }
    }

    /// The first row of its listener that this accepts.
    fn row(&self, agent: &Agent, what: &str, wanted: impl Fn(&Row) -> bool) -> Row {
        agent.wait_for_row(what, LIMIT, |row| row.record.netns_inode == self.netns_inode && wanted(row))
    }
}

/// An engine that speaks as much of the Docker API as the agent asks for.
struct Engine {
    socket: PathBuf,
    _folder: TempDir,
}

impl Engine {
    /// Runs these containers, each id, name and labels as JSON. Its threads end with the test's process.
    fn start(containers: &[(&str, &str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let list: Vec<String> = containers
            .iter()
            .map(|(id, name, labels)| {
                format!(
                    r#"{{"Id":"{id}","Names":["/{name}"],"Image":"registry/{name}:1","Labels":{labels}}}"#
                )
            })
            .collect();
        let list = format!("[{}]", list.join(","));
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                let mut followers = Vec::new();
                for stream in listener.incoming().flatten() {
                    followers.extend(Self::answer(stream, &list));
                }
            })
            .unwrap();
        Self { socket, _folder: folder }
    }

    /// Answers one request; the connection, where it stays open.
    fn answer(mut stream: UnixStream, list: &str) -> Option<UnixStream> {
        let mut head = BufReader::new(stream.try_clone().ok()?).lines();
        let request = head.next()?.ok()?;
        let path = request.split(' ').nth(1)?.split('?').next()?.to_owned();
        while head.next()?.ok().is_some_and(|line| !line.is_empty()) {}
        if path.ends_with("/events") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").ok()?;
            return Some(stream);
        }
        let body = if path.ends_with("/containers/json") { list } else { r#"{"ApiVersion":"1.41"}"# };
        let head =
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ";
        write!(stream, "{head}{}\r\n\r\n{body}", body.len()).ok()?;
        None
    }

    fn path(&self) -> &str {
        self.socket.to_str().unwrap()
    }
}

/// One that accepts connections and says nothing.
fn hung_socket(folder: &Path) -> (UnixListener, PathBuf) {
    let socket = folder.join("hung.sock");
    (UnixListener::bind(&socket).unwrap(), socket)
}

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

#[test]
fn rows_say_whose_their_namespace_is() {
    let _alone = alone();
    let cgroups = Cgroups::mount();
    let (web, shy, app, late) = (id('a'), id('b'), id('c'), id('d'));
    let engine = Engine::start(&[
        (&web, "web", "{}"),
        (&shy, "shy", r#"{"xtcp2.io/exclude":"true"}"#),
        (&late, "late", "{}"),
    ]);
    let docker = Tenant::start(&cgroups, &format!("/docker/{web}"));
    let opted_out = Tenant::start(&cgroups, &format!("/docker/{shy}"));
    let pod = Tenant::start(&cgroups, &format!("/kubepods/burstable/pod{UID}/{app}"));
    let unit = Tenant::start(&cgroups, "/system.slice/web.service");
    let folder = tempfile::tempdir().unwrap();
    let (_held, hung) = hung_socket(folder.path());
    let agent = agent()
        .frequency("1s")
        .args(&["--docker-socket", engine.path(), "--docker-socket", hung.to_str().unwrap()])
        .args(&["--cri-socket", hung.to_str().unwrap(), "--reconcile-frequency", "5s"])
        .start();

    let row = docker.row(&agent, "a row with the container's name", |row| row.record.container_name == "web");
    let record = &row.record;
    assert_eq!(
        (record.container_id.as_str(), record.container_image.as_str()),
        (web.as_str(), "registry/web:1")
    );
    assert_eq!(
        (record.container_runtime.as_str(), record.cgroup_path.as_str()),
        ("docker", docker.cgroup.as_str())
    );
    assert_eq!((record.workload_source(), record.pod_uid.as_str()), (WorkloadSource::Docker, ""));
    docker.row(&agent, "a row with the namespace named after its container", |row| row.record.netns == "web");

    let record = pod.row(&agent, "a row with the pod's uid", |row| row.record.pod_uid == UID).record;
    // Which of the pod's containers it is, only the socket's own process or cgroup tells.
    assert!(record.container_id.is_empty() || record.container_id == app, "{}", record.container_id);
    assert_eq!(record.container_name, "");
    assert_eq!((record.workload_source(), record.pod_name.as_str()), (WorkloadSource::Cgroup, ""));

    let record =
        unit.row(&agent, "a row with the unit", |row| row.record.systemd_unit == "web.service").record;
    assert_eq!((record.container_id.as_str(), record.pod_uid.as_str()), ("", ""));
    assert_eq!(record.cgroup_path, unit.cgroup);

    wait_for("the container that opted out to be counted", LIMIT, || {
        (agent.metrics().sum("xtcp_netns_opted_out", &[]) > 0.0).then_some(())
    });
    let rows = grpc::poll(agent.grpc);
    assert!(rows.iter().any(|row| row.record.netns_inode == pod.netns_inode));
    assert!(!rows.iter().any(|row| row.record.netns_inode == opted_out.netns_inode), "it opted out");

    // One that begins under the agent's eyes, and joins its cgroup after it has its namespace.
    let newcomer = Tenant::start(&cgroups, &format!("/docker/{late}"));
    newcomer.row(&agent, "a row of a container that began later", |row| row.record.container_name == "late");

    let up = |socket: &Path| {
        agent.metrics().sum("xtcp_workload_engine_up", &[&format!("socket=\"{}\"", socket.display())])
    };
    assert!((up(&engine.socket) - 1.0).abs() < f64::EPSILON && up(&hung).abs() < f64::EPSILON);
    drop(agent);
    drop([docker, opted_out, pod, unit, newcomer].map(|tenant| tenant.process));
}

/// As a user's shell runs it: with settings of no file, and what it says of engines on standard error.
fn dump(args: &[&str]) -> (Vec<Row>, String) {
    let mut command = Command::new(binary());
    let variables = std::env::vars_os().map(|(name, _)| name);
    for name in variables.filter(|name| name.to_string_lossy().starts_with("XTCP_")) {
        command.env_remove(name);
    }
    let output =
        command.args(["--config", "/dev/null", "dump", "--format", "jsonl"]).args(args).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let rows = String::from_utf8(output.stdout).unwrap();
    (rows.lines().map(|line| Row::from_json(0, line)).collect(), told)
}

#[test]
fn a_dump_says_whose_namespaces_are_and_which_engine_did_not_tell() {
    let _alone = alone();
    let cgroups = Cgroups::mount();
    let (web, shy, app) = (id('a'), id('b'), id('c'));
    let engine = Engine::start(&[(&web, "web", "{}"), (&shy, "shy", r#"{"xtcp2.io/exclude":"true"}"#)]);
    let docker = Tenant::start(&cgroups, &format!("/docker/{web}"));
    let opted_out = Tenant::start(&cgroups, &format!("/docker/{shy}"));
    let pod = Tenant::start(&cgroups, &format!("/kubepods/burstable/pod{UID}/{app}"));
    let unit = Tenant::start(&cgroups, "/system.slice/web.service");
    let folder = tempfile::tempdir().unwrap();
    let (_held, hung) = hung_socket(folder.path());
    let hung = hung.to_str().unwrap();
    let engines = ["--docker-socket", engine.path(), "--docker-socket", hung, "--cri-socket", hung];
    let (rows, told) = dump(&engines);
    let row = |tenant: &Tenant| rows.iter().find(|row| row.record.netns_inode == tenant.netns_inode);
    let record = &row(&docker).unwrap().record;
    assert_eq!((record.container_name.as_str(), record.container_id.as_str()), ("web", web.as_str()));
    assert_eq!((record.container_image.as_str(), record.netns.as_str()), ("registry/web:1", "web"));
    assert_eq!((record.workload_source(), &record.cgroup_path), (WorkloadSource::Docker, &docker.cgroup));
    assert_eq!(row(&pod).unwrap().record.pod_uid, UID);
    assert_eq!(row(&unit).unwrap().record.systemd_unit, "web.service");
    assert!(row(&opted_out).is_none(), "it opted out");
    let silent = told.lines().filter(|line| line.starts_with("names of containers may be missing: "));
    assert_eq!(silent.filter(|line| line.contains(hung)).count(), 2, "{told}");
    assert!(!told.contains(engine.path()), "{told}");

    // By the container's name; and the process that holds the socket, where that is asked.
    let named = ["--cri-socket", "off", "--docker-socket", engine.path(), "--netns", "container:web"];
    let (rows, told) = dump(&[&named[..], &["--process-scan", "start"]].concat());
    assert_eq!((rows.len(), told.as_str()), (1, ""));
    let record = &rows[0].record;
    assert_eq!((record.netns_inode, record.container_name.as_str()), (docker.netns_inode, "web"));
    assert_eq!((record.pid, record.owner_source()), (docker.process.pid(), OwnerSource::FdWalk));
    drop([docker, opted_out, pod, unit].map(|tenant| tenant.process));
}

#[test]
fn namespaces_are_chosen_by_container_and_pod() {
    let _alone = alone();
    let cgroups = Cgroups::mount();
    let (web, db) = (id('a'), id('b'));
    let engine = Engine::start(&[(&web, "web", "{}"), (&db, "db", "{}")]);
    let [web, db] = [web, db].map(|id| Tenant::start(&cgroups, &format!("/docker/{id}")));
    let agent = agent()
        .args(&["--docker-socket", engine.path(), "--cri-socket", "off", "--reconcile-frequency", "5s"])
        .frequency("1s")
        .args(&["--netns-include", "container:web"])
        .start();
    web.row(&agent, "a row of the container that is included", |_| true);
    let rows = grpc::poll(agent.grpc);
    assert!(rows.iter().any(|row| row.record.netns_inode == web.netns_inode));
    assert!(rows.iter().all(|row| row.record.netns_inode == web.netns_inode), "only that container's");
    drop(agent);
    drop([web, db].map(|tenant| tenant.process));
}
