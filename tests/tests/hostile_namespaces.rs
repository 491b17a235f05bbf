//! Promise: whatever lies in a folder of namespaces, and whatever may not be looked at, is handled, counted and named: a name with a
//! newline, of bytes that are not UTF-8, of 255 bytes, at the end of a path of 4 KiB; plain files, pipes, dangling links and
//! other kinds of namespaces; folders that appear later; a `/proc` that hides processes; a namespace that nothing leads into. None of it breaks
//! a line of the log or a record.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, mkfifo};
use xtcp_tests::agent::{Agent, agent};
use xtcp_tests::fleet::{Harbour, Member, Roll, has_handles, on_a_thread};
use xtcp_tests::grpc;
use xtcp_tests::host::{alone, kernel, wait_for};
use xtcp_tests::netns::{Id, Netns};
use xtcp_tests::row::Row;

const LIMIT: Duration = Duration::from_secs(30);

/// Rows of the namespace in a poll that begins now, once it has any.
fn rows_of(agent: &Agent, id: Id) -> Vec<Row> {
    wait_for("rows of a namespace", LIMIT, || {
        let rows: Vec<Row> = grpc::poll(agent.grpc).into_iter().filter(|row| row.is_of(id)).collect();
        (!rows.is_empty()).then_some(rows)
    })
}

/// Each line of the log begins as every line of it does.
fn whole_lines(agent: &Agent) {
    for line in agent.process.stderr.text().lines() {
        assert!(line.starts_with("20") && line.contains('Z'), "a line of the log was broken: {line:?}");
    }
}

