use super::*;

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;
const SK: u64 = 0xffff_8880_0000_0000;

fn settings() -> Settings {
    Settings {
        frequency_ns: 10 * S,
        jitter_pct: 0,
        workers: 3,
        lookup_delay_ns: MS,
        lookups_per_request: 4,
        lookups_per_s: 0,
        merge_wait_ns: 1000 * MS,
    }
}

fn lookup(cookie: u64) -> Lookup {
    Lookup {
        family: 2,
        source: [0; 16],
        destination: [0; 16],
        source_port: 1,
        destination_port: 2,
        interface: 0,
        cookie,
        sk: SK + cookie,
        event_sequence: 100 + cookie,
        owner: None,
    }
}

fn answer(id: u64, rows: u64, seen: &[u64]) -> Completion {
    let seen = seen.iter().copied().collect();
    Completion { id, complete: true, fault: None, rows, duration_ns: 200_000, seen }
}

/// A scheduler with these namespaces whose first poll is over.
fn idle(settings: Settings, netns: &[u32]) -> Scheduler {
    let mut scheduler = Scheduler::new(settings, 0, 1);
    for inode in netns {
        scheduler.netns_added(0, *inode, false);
    }
    while let Some(request) = scheduler.next(0) {
        scheduler.completed(0, answer(request.id, 0, &[]));
    }
    scheduler.told_until(0);
    assert!(scheduler.next(0).is_none());
    assert!(scheduler.finished_polls(0).is_some());
    scheduler
}

fn cookies(request: &DumpRequest) -> Vec<u64> {
    let Scope::Lookups(lookups) = &request.scope else {
        panic!("expected lookups, got {request:?}");
    };
    let mut cookies: Vec<u64> = lookups.iter().map(|lookup| lookup.cookie).collect();
    cookies.sort_unstable();
    cookies
}

#[test]
fn a_poll_dumps_every_namespace_once_and_is_over_when_the_events_of_its_time_are_told() {
    let mut scheduler = Scheduler::new(settings(), 0, 1);
    for inode in [7, 8, 9] {
        scheduler.netns_added(0, inode, false);
    }
    let mut asked = Vec::new();
    while let Some(request) = scheduler.next(5) {
        assert_eq!((request.reason, request.poll, &request.scope), (Reason::Poll, 1, &Scope::Dump));
        asked.push(request.netns_inode);
        scheduler.completed(10, answer(request.id, 2, &[]));
    }
    assert_eq!(asked, [7, 8, 9]);
    assert_eq!(scheduler.finished_polls(11), None);
    assert_eq!(scheduler.deadline(), 10 + S);
    assert!(scheduler.waits_for_events());
    scheduler.told_until(9);
    assert_eq!((scheduler.next(20), scheduler.finished_polls(20)), (None, None));
    scheduler.told_until(10);
    assert_eq!((scheduler.deadline(), scheduler.waits_for_events()), (0, false));
    assert_eq!(scheduler.next(20), None);
    let finished = scheduler.finished_polls(20).unwrap();
    assert_eq!((finished.number, finished.complete, finished.rows, finished.netns), (1, true, 6, 3));
    assert_eq!(scheduler.deadline(), 5 + 10 * S);
    assert_eq!(scheduler.next(5 + 10 * S).unwrap().poll, 2);
}

#[test]
fn a_trigger_waits_for_its_siblings_and_asks_only_its_namespace_by_lookup() {
    let mut scheduler = idle(settings(), &[7, 8]);
    scheduler.established(S, 7, lookup(1));
    scheduler.established(S + 10, 7, lookup(2));
    assert_eq!(scheduler.next(S + 10), None);
    assert_eq!(scheduler.deadline(), S + MS);
    let request = scheduler.next(S + MS).unwrap();
    assert_eq!((request.netns_inode, request.reason, request.poll), (7, Reason::TcpState, 0));
    assert_eq!(cookies(&request), [1, 2]);
    assert_eq!(scheduler.next(S + MS), None);
}

#[test]
fn a_socket_that_closed_before_it_was_asked_for_is_not_asked_for() {
    let mut scheduler = idle(settings(), &[7]);
    scheduler.established(S, 7, lookup(1));
    scheduler.closed(7, SK + 1);
    assert_eq!(scheduler.next(S + MS), None);
    assert_eq!(scheduler.decisions().closed_before_asked, 1);
}

