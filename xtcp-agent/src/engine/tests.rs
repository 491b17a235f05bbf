use xtcp_common::event::{Header, Task, TcpClose, TcpState as Transition, hook};
use xtcp_proto::event::v1::EventKind;
use xtcp_proto::netns::v1::NetnsCounters;

use super::*;
use crate::event::NetnsEvent;
use crate::netns::enter::EnterError;
use crate::netns_counters::ledger::{Metrics, Period};
use crate::owners::{self, OwnerMetrics, Owners};
use crate::record::Reason;
use crate::scheduler::{Completion, Scope, Settings};

const MS: u64 = 1_000_000;
const OWN: NetnsId = NetnsId { inode: 1, cookie: 1 };
const POD: NetnsId = NetnsId { inode: 7, cookie: 70 };
const OWN_PID: u32 = 42;

fn engine(exclude: &[&str]) -> Engine {
    filtered(&[], exclude)
}

fn filtered(include: &[&str], exclude: &[&str]) -> Engine {
    let settings = Settings {
        frequency_ns: 3_600_000 * MS,
        jitter_pct: 0,
        workers: 4,
        lookup_delay_ns: 0,
        lookups_per_request: 100,
        lookups_per_s: 0,
        merge_wait_ns: 0,
    };
    let mut engine = Engine::new(Parts {
        registry: Registry::new(OWN, 2),
        connections: Connections::new(1000, OWN_PID, 0),
        scheduler: Scheduler::new(settings, 0, 1),
        stamp: Stamp::new("host".into(), "boot".into(), "agent".into()),
        clock: Arc::new(Clock::new().unwrap()),
        filter: NetnsFilter::parse(include, exclude).unwrap(),
        ports: PortFilter::default(),
        own_connections: OwnConnections::Exclude,
        look_up_established: true,
        look_up_listeners: true,
        directory: Directory::detached(),
        owners: Owners::new(
            owners::Settings { bytes: 1 << 20, proc: "/nonexistent".into() },
            Directory::detached(),
            OwnerMetrics::register(&prometheus::Registry::new()).unwrap(),
        ),
        mask: None,
        handles: true,
        ends: Ends::Told,
        nsids: Nsids::default(),
        ledger: Ledger::new(Period::EachPoll, Metrics::register(&prometheus::Registry::new()).unwrap()),
        metrics: EngineMetrics::register(&prometheus::Registry::new()).unwrap(),
    });
    engine.on_look(0, &look(&[]));
    // The first poll is over.
    while let Some(job) = engine.next_job(0) {
        engine.on_done(0, done(&job, Ok(job.target.id)));
    }
    assert!(engine.finished_poll(0).is_some());
    engine.take_wants();
    engine
}

fn look(mounts: &[(&str, NetnsId)]) -> Snapshot {
    let mounts = mounts
        .iter()
        .map(|(name, id)| crate::netns::Mount {
            path: format!("/run/netns/{name}").into(),
            device: 4,
            inode: id.inode,
        })
        .collect();
    Snapshot { began_ktime_ns: 1, ended_ktime_ns: 2, mounts, threads: Some(Vec::new()), listed: Vec::new() }
}

fn done(job: &Job, found: Result<NetnsId, EnterError>) -> Done {
    let completion = Completion { id: job.request.id, complete: found.is_ok(), ..Completion::default() };
    Done { worker: 0, expected: job.target.id, began_ktime_ns: 3, completion, found, counters: None }
}

fn netns(id: NetnsId, kind: u32, hook: u32) -> NetnsEvent {
    NetnsEvent {
        header: Header { kind, cpu: 0, ktime_ns: 10 },
        netns_cookie: id.cookie,
        netns_inode: id.inode,
        hook,
        task: Task { tgid: 9, tid: 9, comm: *b"ip\0\0\0\0\0\0\0\0\0\0\0\0\0\0", ..Task::default() },
    }
}

fn transition(old_state: u8, new_state: u8, pid: u32) -> Transition {
    Transition {
        header: Header { kind: kind::TCP_STATE, cpu: 0, ktime_ns: 20 },
        sk: 0xdead,
        cookie: 5,
        netns_cookie: POD.cookie,
        netns_inode: POD.inode,
        family: 2,
        source_port: 4000,
        destination_port: 80,
        old_state,
        new_state,
        task: Task { tgid: pid, tid: pid, ..Task::default() },
        ..Transition::default()
    }
}

