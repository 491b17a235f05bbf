use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use prometheus::Registry;

use super::*;
use crate::workload::Container;
use crate::workload::directory::ContainerFacts;

const LIMIT: Duration = Duration::from_secs(30);

fn owners_in(proc: &Path, bytes: usize) -> Owners {
    let settings = Settings { bytes, proc: proc.to_owned() };
    let metrics = OwnerMetrics::register(&Registry::new()).unwrap();
    Owners::new(settings, Directory::detached(), metrics)
}

fn owner(pid: u32, comm: &str, source: OwnerSource) -> Owner {
    Owner { pid, comm: comm_of(comm.as_bytes()), source, exit_signal: 0 }
}

/// What `/proc/<pid>/stat` says of a process that began so many ticks after boot.
fn stat_of(pid: u32, comm: &str, state: char, threads: u32, began: u64) -> String {
    let between = vec!["0"; 16].join(" ");
    format!("{pid} ({comm}) {state} {between} {threads} 0 {began} 0 0\n")
}

/// A process in a `/proc` that the test made, with the inodes of its sockets.
fn process(proc: &Path, pid: u32, comm: &str, began: u64, cgroup: &str, sockets: &[u32]) {
    let dir = proc.join(pid.to_string());
    fs::create_dir_all(dir.join("fd")).unwrap();
    fs::write(dir.join("stat"), stat_of(pid, comm, 'S', 1, began)).unwrap();
    fs::write(dir.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
    for (number, inode) in sockets.iter().enumerate() {
        symlink(format!("socket:[{inode}]"), dir.join("fd").join(number.to_string())).unwrap();
    }
    symlink("/dev/null", dir.join("fd/99")).unwrap();
}

/// One look at these processes, as the thread does it.
fn look(owners: &Owners, pids: &[u32]) {
    processes::look(owners, pids);
}

/// What is known of a socket that has this inode.
fn known(view: &mut View, cookie: u64, inode: u32) -> Known<'_> {
    let remembered = view.recall([(cookie, inode)].into_iter());
    view.of(&remembered[0], 0)
}

/// Who owns the socket with this cookie.
fn owner_of(owners: &Owners, cookie: u64) -> Option<(u32, String, OwnerSource)> {
    pid_and_comm(known(&mut owners.view(), cookie, 0))
}

fn pid_and_comm(known: Known<'_>) -> Option<(u32, String, OwnerSource)> {
    known.owner.map(|owner| (owner.pid, owner.comm(), owner.source))
}

#[test]
fn an_owner_is_known_from_its_event_until_its_socket_closes() {
    let owners = owners_in(Path::new("/nonexistent"), 1 << 20);
    owners.learn(7, owner(10, "curl", OwnerSource::Connect), now());
    assert_eq!(owner_of(&owners, 7), Some((10, "curl".to_owned(), OwnerSource::Connect)));
    assert!(owner_of(&owners, 8).is_none());
    assert_eq!(owners.tracked().len(), 1);
    owners.forget(7);
    assert!(owner_of(&owners, 7).is_none());
    assert_eq!(owners.tracked().len(), 0);
    // A socket without a cookie is nobody's.
    owners.learn(0, owner(10, "curl", OwnerSource::Connect), now());
    assert!(owner_of(&owners, 0).is_none());
}

#[test]
fn who_closes_a_socket_takes_the_place_of_who_opened_it() {
    let owners = owners_in(Path::new("/nonexistent"), 1 << 20);
    owners.learn(7, owner(10, "master", OwnerSource::Listen), now());
    owners.learn(7, owner(11, "worker", OwnerSource::Close), now());
    assert_eq!(owner_of(&owners, 7), Some((11, "worker".to_owned(), OwnerSource::Close)));
    // Whoever closed it need not live on.
    assert_eq!(owners.tracked().len(), 0);
}

#[test]
fn a_process_that_ended_leaves_its_sockets_to_nobody_that_is_known() {
    let proc = tempfile::tempdir().unwrap();
    let owners = owners_in(proc.path(), 1 << 20);
    process(proc.path(), 10, "curl", 1, "/", &[]);
    owners.learn(7, owner(10, "curl", OwnerSource::Connect), now());
    owners.learn(8, owner(10, "curl", OwnerSource::Exit), now());
    look(&owners, &[10]);
    assert!(owner_of(&owners, 7).is_some());
    fs::remove_dir_all(proc.path().join("10")).unwrap();
    look(&owners, &[10]);
    assert!(owner_of(&owners, 7).is_none());
    // It is told of this one that it ended with the socket open.
    assert_eq!(owner_of(&owners, 8), Some((10, "curl".to_owned(), OwnerSource::Exit)));
    assert_eq!(owners.tracked().len(), 0);
}