#[test]
fn triggers_of_a_busy_namespace_wait_and_others_go_on() {
    let mut scheduler = idle(settings(), &[7, 8]);
    for cookie in 1..=6 {
        scheduler.established(S, 7, lookup(cookie));
    }
    scheduler.established(S, 8, lookup(50));
    let first = scheduler.next(S + MS).unwrap();
    assert_eq!(cookies(&first).len(), 4);
    assert_eq!(scheduler.next(S + MS).unwrap().netns_inode, 8);
    assert_eq!(scheduler.next(S + MS), None);
    scheduler.completed(S + MS, answer(first.id, 4, &[]));
    let second = scheduler.next(S + 2 * MS).unwrap();
    assert_eq!((second.netns_inode, cookies(&second).len()), (7, 2));
}

#[test]
fn namespaces_take_turns_however_many_triggers_one_of_them_has() {
    let mut scheduler = idle(Settings { workers: 1, ..settings() }, &[7, 8]);
    let mut now = S;
    let mut asked = Vec::new();
    for cookie in 0..20 {
        scheduler.established(now, 7, lookup(1 + cookie));
    }
    scheduler.established(now, 8, lookup(1000));
    for _ in 0..4 {
        now += 2 * MS;
        let request = scheduler.next(now).unwrap();
        asked.push(request.netns_inode);
        scheduler.completed(now, answer(request.id, 1, &[]));
    }
    assert_eq!(asked, [7, 8, 7, 7]);
}

#[test]
fn a_poll_leaves_one_worker_for_triggers_and_triggers_do_not_starve_the_poll() {
    let mut scheduler = idle(settings(), &(1..=20).collect::<Vec<u32>>());
    let start = 11 * S;
    assert_eq!(scheduler.next(start).unwrap().poll, 2);
    assert_eq!(scheduler.next(start).unwrap().poll, 2);
    assert_eq!(scheduler.next(start), None);
    assert_ne!(scheduler.deadline(), 0, "a full house waits for a completion");
    scheduler.established(start, 5, lookup(1));
    assert_eq!(scheduler.next(start + MS).unwrap().reason, Reason::TcpState);

    let mut scheduler = idle(Settings { workers: 1, ..settings() }, &(1..=20).collect::<Vec<u32>>());
    let mut polled = 0;
    for turn in 0..40 {
        let now = start + turn * 2 * MS;
        for inode in 1..=20 {
            scheduler.established(now - MS, inode, lookup(turn * 100 + u64::from(inode)));
        }
        let request = scheduler.next(now).unwrap();
        polled += u32::from(request.poll != 0);
        scheduler.completed(now, answer(request.id, 1, &[]));
    }
    assert!(polled >= 4, "{polled} of 40");
}

#[test]
fn a_socket_that_opens_during_the_dump_and_is_not_in_it_is_merged_into_the_poll() {
    let mut scheduler = Scheduler::new(settings(), 0, 1);
    scheduler.netns_added(0, 7, false);
    let dump = scheduler.next(0).unwrap();
    for cookie in [1, 2, 3] {
        scheduler.established(10, 7, lookup(cookie));
    }
    scheduler.closed(7, SK + 3);
    scheduler.completed(20, answer(dump.id, 1, &[1]));
    // What was drained before the dump's end says nothing of its time; the event of the fourth arrives late.
    scheduler.told_until(19);
    assert!(scheduler.next(MS).is_none());
    scheduler.established(500 * MS, 7, lookup(4));
    let triggered = scheduler.next(502 * MS).unwrap();
    assert_eq!((triggered.poll, cookies(&triggered)), (0, vec![1, 2, 4]));
    scheduler.completed(502 * MS, answer(triggered.id, 3, &[]));
    assert!(scheduler.next(503 * MS).is_none() && scheduler.waits_for_events());
    scheduler.told_until(20);
    let merge = scheduler.next(503 * MS).unwrap();
    assert_eq!((merge.poll, merge.reason, cookies(&merge)), (1, Reason::Poll, vec![2, 4]));
    assert_eq!(scheduler.finished_polls(504 * MS), None);
    scheduler.completed(504 * MS, answer(merge.id, 2, &[]));
    let finished = scheduler.finished_polls(504 * MS).unwrap();
    assert_eq!((finished.rows, finished.complete), (3, true));
    assert_eq!(scheduler.decisions().merged, 2);
}