fn created() -> Event {
    Event::NetnsCreated(netns(POD, kind::NETNS_CREATED, hook::COPY_NET_NS))
}

fn give(engine: &mut Engine, events: Vec<Event>) -> Vec<pb::Event> {
    engine.on_events(30, &EventBatch { events, ..EventBatch::default() });
    engine.take_events()
}

#[test]
fn a_namespace_is_told_when_it_comes_and_goes_and_scheduled_in_between() {
    let mut engine = engine(&[]);
    let events = give(&mut engine, vec![created()]);
    let Some(Kind::NetnsCreated(event)) = &events[0].event else { panic!("{events:?}") };
    assert_eq!(event.creator.as_ref().unwrap().comm, "ip");
    assert_eq!((events[0].sequence, events[0].netns.as_ref().unwrap().cookie), (1, 70));
    assert!(engine.parts.scheduler.knows(POD.inode));
    assert!(engine.next_job(40).is_none(), "a namespace that was seen to begin has nothing to dump");
    let events =
        give(&mut engine, vec![Event::NetnsDestroyed(netns(POD, kind::NETNS_DESTROYED, hook::PUT_NET))]);
    assert!(matches!(events[0].event, Some(Kind::NetnsDestroyed(_))));
    assert_eq!(events[0].sequence, 2);
    assert!(!engine.parts.scheduler.knows(POD.inode));
}

#[test]
fn an_established_socket_is_looked_up_in_its_namespace_and_nowhere_else() {
    let mut engine = engine(&[]);
    give(
        &mut engine,
        vec![created(), Event::TcpState(transition(7, 2, 500)), Event::TcpState(transition(2, 1, 0))],
    );
    let job = engine.next_job(40).unwrap();
    let Scope::Lookups(lookups) = &job.request.scope else { panic!("{:?}", job.request) };
    assert_eq!((job.request.netns_inode, lookups.len()), (POD.inode, 1));
    assert_eq!((lookups[0].cookie, lookups[0].event_sequence), (5, 3));
    assert_eq!(lookups[0].owner.unwrap().pid, 500);
    assert!(engine.next_job(40).is_none());
}

#[test]
fn the_agents_own_connection_makes_neither_events_nor_requests() {
    let mut engine = engine(&[]);
    let seen =
        vec![created(), Event::TcpState(transition(7, 2, OWN_PID)), Event::TcpState(transition(2, 1, 0))];
    assert_eq!(give(&mut engine, seen).len(), 1);
    assert!(engine.next_job(40).is_none());
}

#[test]
fn a_loss_is_told_with_kinds_and_place_and_dumps_every_namespace() {
    let mut engine = engine(&[]);
    give(&mut engine, vec![created()]);
    let mut batch =
        EventBatch { events: vec![Event::TcpState(transition(7, 2, 500))], ..EventBatch::default() };
    batch.lost[kind::TCP_CLOSE as usize] = 3;
    batch.lost[kind::NETNS_SOME_DESTROYED as usize] = 1;
    engine.on_events(30, &batch);
    let events = engine.take_events();
    let Some(Kind::Loss(loss)) = &events[1].event else { panic!("{events:?}") };
    assert_eq!((loss.after_sequence, loss.before_sequence, events[1].sequence), (1, 3, 3));
    let counts: Vec<(i32, u64)> = loss.lost.iter().map(|lost| (lost.kind, lost.count)).collect();
    assert_eq!(counts, [(EventKind::NetnsDestroyed as i32, 1), (EventKind::TcpClose as i32, 3)]);
    let dumped: Vec<u32> =
        std::iter::from_fn(|| engine.next_job(40)).map(|job| job.request.netns_inode).collect();
    assert_eq!(dumped, [OWN.inode, POD.inode]);
    let wants = engine.take_wants();
    assert!(wants.everything && wants.alive.get(&POD) == Some(&Source::Reconcile));
}