#[test]
fn a_process_id_that_is_used_again_is_not_the_owner() {
    let proc = tempfile::tempdir().unwrap();
    let owners = owners_in(proc.path(), 1 << 20);
    process(proc.path(), 10, "curl", 1, "/", &[]);
    owners.learn(7, owner(10, "curl", OwnerSource::Connect), now());
    look(&owners, &[10]);
    let later = u64::MAX / 1_000_000_000;
    fs::write(proc.path().join("10/stat"), stat_of(10, "other", 'S', 1, later)).unwrap();
    look(&owners, &[10]);
    assert!(owner_of(&owners, 7).is_none());
    // Also where nobody had looked before.
    owners.learn(8, owner(10, "curl", OwnerSource::Connect), now());
    assert!(owner_of(&owners, 8).is_none());
}

#[test]
fn a_zombie_is_gone_and_a_dead_first_thread_with_others_is_not() {
    let proc = tempfile::tempdir().unwrap();
    process(proc.path(), 10, "a) b", 5, "/", &[]);
    assert_eq!(processes::stat(proc.path(), 10), processes::Stat::Alive(comm_of(b"a) b"), 5));
    let write = |state, threads| {
        fs::write(proc.path().join("10/stat"), stat_of(10, "a) b", state, threads, 5)).unwrap();
    };
    write('Z', 1);
    assert_eq!(processes::stat(proc.path(), 10), processes::Stat::Gone);
    write('Z', 2);
    assert_eq!(processes::stat(proc.path(), 10), processes::Stat::Alive(comm_of(b"a) b"), 5));
    for damaged in ["", "10 (", "10 (x) S", "10 (x) S 1 2 3"] {
        fs::write(proc.path().join("10/stat"), damaged).unwrap();
        assert_eq!(processes::stat(proc.path(), 10), processes::Stat::Hidden, "{damaged:?}");
    }
    assert_eq!(processes::stat(proc.path(), 11), processes::Stat::Gone);
}