#[test]
fn hostile_names_are_shown_escaped_in_records_and_what_is_no_namespace_is_passed_over() {
    let _alone = alone();
    let harbour = Harbour::new();
    let dir = harbour.path();
    // What must be passed over, some of which would block or do things when opened.
    std::fs::write(dir.join("plain"), "net:[4026531840]").unwrap();
    std::fs::create_dir(dir.join("folder")).unwrap();
    mkfifo(&dir.join("pipe"), Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/nonexistent", dir.join("dangling")).unwrap();
    std::os::unix::fs::symlink("loop", dir.join("loop")).unwrap();
    std::os::unix::fs::symlink("/proc/self/ns/mnt", dir.join("mnt")).unwrap();
    let long = "x".repeat(255);
    let names: [(&[u8], &str); 5] = [
        (b"a\n2026-01-01T00:00:00Z ERROR forged", "a\\n2026-01-01T00:00:00Z ERROR forged"),
        (b"\xff\xfe\x1b[2J", "\\xff\\xfe\\u{1b}[2J"),
        (b"{\"netns\":\"quoted\"}", "{\"netns\":\"quoted\"}"),
        (long.as_bytes(), &long),
        ("größe".as_bytes(), "größe"),
    ];
    let fleet: Vec<Member> = on_a_thread(|| {
        let launch = |(index, (name, _)): (usize, &(&[u8], &str))| {
            harbour.launch_as(index, OsStr::from_bytes(name), true)
        };
        names.iter().enumerate().map(launch).collect()
    });
    let mut roll = Roll::default();
    for member in &fleet {
        roll.add(member);
    }
    let agent = agent()
        .without_rows()
        .args(&["--ebpf", "off", "--log-level", "debug", "--netns-dir", dir.to_str().unwrap()])
        .start();
    for (member, (_, shown)) in fleet.iter().zip(names) {
        for row in rows_of(&agent, member.id) {
            assert_eq!(row.record.netns, shown);
        }
    }
    roll.check(&grpc::poll(agent.grpc));
    let problems =
        |what: &str| agent.metrics().sum("xtcp_netns_look_problems_total", &[&format!("what=\"{what}\"")]);
    assert!(problems("failed") >= 1.0, "the link that leads to itself is counted");
    for member in fleet {
        member.end();
    }
    whole_lines(&agent);
}

#[test]
fn a_namespace_at_the_end_of_a_path_longer_than_the_kernel_takes_is_found_and_polled() {
    let _alone = alone();
    let harbour = Harbour::new();
    // Folders as deep as a path may be, and in the last of them a name that does not fit any more.
    let mut deep = harbour.path().to_owned();
    while deep.as_os_str().len() + 201 < 4_090 {
        deep.push("d".repeat(200));
    }
    deep.push("e".repeat(4_090 - 1 - deep.as_os_str().len()));
    std::fs::create_dir_all(&deep).unwrap();
    let name = "at-the-end-of-it";
    let member = on_a_thread(|| {
        // By its own name, from inside the folder: no path of it can be given to the kernel.
        unshare(CloneFlags::CLONE_FS).unwrap();
        chdir(&deep).unwrap();
        let mut member = harbour.launch(0, None, true);
        File::create(name).unwrap();
        mount(Some("/proc/thread-self/ns/net"), name, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        member.file = None;
        member
    });
    assert!(File::open(deep.join(name)).is_err(), "the path is not too long");
    // Without eBPF, which would give the cookie and with it another door.
    let agent =
        agent().without_rows().args(&["--ebpf", "off", "--netns-dir", deep.to_str().unwrap()]).start();
    let rows = rows_of(&agent, member.id);
    assert!(rows.iter().all(|row| row.record.netns == name), "{:?}", rows[0]);
    on_a_thread(|| {
        unshare(CloneFlags::CLONE_FS).unwrap();
        chdir(&deep).unwrap();
        umount2(name, MntFlags::MNT_DETACH).unwrap();
    });
    member.end();
}

#[test]
fn folders_that_appear_later_one_in_the_other_are_found_without_a_reconcile() {
    let _alone = alone();
    let harbour = Harbour::new();
    let dir: PathBuf = harbour.path().join("run/engine/netns");
    let args = ["--ebpf", "off", "--reconcile-frequency", "1h", "--netns-dir", dir.to_str().unwrap()];
    let agent = agent().without_rows().args(&args).start();
    let known = agent.metrics().sum("xtcp_netns", &[]);
    std::fs::create_dir_all(&dir).unwrap();
    let member = on_a_thread(|| harbour.launch_as(0, Path::new("run/engine/netns/later").as_os_str(), true));
    let rows = rows_of(&agent, member.id);
    assert!(rows.iter().all(|row| row.record.netns == "later"));
    // Its end, by the same way, and by its handle.
    let id = member.id;
    member.end();
    if has_handles() {
        wait_for("its end to be known", LIMIT, || {
            (agent.metrics().sum("xtcp_netns", &[]) <= known).then_some(())
        });
        assert!(!grpc::poll(agent.grpc).iter().any(|row| row.is_of(id)));
    }
    // The folder goes and comes back.
    std::fs::remove_dir_all(harbour.path().join("run")).unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    let again = on_a_thread(|| harbour.launch_as(1, Path::new("run/engine/netns/again").as_os_str(), true));
    rows_of(&agent, again.id);
    again.end();
}

#[test]
fn a_namespace_that_only_a_descriptor_holds_is_entered_by_its_handle_or_counted() {
    let _alone = alone();
    let harbour = Harbour::new();
    let agent = agent().without_rows().start();
    let member = on_a_thread(|| harbour.launch(0, None, true));
    if has_handles() {
        let mut roll = Roll::default();
        roll.add(&member);
        assert!(roll.check(&rows_of(&agent, member.id)) > 0);
    } else {
        let shut = || agent.metrics().sum("xtcp_netns_unreachable", &[]) >= 1.0;
        wait_for("it to be counted", LIMIT, || shut().then_some(()));
    }
    member.end();
}

#[test]
fn a_namespace_that_nothing_leads_into_is_counted_and_found_once_somebody_enters() {
    let _alone = alone();
    let harbour = Harbour::new();
    // Older than the agent, and held by a descriptor: no event tells of it, and before 6.19 no list.
    let member = on_a_thread(|| harbour.launch(0, None, true));
    let agent = agent().without_rows().start();
    let told = agent.metrics().sum("xtcp_ebpf_attached", &["hook=\"tracepoint/syscalls/sys_exit_setns\""]);
    if kernel() < (5, 11) {
        assert!(told < 0.5, "before 5.11 nobody tells who enters a namespace");
        return;
    }
    assert!(told > 0.5, "the hook is not attached");
    // `nsenter` stays inside until its standard input ends, and is a door that no look has to find.
    let path = format!("/proc/{}/fd/{}", std::process::id(), descriptor(member.file.as_ref().unwrap()));
    let visitor =
        xtcp_tests::process::Process::start("visitor", &["nsenter", &format!("--net={path}"), "cat"]);
    let rows = rows_of(&agent, member.id);
    assert!(!rows.is_empty());
    drop(visitor);
    member.end();
}

fn descriptor(file: &File) -> i32 {
    use std::os::fd::AsRawFd;
    file.as_raw_fd()
}

#[test]
fn processes_that_may_not_be_looked_at_are_counted_and_named_once() {
    let _alone = alone();
    let netns = Netns::named("closed");
    // A process of another user, whose links only CAP_SYS_PTRACE lets one read.
    let inside = netns.run_in(|| {
        xtcp_tests::process::Process::start(
            "other",
            &["setpriv", "--reuid", "65534", "--clear-groups", "cat"],
        )
    });
    let lacking = ["setpriv", "--bounding-set=-sys_ptrace", "--"];
    let args = ["--ebpf", "off", "--reconcile-frequency", "100ms"];
    let agent = agent().without_rows().wrapped_in(&lacking).args(&args).start();
    let denied = || agent.metrics().sum("xtcp_netns_look_problems_total", &["what=\"denied\""]);
    let first = wait_for("a look that is denied", LIMIT, || Some(denied()).filter(|count| *count >= 1.0));
    wait_for("more looks", LIMIT, || (denied() > 2.0 * first).then_some(()));
    let log = agent.process.stderr.text();
    assert_eq!(log.matches("not all of this host can be looked at").count(), 1, "{log}");
    assert!(log.contains("/ns/net: Permission denied"), "{log}");
    // Its mount leads there all the same.
    assert!(agent.metrics().sum("xtcp_netns", &[]) >= 2.0);
    drop(inside);
}

#[test]
fn a_proc_that_hides_processes_is_survived_by_an_agent_that_is_not_root() {
    let _alone = alone();
    let harbour = Harbour::new();
    let member = on_a_thread(|| harbour.launch(0, Some("seen"), true));
    // Its own mount namespace, in which /proc shows nobody else's processes to nobody's agent.
    let hidden = "mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid 65534 --regid 65534 --clear-groups \
                  --inh-caps=+sys_admin,+net_admin --ambient-caps=+sys_admin,+net_admin -- \"$@\"";
    let wrapper = ["unshare", "-m", "sh", "-c", hidden, "sh"];
    let args = ["--ebpf", "off", "--netns-dir", harbour.path().to_str().unwrap()];
    open_to_all(harbour.path());
    let agent = agent().without_rows().wrapped_in(&wrapper).args(&args).start();
    let rows = rows_of(&agent, member.id);
    assert!(rows.iter().all(|row| row.record.netns == "seen"));
    whole_lines(&agent);
    member.end();
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