#[test]
fn whom_the_filter_does_not_name_is_left_out_the_agents_own_namespace_too() {
    let mut engine = filtered(&["b*"], &[]);
    let red = NetnsId { inode: 8, cookie: 80 };
    engine.on_look(50, &look(&[("blue", POD), ("red", red)]));
    assert_eq!(engine.excluded, HashSet::from([OWN.inode, red.inode]));
    assert!(engine.parts.scheduler.knows(POD.inode));
}

#[test]
fn an_end_that_a_handle_proves_names_what_had_led_to_the_question() {
    use xtcp_proto::event::v1::NetnsSource;
    for (cleanup, expected) in [(true, NetnsSource::Cleanup), (false, NetnsSource::Reconcile)] {
        let mut engine = engine(&[]);
        give(&mut engine, vec![created()]);
        engine.on_look(50, &look(&[]));
        if cleanup {
            let some = netns(NetnsId { inode: 0, cookie: 0 }, kind::NETNS_SOME_DESTROYED, hook::CLEANUP_NET);
            give(&mut engine, vec![Event::NetnsSomeDestroyed(some)]);
            // What else is missing does not hide it.
            engine.on_look(60, &look(&[]));
        } else {
            let lookup = Event::TcpState(transition(2, 1, 0));
            give(&mut engine, vec![lookup]);
            let job = engine.next_job(60).unwrap();
            engine.on_done(70, done(&job, Err(EnterError::Gone(POD))));
        }
        let mut gathered = Wants::default();
        gathered.add(engine.take_wants());
        let source = gathered.alive[&POD];
        engine.on_alive(80, 75, &[(POD, source, false)]);
        let events = engine.take_events();
        let Some(Kind::NetnsDestroyed(event)) = &events[0].event else { panic!("{events:?}") };
        assert_eq!(event.source(), expected);
    }
}

/// Takes in full looks from this time on that find nothing, as long as the engine wants another; how many.
fn looks_wanted(engine: &mut Engine, from: u64) -> usize {
    let mut looks = 0;
    while engine.take_wants().everything {
        looks += 1;
        let at = from + 100 * looks as u64;
        engine.on_look(at, &Snapshot { began_ktime_ns: at, ended_ktime_ns: at, ..look(&[]) });
    }
    looks
}

#[test]
fn where_only_looks_tell_ends_a_hint_at_one_makes_looks_follow_until_it_is_given_up() {
    for ends in [Ends::Told, Ends::Looked] {
        let looks_tell_ends = ends == Ends::Looked;
        let mut engine = engine(&[]);
        engine.parts.ends = ends;
        give(&mut engine, vec![created()]);
        engine.take_events();
        engine.take_wants();
        let some = netns(NetnsId { inode: 0, cookie: 0 }, kind::NETNS_SOME_DESTROYED, hook::CLEANUP_NET);
        give(&mut engine, vec![Event::NetnsSomeDestroyed(some)]);
        let looks = looks_wanted(&mut engine, 0);
        let ended =
            engine.take_events().iter().any(|event| matches!(event.event, Some(Kind::NetnsDestroyed(_))));
        assert_eq!((looks > 0, ended), (looks_tell_ends, looks_tell_ends), "{looks} looks");
        // Nobody is missing any more: a hint is worth one look.
        give(&mut engine, vec![Event::NetnsSomeDestroyed(some)]);
        assert_eq!(looks_wanted(&mut engine, 1_000), usize::from(looks_tell_ends));
    }
}

#[test]
fn where_only_looks_tell_ends_the_last_mount_that_goes_is_a_hint_at_one() {
    let mut engine = engine(&[]);
    engine.parts.ends = Ends::Looked;
    give(&mut engine, vec![created()]);
    let mounts = |at: u64, mounts: &[(&str, NetnsId)]| Snapshot {
        began_ktime_ns: at,
        ended_ktime_ns: at,
        threads: None,
        ..look(mounts)
    };
    // The process that made it is gone.
    let full = Snapshot { began_ktime_ns: 30, ended_ktime_ns: 30, ..look(&[("pod", POD)]) };
    engine.on_look(30, &full);
    engine.take_wants();
    engine.on_look(40, &mounts(40, &[("pod", POD)]));
    assert!(!engine.take_wants().everything);
    for (at, threads) in [(50, None), (1_000, Some(Vec::new()))] {
        engine.on_look(at, &Snapshot { threads, ..mounts(at, &[]) });
        assert!(looks_wanted(&mut engine, at) > 0);
        assert!(engine.parts.registry.get(POD.inode).is_none());
        engine.on_look(at + 900, &mounts(at + 900, &[("pod", POD)]));
    }
}