#[test]
fn a_process_that_starts_another_program_is_called_by_its_new_name() {
    let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    let owners = owners_in(Path::new("/proc"), 1 << 20);
    // As if it had connected before it became `sleep`.
    owners.learn(7, owner(pid, "shell", OwnerSource::Connect), now());
    assert_eq!(owner_of(&owners, 7).unwrap().1, "shell");
    let start = Instant::now();
    loop {
        look(&owners, &[pid]);
        // It is `exec` that makes it so.
        let known = owner_of(&owners, 7).unwrap();
        if known.1 == "sleep" {
            break;
        }
        assert!(start.elapsed() < LIMIT, "{known:?}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    look(&owners, &[pid]);
    assert!(owner_of(&owners, 7).is_none());
}

#[test]
fn a_process_brings_the_workload_of_its_cgroup() {
    let proc = tempfile::tempdir().unwrap();
    let owners = owners_in(proc.path(), 1 << 20);
    process(proc.path(), 10, "sshd", 1, "/system.slice/ssh.service", &[]);
    owners.learn(7, owner(10, "sshd", OwnerSource::Listen), now());
    look(&owners, &[10]);
    let mut view = owners.view();
    let workload = known(&mut view, 7, 0).workload.unwrap();
    assert_eq!(workload.unit.as_deref(), Some("ssh.service"));
}

#[test]
fn a_name_that_an_engine_tells_later_is_its_processes_before_their_next_turn() {
    let proc = tempfile::tempdir().unwrap();
    let owners = owners_in(proc.path(), 1 << 20);
    let id = "5".repeat(64);
    process(proc.path(), 10, "nginx", 1, &format!("/docker/{id}"), &[]);
    let mut watch = processes::Watch::begin(owners.clone());
    owners.learn(7, owner(10, "nginx", OwnerSource::Listen), now());
    let gathered = watch.turn(Instant::now()).unwrap();
    watch.turn(gathered);
    let name = || {
        let mut view = owners.view();
        known(&mut view, 7, 0).workload.unwrap().container.as_ref().unwrap().name.clone()
    };
    assert_eq!(name(), "");
    let container = Container { id, name: "web".to_owned(), ..Container::default() };
    let facts = ContainerFacts { container, ..ContainerFacts::default() };
    owners.0.directory.learn(vec![facts], Vec::new());
    // No round is due.
    watch.turn(gathered);
    assert_eq!(name(), "web");
}

#[test]
fn owners_take_no_more_than_their_budget() {
    let room = 512;
    let owners = owners_in(Path::new("/nonexistent"), room * sockets::ENTRY_BYTES);
    for cookie in 1..=4 * room as u64 {
        owners.learn(cookie, owner(u32::try_from(cookie).unwrap(), "x", OwnerSource::Connect), now());
    }
    assert_eq!(owners.0.sockets.len(), room);
    assert_eq!(owners.0.sockets.evicted(), 3 * room as u64);
    assert_eq!(owners.tracked().len(), room);
    // Who came last is there.
    assert!(owner_of(&owners, 4 * room as u64).is_some() && owner_of(&owners, 1).is_none());
}

#[test]
fn sockets_that_close_leave_nothing_behind() {
    let owners = owners_in(Path::new("/nonexistent"), 512 * sockets::ENTRY_BYTES);
    for cookie in 1..100_000 {
        owners.learn(cookie, owner(10, "x", OwnerSource::Connect), now());
        if cookie % 100 != 0 {
            owners.forget(cookie);
        }
    }
    let sockets = &owners.0.sockets;
    assert!(sockets.len() <= 512 && sockets.order() <= 2 * 512 + 16, "{} in order", sockets.order());
    assert!(owner_of(&owners, 99_900).is_some() && owner_of(&owners, 100).is_none());
    sockets.take(|_| true);
    assert_eq!(sockets.len(), 0);
    assert!(owner_of(&owners, 99_900).is_none());
}

#[test]
fn who_was_learnt_first_goes_first_also_among_closed_ones() {
    let sockets = Sockets::new(16 * 3 * sockets::ENTRY_BYTES);
    let entry = |pid| Entry { owner: owner(pid, "x", OwnerSource::Connect), learned_ktime_ns: 0 };
    // All of one part.
    let cookie = |number: u64| 16 * number;
    for number in 1..=3 {
        assert_eq!(sockets.insert(cookie(number), entry(1)), [None, None]);
    }
    assert_eq!(sockets.insert(cookie(1), entry(2)), [Some(entry(1)), None]);
    assert_eq!(sockets.remove(cookie(2)), Some(entry(1)));
    assert_eq!(sockets.insert(cookie(4), entry(4)), [None, None]);
    assert_eq!(sockets.insert(cookie(5), entry(5)), [None, Some(entry(2))]);
    assert_eq!(sockets.insert(cookie(6), entry(6)), [None, Some(entry(1))]);
    assert_eq!((sockets.len(), sockets.evicted()), (3, 2));
}

#[test]
fn the_walk_finds_who_holds_a_socket_alone() {
    let proc = tempfile::tempdir().unwrap();
    process(proc.path(), 1, "init", 1, "/", &[100]);
    process(proc.path(), 20, "server", 2, "/", &[200, 200, 300]);
    process(proc.path(), 21, "worker", 3, "/", &[300]);
    fs::create_dir(proc.path().join("sys")).unwrap();
    let owners = owners_in(proc.path(), 1 << 20);
    let scanned = owners.scan().unwrap();
    let expected = Scanned { processes: 3, sockets: 2, shared: 1, ..Scanned::default() };
    assert_eq!(scanned, expected);
    let mut view = owners.view();
    let mut of = |inode| pid_and_comm(known(&mut view, 1_000 + u64::from(inode), inode));
    assert_eq!(of(200), Some((20, "server".to_owned(), OwnerSource::FdWalk)));
    assert_eq!(of(100), Some((1, "init".to_owned(), OwnerSource::FdWalk)));
    // Whose it is of the two cannot be told.
    assert_eq!(of(300), None);
    // Of a socket without a file nobody holds a descriptor.
    assert!(known(&mut view, 5_000, 0).owner.is_none());
    for _ in 0..POLLS_AFTER_SCAN {
        owners.poll_ended();
    }
    let mut view = owners.view();
    // From here on it is known by its cookie, and another one with that inode is another one.
    assert!(known(&mut view, 1_200, 0).owner.is_some());
    assert!(known(&mut view, 9_999, 200).owner.is_none());
}

#[test]
fn a_proc_that_hides_others_is_told() {
    let proc = tempfile::tempdir().unwrap();
    process(proc.path(), 20, "server", 2, "/", &[200]);
    assert!(owners_in(proc.path(), 1 << 20).scan().unwrap().hidden);
    let error = owners_in(Path::new("/nonexistent"), 1 << 20).scan().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