#[test]
fn a_socket_without_a_cookie_is_looked_up_by_what_its_poll_has_already() {
    let mut scheduler = Scheduler::new(settings(), 0, 1);
    scheduler.netns_added(0, 7, false);
    let dump = scheduler.next(0).unwrap();
    for sk in [SK + 1, SK + 2] {
        scheduler.established(10, 7, Lookup { sk, ..lookup(0) });
    }
    scheduler.closed(7, SK + 1);
    scheduler.completed(20, answer(dump.id, 2, &[11, 12]));
    scheduler.told_until(20);
    let merge = scheduler.next(30).unwrap();
    let Scope::Lookups(lookups) = &merge.scope else { panic!("{merge:?}") };
    assert_eq!((merge.poll, lookups.len(), lookups[0].sk), (1, 1, SK + 2));
    assert_eq!(merge.seen, foldhash::HashSet::from_iter([11, 12]));
}

#[test]
fn a_reader_that_says_nothing_holds_up_a_poll_for_the_longest_wait_and_makes_it_incomplete() {
    let mut scheduler = Scheduler::new(settings(), 0, 1);
    scheduler.netns_added(0, 7, false);
    let dump = scheduler.next(0).unwrap();
    scheduler.established(10, 7, lookup(2));
    scheduler.completed(20, answer(dump.id, 1, &[1]));
    let triggered = scheduler.next(2 * MS).unwrap();
    scheduler.completed(2 * MS, answer(triggered.id, 1, &[]));
    assert_eq!((scheduler.next(19 + S), scheduler.deadline()), (None, 20 + S));
    let merge = scheduler.next(20 + S).unwrap();
    assert_eq!((merge.poll, cookies(&merge)), (1, vec![2]));
    scheduler.completed(30 + S, answer(merge.id, 1, &[]));
    assert!(!scheduler.finished_polls(30 + S).unwrap().complete);
}

#[test]
fn a_dump_replaces_lookups_where_it_is_cheaper() {
    let mut scheduler = idle(Settings { lookups_per_request: 1000, ..settings() }, &[7]);
    for cookie in 1..=500 {
        scheduler.established(S, 7, lookup(cookie));
    }
    assert_eq!(scheduler.next(S + MS).unwrap().scope, Scope::Dump);
    assert_eq!(scheduler.decisions().dumps_instead, 1);
}

#[test]
fn a_listener_leads_to_a_dump_of_listeners_and_a_late_namespace_to_a_full_one() {
    let mut scheduler = idle(settings(), &[7]);
    scheduler.listening(S, 7);
    assert_eq!(scheduler.next(S + MS).unwrap().scope, Scope::Listeners);
    scheduler.netns_added(S, 8, true);
    let request = scheduler.next(S + 2 * MS).unwrap();
    assert_eq!((request.netns_inode, request.scope, request.reason), (8, Scope::Dump, Reason::NetnsCreated));
}

#[test]
fn lookups_over_the_budget_are_shed_and_counted_and_the_bucket_fills_again() {
    let mut scheduler = idle(Settings { lookups_per_s: 3, lookups_per_request: 100, ..settings() }, &[7]);
    for cookie in 1..=5 {
        scheduler.established(S, 7, lookup(cookie));
    }
    assert_eq!(scheduler.decisions().shed, 2);
    assert_eq!(cookies(&scheduler.next(S + MS).unwrap()).len(), 3);
    scheduler.established(2 * S, 7, lookup(9));
    assert_eq!(scheduler.decisions().shed, 2);
}

#[test]
fn a_namespace_that_goes_away_is_neither_polled_nor_waited_for() {
    let mut scheduler = Scheduler::new(Settings { workers: 1, ..settings() }, 0, 1);
    for inode in [7, 8] {
        scheduler.netns_added(0, inode, false);
    }
    let first = scheduler.next(0).unwrap();
    scheduler.netns_removed(7);
    scheduler.netns_removed(8);
    scheduler.completed(5, Completion { id: first.id, ..Completion::default() });
    assert_eq!(scheduler.next(5), None);
    assert!(scheduler.finished_polls(5).unwrap().complete);
}

