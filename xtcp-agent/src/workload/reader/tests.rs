use std::process::{Child, Command, Stdio};

use super::*;
use crate::netns::NetnsId;

/// A process that ends with its handle.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        let cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        Self(cat.unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn reader(directory: &Directory) -> Reader {
    let metrics = ReaderMetrics::register(&prometheus::Registry::new()).unwrap();
    Reader { started: true, ..Reader::new(directory, 1, Processes::new(metrics)) }
}

fn own_netns() -> u32 {
    let thread = Thread { pid: std::process::id(), tid: std::process::id() };
    reader(&Directory::detached()).processes.netns(thread).unwrap()
}

#[test]
fn a_process_is_read_where_it_is_in_the_namespace_and_the_agents_own_is_not() {
    let sleeper = Sleeper::start();
    let thread = Thread { pid: sleeper.0.id(), tid: sleeper.0.id() };
    let own = Thread { pid: std::process::id(), tid: std::process::id() };
    let directory = Directory::detached();
    let reader = reader(&directory);
    let members = reader.members(own_netns(), &[own, thread]);
    assert_eq!(members.places.len(), 1);
    assert!(members.places[0].path.starts_with('/'));
    assert!(reader.members(own_netns() + 1, &[thread]).places.is_empty(), "it is in another namespace");
    assert!(reader.members(own_netns(), &[own]).places.is_empty());
    assert!(reader.members(own_netns(), &[Thread { pid: u32::MAX, tid: 1 }]).places.is_empty());
}

#[test]
fn a_newcomer_in_no_container_is_believed_at_the_last_step_only() {
    let sleeper = Sleeper::start();
    let thread = Thread { pid: sleeper.0.id(), tid: sleeper.0.id() };
    let directory = Directory::detached();
    let mut reader = reader(&directory);
    let inode = own_netns();
    reader.take(Question::Born(inode, Some(thread)));
    for (step, at) in STEPS.iter().enumerate() {
        assert!(!directory.knows(inode), "before step {step}");
        reader.read_newcomers(Instant::now() + *at);
    }
    assert!(directory.knows(inode) && reader.newcomers.is_empty());
}

#[test]
fn a_newcomer_whose_maker_left_is_looked_for() {
    let directory = Directory::detached();
    let mut reader = reader(&directory);
    reader.take(Question::Born(77, Some(Thread { pid: u32::MAX, tid: 1 })));
    reader.read_newcomers(Instant::now() + STEPS[0]);
    reader.read_newcomers(Instant::now() + STEPS[1]);
    assert!(!directory.take_changes().look);
    reader.read_newcomers(Instant::now() + STEPS[2]);
    assert!(directory.take_changes().look);
    reader.take(Question::Ended(77));
    assert!(reader.newcomers.is_empty());
    assert_eq!(directory.of_netns(NetnsId { inode: 77, cookie: 0 }), None);
}

#[test]
fn a_newcomer_of_which_no_first_thread_is_known_is_looked_for_earlier() {
    let directory = Directory::detached();
    let mut reader = reader(&directory);
    reader.take(Question::Born(77, None));
    reader.read_newcomers(Instant::now() + STEPS[0]);
    assert!(!directory.take_changes().look);
    reader.read_newcomers(Instant::now() + STEPS[1]);
    assert!(directory.take_changes().look);
}

#[test]
fn a_process_that_an_engine_told_of_is_met_in_its_namespace_after_it_is_known_whose_that_is() {
    let sleeper = Sleeper::start();
    let directory = Directory::detached();
    let mut reader = reader(&directory);
    let pid = sleeper.0.id();
    reader.take(Question::Process(pid));
    assert!(directory.knows(own_netns()));
    let met = directory.take_changes().met;
    let [Met { inode, thread, began_ktime_ns, ended_ktime_ns }] = met[..] else { panic!("{met:?}") };
    assert_eq!((inode, thread), (own_netns(), Thread { pid, tid: pid }));
    assert!(0 < began_ktime_ns && began_ktime_ns <= ended_ktime_ns && ended_ktime_ns <= ktime_ns());
    assert!(directory.take_changes().met.is_empty());
    reader.take(Question::Process(u32::MAX));
    assert!(directory.take_changes().met.is_empty(), "it does not exist");
}

#[test]
fn a_look_is_read_in_slices_between_which_the_thread_is_free() {
    let sleepers: Vec<Sleeper> = (0..3).map(|_| Sleeper::start()).collect();
    let directory = Directory::detached();
    let mut reader = reader(&directory);
    reader.started = false;
    let inode = own_netns();
    let found = |sleeper: &Sleeper| (inode, Thread { pid: sleeper.0.id(), tid: sleeper.0.id() });
    // Two that are none, for more than one slice.
    let others = [(inode + 1, Thread { pid: 1, tid: 1 }), (inode + 2, Thread { pid: 1, tid: 1 })];
    reader.take(Question::Look(sleepers.iter().map(found).chain(others).collect()));
    reader.begin_look();
    let late = Instant::now().checked_sub(SLICE).unwrap();
    for slice in 1..=3 {
        assert_eq!(reader.wait(), Duration::ZERO, "before slice {slice}");
        reader.read_look(late);
    }
    assert!(reader.reading.is_some() && !reader.started);
    reader.read_look(late);
    assert!(reader.reading.is_none() && reader.started && directory.knows(inode));
}

#[test]
fn the_thread_answers_what_it_is_asked_and_ends_with_the_last_directory() {
    let sleeper = Sleeper::start();
    let (directory, asked) = Directory::new(1 << 20, None);
    let metrics = ReaderMetrics::register(&prometheus::Registry::new()).unwrap();
    spawn(&directory, asked, 1, metrics).unwrap();
    let pid = sleeper.0.id();
    let deadline = Instant::now() + Duration::from_secs(30);
    let known = |directory: &Directory| directory.knows_process(pid);
    while !known(&directory) {
        directory.of_pid(pid);
        assert!(Instant::now() < deadline, "the cgroup of a process was not read");
        thread::yield_now();
    }
}