#[test]
fn an_excluded_namespace_is_left_out_once_its_name_is_known() {
    let mut engine = engine(&["hidden*"]);
    give(&mut engine, vec![created()]);
    assert!(engine.parts.scheduler.knows(POD.inode));
    engine.on_look(50, &look(&[("hidden-1", POD)]));
    assert_eq!(engine.take_wants().drop, [(POD.inode, true)]);
    assert!(!engine.parts.scheduler.knows(POD.inode));
    assert!(give(&mut engine, vec![Event::TcpState(transition(7, 2, 500))]).is_empty());
    engine.on_look(60, &look(&[("shown", POD)]));
    assert_eq!(engine.take_wants().drop, [(POD.inode, false)]);
    assert!(engine.parts.scheduler.knows(POD.inode));
}

#[test]
fn a_namespace_found_late_is_dumped_and_one_that_cannot_be_entered_is_looked_for_and_tried_again_but_not_without_end()
 {
    let mut engine = engine(&[]);
    engine.on_look(50, &look(&[("late", POD)]));
    let events = engine.take_events();
    assert!(matches!(events[0].event, Some(Kind::NetnsCreated(_))), "{events:?}");
    let job = engine.next_job(60).unwrap();
    assert_eq!((job.request.reason, &job.request.scope), (Reason::NetnsCreated, &Scope::Dump));
    engine.take_wants();
    engine.on_done(70, done(&job, Err(EnterError::Gone(job.target.id))));
    assert!(engine.take_wants().everything);
    engine.on_look(80, &look(&[]));
    assert!(engine.next_job(85).is_none(), "not without a door");
    for now in (100..).step_by(10).take(usize::from(RETRIES)) {
        engine.on_look(now, &look(&[("late", POD)]));
        let again = engine.next_job(now + 1).unwrap();
        assert_eq!(again.request.netns_inode, POD.inode);
        engine.on_done(now + 2, done(&again, Err(EnterError::Gone(again.target.id))));
    }
    engine.on_look(200, &look(&[("late", POD)]));
    assert!(engine.next_job(210).is_none(), "not again without end");
}

#[test]
fn an_entry_that_finds_a_successor_tells_an_end_and_a_beginning() {
    let mut engine = engine(&[]);
    give(
        &mut engine,
        vec![created(), Event::TcpState(transition(7, 2, 500)), Event::TcpState(transition(2, 1, 0))],
    );
    let job = engine.next_job(40).unwrap();
    let found = NetnsId { cookie: 71, ..POD };
    engine.on_done(
        50,
        Done { began_ktime_ns: 45, ..done(&job, Err(EnterError::Mismatch { expected: POD, found })) },
    );
    let events = engine.take_events();
    assert!(matches!(events[0].event, Some(Kind::NetnsDestroyed(_))), "{events:?}");
    assert!(matches!(events[1].event, Some(Kind::NetnsCreated(_))), "{events:?}");
    assert_eq!(events[1].netns.as_ref().unwrap().cookie, 71);
    assert!(engine.parts.scheduler.knows(POD.inode));
}

#[test]
fn a_socket_that_closes_before_it_is_asked_for_is_told_and_not_asked_for() {
    let mut engine = engine(&[]);
    let mut close = transition(1, 7, 0);
    close.header.kind = kind::TCP_CLOSE;
    let seen = vec![
        created(),
        Event::TcpState(transition(7, 2, 500)),
        Event::TcpState(transition(2, 1, 0)),
        Event::TcpClose(Box::new(TcpClose { state: close, ..TcpClose::default() })),
    ];
    let events = give(&mut engine, seen);
    let Some(Kind::TcpClose(closed)) = &events[3].event else { panic!("{events:?}") };
    assert!(closed.path_complete && closed.numbers.is_none());
    assert!(engine.next_job(40).is_none());
}