#[test]
fn a_failed_dump_makes_the_poll_incomplete() {
    let mut scheduler = Scheduler::new(settings(), 0, 1);
    scheduler.netns_added(0, 7, false);
    let request = scheduler.next(0).unwrap();
    scheduler.completed(5, Completion { id: request.id, ..Completion::default() });
    assert!(!scheduler.finished_polls(5).unwrap().complete);
}

#[test]
fn requested_polls_begin_at_once_share_a_start_and_leave_the_clock_alone() {
    let mut scheduler = idle(settings(), &[7]);
    assert_eq!((scheduler.poll_requested(), scheduler.poll_requested()), (2, 2));
    assert_eq!(scheduler.deadline(), 0);
    let request = scheduler.next(S).unwrap();
    assert_eq!((request.poll, request.reason), (2, Reason::Requested));
    assert_eq!(scheduler.poll_requested(), 3, "a poll that has begun is not the one asked for");
    scheduler.completed(S, answer(request.id, 0, &[]));
    scheduler.told_until(S);
    assert_eq!(scheduler.next(S + 10 * MS), None);
    assert_eq!(scheduler.finished_polls(S + 10 * MS).unwrap().number, 2);
    assert_eq!(scheduler.next(S + 10 * MS).unwrap().poll, 3);
}

#[test]
fn jitter_moves_the_start_within_its_share() {
    let mut seen = (u64::MAX, 0);
    for seed in 1..200 {
        let mut scheduler = Scheduler::new(Settings { jitter_pct: 10, ..settings() }, 0, seed);
        assert_eq!(scheduler.next(0), None);
        assert!(scheduler.finished_polls(0).is_some());
        let next = scheduler.deadline();
        assert!((9_000 * MS..11_000 * MS).contains(&next), "{next}");
        seen = (seen.0.min(next), seen.1.max(next));
    }
    assert!(seen.0 < 9_200 * MS && seen.1 > 10_800 * MS, "{seen:?}");
}

#[test]
fn a_loss_of_events_dumps_every_namespace() {
    let mut scheduler = idle(settings(), &[7, 8]);
    scheduler.all_uncertain(S);
    for inode in [7, 8] {
        let request = scheduler.next(S + MS).unwrap();
        assert_eq!(
            (request.netns_inode, request.scope, request.reason),
            (inode, Scope::Dump, Reason::TcpState)
        );
    }
}

#[test]
fn a_flood_that_keeps_losing_events_does_not_keep_everything_being_dumped() {
    let mut scheduler = idle(settings(), &[1, 2]);
    let mut dumps = 0;
    for now in (S..7 * S).step_by(2_000_000) {
        scheduler.all_uncertain(now);
        while let Some(request) = scheduler.next(now) {
            assert_eq!(request.scope, Scope::Dump);
            scheduler.completed(now, answer(request.id, 0, &[]));
            dumps += 1;
        }
    }
    assert_eq!(dumps, 2 * 6, "each namespace once a second");
    // The last loss is not forgotten.
    let last = scheduler.deadline();
    assert!(last <= 8 * S, "{last}");
    assert!(scheduler.next(last).is_none() && scheduler.next(last + MS).is_some());
}

#[test]
fn what_a_dead_namespace_cost_is_not_kept() {
    let mut scheduler = idle(settings(), &[1]);
    let before = scheduler.cost.of_all_dumps_ns();
    scheduler.netns_added(S, 2, true);
    let request = scheduler.next(S + MS).unwrap();
    scheduler.netns_removed(2);
    scheduler.completed(S + 2 * MS, answer(request.id, 5, &[]));
    assert_eq!(scheduler.cost.of_all_dumps_ns(), before);
}

#[test]
fn a_poll_is_complete_without_a_namespace_that_was_dying_when_it_was_asked() {
    let mut scheduler = idle(settings(), &[1, 2]);
    scheduler.poll_requested();
    let requests = [scheduler.next(S).unwrap(), scheduler.next(S).unwrap()];
    scheduler.completed(S, Completion { id: requests[0].id, ..Completion::default() });
    scheduler.netns_removed(requests[0].netns_inode);
    scheduler.completed(S, answer(requests[1].id, 1, &[]));
    scheduler.told_until(S);
    assert!(scheduler.next(S).is_none());
    assert!(scheduler.finished_polls(S).unwrap().complete);
}