#[test]
fn news_of_a_dead_namespace_do_not_touch_the_one_that_has_its_inode_now() {
    let mut engine = engine(&[]);
    engine.parts.filter = NetnsFilter::parse(&["pod"], &[]).unwrap();
    give(&mut engine, vec![created()]);
    engine.on_look(50, &look(&[("pod", POD)]));
    assert!(engine.parts.scheduler.knows(POD.inode));
    let dead = NetnsId { cookie: 69, ..POD };
    let mut late =
        [netns(dead, kind::NETNS_CREATED, hook::COPY_NET_NS), netns(dead, kind::NETNS_DESTROYED, 0)];
    (late[0].header.ktime_ns, late[1].header.ktime_ns) = (4, 5);
    give(&mut engine, vec![Event::NetnsDestroyed(late[1]), Event::NetnsCreated(late[0])]);
    assert!(engine.parts.scheduler.knows(POD.inode));
    assert!(!engine.excluded.contains(&POD.inode));
}

#[test]
fn a_creation_told_after_its_end_leaves_nothing_behind() {
    let mut engine = engine(&[]);
    engine.parts.filter = NetnsFilter::parse(&["pod"], &[]).unwrap();
    let ended = Event::NetnsDestroyed(netns(POD, kind::NETNS_DESTROYED, hook::PUT_NET));
    assert_eq!(give(&mut engine, vec![ended, created()]).len(), 2);
    assert!(engine.excluded.is_empty() && !engine.parts.scheduler.knows(POD.inode));
}

#[test]
fn a_job_that_no_worker_takes_holds_up_neither_its_namespace_nor_its_poll() {
    let mut engine = engine(&[]);
    engine.poll_requested();
    let job = engine.next_job(50).unwrap();
    engine.job_lost(60, &job);
    assert!(!engine.finished_poll(60).unwrap().complete);
}

#[test]
fn the_beginning_of_a_connection_waits_for_its_port_and_is_told_only_if_that_is_wanted() {
    let mut engine = engine(&[]);
    engine.parts.ports = PortFilter { include: vec![4000], exclude: Vec::new() };
    give(&mut engine, vec![created()]);
    let begun = Transition { source_port: 0, ..transition(7, 2, 500) };
    assert!(give(&mut engine, vec![Event::TcpState(begun)]).is_empty());
    let events = give(&mut engine, vec![Event::TcpState(transition(2, 1, 0))]);
    let told: Vec<(u64, i32)> = events
        .iter()
        .map(|event| match &event.event {
            Some(Kind::TcpState(state)) => (event.sequence, state.new_state),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [(2, 2), (3, 1)]);
    // One whose port turns out to be another is not told, and not followed.
    let begun = Transition { sk: 0xbeef, ..begun };
    let known = Transition { sk: 0xbeef, source_port: 4001, ..transition(2, 1, 0) };
    let followed = engine.parts.connections.len();
    assert!(give(&mut engine, vec![Event::TcpState(begun), Event::TcpState(known)]).is_empty());
    assert_eq!(engine.parts.connections.len(), followed);
}

#[test]
fn what_a_polls_visit_read_becomes_an_event_of_its_namespace_unless_that_ended_since() {
    let mut engine = engine(&[]);
    engine.on_look(0, &look(&[("pod", POD)]));
    while let Some(job) = engine.next_job(1) {
        engine.on_done(1, done(&job, Ok(job.target.id)));
    }
    engine.poll_requested();
    engine.take_events();
    let jobs: Vec<Job> = std::iter::from_fn(|| engine.next_job(2)).collect();
    assert_eq!(jobs.len(), 2);
    assert!(jobs.iter().all(|job| job.counters));
    let reading = |active_opens| Reading {
        ktime_ns: 77,
        cost_ns: 1,
        counters: Box::new(NetnsCounters { active_opens: Some(active_opens), ..NetnsCounters::default() }),
    };
    let stranger = NetnsId { inode: 99, cookie: 99 };
    for (job, found, opens) in [(&jobs[0], jobs[0].target.id, 1), (&jobs[1], stranger, 2)] {
        engine.on_done(2, Done { counters: Some(reading(opens)), ..done(job, Ok(found)) });
    }
    let events = engine.take_events();
    let told: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.event {
            Some(Kind::NetnsCounters(counters)) => {
                Some((event.netns.as_ref()?.inode, event.monotonic_ns, counters.active_opens?))
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [(u64::from(jobs[0].target.id.inode), 77, 1)]);
}
