//! Proves that the registry tells each beginning and each end once, in whatever order it learns of them.

mod model;

use super::graves::REMEMBER_NS;
use super::*;
use crate::netns::{Door, Mount};

const OWN: NetnsId = NetnsId { inode: 1, cookie: 1 };
const KERNEL: Source = Source::KernelFunction;

fn id(inode: u32, cookie: u64) -> NetnsId {
    NetnsId { inode, cookie }
}

fn look(began: u64, ended: u64, inodes: &[u32]) -> Snapshot {
    let threads = inodes.iter().map(|&inode| (inode, Thread { pid: inode, tid: inode })).collect();
    Snapshot { began_ktime_ns: began, ended_ktime_ns: ended, threads: Some(threads), ..Snapshot::default() }
}

fn mounts(began: u64, mounts: &[(&str, u32)]) -> Snapshot {
    let mounts =
        mounts.iter().map(|(path, inode)| Mount { path: path.into(), device: 4, inode: *inode }).collect();
    Snapshot { began_ktime_ns: began, ended_ktime_ns: began + 1, mounts, ..Snapshot::default() }
}

/// A registry after its first look, which found these.
fn started(inodes: &[u32]) -> Registry {
    let mut registry = Registry::new(OWN, 2);
    assert_eq!(registry.apply(&look(10, 20, inodes)), []);
    registry
}

/// Changes in a short form: `+inode/cookie`, `-inode/cookie`, `=name`.
fn told(changes: impl IntoIterator<Item = Change>) -> Vec<String> {
    let tell = |change| match change {
        Change::Created { netns: Netns { id, .. }, .. } => format!("+{}/{}", id.inode, id.cookie),
        Change::Destroyed { netns: Netns { id, .. }, .. } => format!("-{}/{}", id.inode, id.cookie),
        Change::Renamed { netns, .. } => format!("={}", netns.name),
    };
    changes.into_iter().map(tell).collect()
}

fn creator(pid: u32) -> Creator {
    Creator { thread: Thread { pid, tid: pid }, comm: "ip".into() }
}

#[test]
fn whoever_was_there_at_start_is_known_and_not_new() {
    let registry = started(&[7, 8]);
    assert_eq!(registry.iter().len(), 3);
    assert_eq!(registry.get(7).unwrap().source, None);
    assert_eq!(&*registry.get(1).unwrap().name, "default");
}

#[test]
fn a_creation_and_an_end_are_told_with_creator_and_lifetime() {
    let mut registry = started(&[]);
    let created = registry.created(id(7, 70), 100, KERNEL, Some(creator(5)));
    let netns = Netns { id: id(7, 70), name: "netns:[7]".into() };
    assert_eq!(
        created,
        [Change::Created {
            netns: netns.clone(),
            at_ktime_ns: 100,
            source: KERNEL,
            creator: Some(creator(5))
        }]
    );
    let ended = registry.destroyed(id(7, 70), 350, KERNEL);
    let lifetime_ns = Some(250);
    assert_eq!(ended, [Change::Destroyed { netns, at_ktime_ns: 350, source: KERNEL, lifetime_ns }]);
    assert!(registry.get(7).is_none());
}

#[test]
fn a_creation_that_was_found_by_a_look_first_is_told_once() {
    let mut registry = started(&[]);
    assert_eq!(told(registry.apply(&look(100, 200, &[7]))), ["+7/0"]);
    assert_eq!(told(registry.created(id(7, 70), 150, KERNEL, Some(creator(5)))), [""; 0]);
    let entry = registry.get(7).unwrap();
    assert_eq!((entry.id.cookie, entry.created_ktime_ns), (70, Some(150)));
}

#[test]
fn a_creation_while_the_first_look_was_taken_is_told() {
    let mut registry = started(&[7]);
    assert_eq!(told(registry.created(id(7, 70), 15, KERNEL, None)), ["+7/70"]);
    assert_eq!(told(registry.created(id(7, 70), 15, KERNEL, None)), [""; 0]);
}

#[test]
fn the_same_creation_twice_is_told_once() {
    for cookie in [0, 70] {
        let mut registry = started(&[]);
        assert_eq!(registry.created(id(7, cookie), 100, KERNEL, None).len(), 1);
        assert_eq!(registry.created(id(7, cookie), 100, KERNEL, None), []);
    }
}

#[test]
fn the_same_end_twice_is_told_once() {
    for cookie in [0, 70] {
        let mut registry = started(&[7]);
        assert_eq!(registry.destroyed(id(7, cookie), 100, KERNEL).len(), 1);
        assert_eq!(registry.destroyed(id(7, cookie), 100, KERNEL), []);
        assert_eq!(registry.counts().stale, 1);
    }
}

#[test]
fn an_end_whose_creation_was_lost_is_told_without_lifetime() {
    let mut registry = started(&[]);
    let changes = registry.destroyed(id(7, 70), 100, KERNEL);
    assert!(matches!(changes[..], [Change::Destroyed { lifetime_ns: None, .. }]), "{changes:?}");
    assert_eq!(registry.counts().unknown_ends, 1);
}

#[test]
fn a_creation_told_after_the_end_raises_nobody() {
    for cookie in [0, 70] {
        let mut registry = started(&[]);
        assert_eq!(registry.destroyed(id(7, cookie), 200, KERNEL).len(), 1);
        assert_eq!(registry.created(id(7, cookie), 100, KERNEL, None).len(), 1);
        assert!(registry.get(7).is_none());
        assert_eq!(registry.counts().late_creations, 1);
    }
}

#[test]
fn an_inode_under_another_cookie_is_a_death_and_a_birth() {
    let mut registry = started(&[]);
    registry.created(id(7, 70), 100, KERNEL, None);
    assert_eq!(told(registry.created(id(7, 71), 200, KERNEL, None)), ["-7/70", "+7/71"]);
    assert_eq!(told(registry.seen(id(7, 72), 300)), ["-7/71", "+7/72"]);
    assert_eq!(told(registry.verified(id(7, 73), 400)), ["-7/72", "+7/73"]);
    assert_eq!(registry.counts().replaced, 3);
    assert_eq!(told(registry.destroyed(id(7, 71), 250, KERNEL)), [""; 0]);
}

#[test]
fn without_cookies_a_creation_after_the_first_sight_is_a_death_and_a_birth() {
    let mut registry = started(&[]);
    registry.created(id(7, 0), 100, KERNEL, None);
    assert_eq!(told(registry.created(id(7, 0), 200, KERNEL, None)), ["-7/0", "+7/0"]);
}

#[test]
fn a_predecessor_that_never_showed_its_cookie_is_parted_from_the_newborn() {
    let mut registry = started(&[7]);
    registry.verified(id(7, 71), 300);
    assert_eq!(told(registry.created(id(7, 71), 200, KERNEL, None)), ["-7/71", "+7/71"]);
    let mut registry = started(&[7]);
    registry.verified(id(7, 71), 300);
    assert_eq!(told(registry.destroyed(id(7, 70), 150, KERNEL)), ["-7/70"]);
    assert_eq!(told(registry.created(id(7, 71), 200, KERNEL, None)), ["+7/71"]);
}

#[test]
fn what_was_true_before_a_death_does_not_raise_the_dead() {
    let mut registry = started(&[]);
    registry.created(id(7, 70), 100, KERNEL, None);
    registry.destroyed(id(7, 70), 200, KERNEL);
    assert_eq!(registry.apply(&look(150, 250, &[7])), []);
    assert_eq!(registry.seen(id(7, 70), 190), []);
    assert_eq!(registry.verified(id(7, 70), 190), []);
    assert_eq!(registry.counts().stale, 3);
    assert_eq!(told(registry.apply(&look(260, 270, &[7]))), ["+7/0"]);
}

#[test]
fn what_was_true_of_a_predecessor_does_not_replace_the_living() {
    let mut registry = started(&[]);
    registry.created(id(7, 71), 200, KERNEL, None);
    assert_eq!(registry.verified(id(7, 70), 150), []);
    assert_eq!(registry.seen(id(7, 70), 150), []);
    assert_eq!(registry.get(7).unwrap().id.cookie, 71);
}

#[test]
fn a_look_that_began_before_a_birth_does_not_count_against_it() {
    let mut registry = started(&[]);
    registry.created(id(7, 70), 150, KERNEL, None);
    for _ in 0..5 {
        assert_eq!(registry.apply(&look(140, 160, &[])), []);
    }
    assert_eq!(registry.untraced().count(), 0);
}

#[test]
fn who_leaves_no_trace_in_two_looks_is_given_up_and_may_come_back() {
    let mut registry = started(&[7]);
    registry.verified(id(7, 70), 25);
    assert_eq!(registry.apply(&look(100, 110, &[])), []);
    assert_eq!(registry.untraced().collect::<Vec<_>>(), [id(7, 70)]);
    let changes = registry.apply(&look(200, 210, &[]));
    assert_eq!(told(changes), ["-7/70"]);
    assert_eq!(registry.counts().given_up, 1);
    assert_eq!(told(registry.seen(id(7, 70), 300)), ["+7/70"]);
}

#[test]
fn a_trace_between_two_looks_starts_the_count_anew() {
    let mut registry = started(&[7]);
    for began in [100, 200, 300, 400] {
        assert_eq!(registry.apply(&look(began, began + 10, &[])), []);
        registry.seen(id(7, 70), began + 50);
    }
    assert!(registry.get(7).is_some());
}

#[test]
fn a_handle_that_opens_keeps_and_one_that_is_stale_ends() {
    let mut registry = started(&[]);
    registry.created(id(7, 70), 50, KERNEL, None);
    for began in [100, 200, 300] {
        assert_eq!(registry.apply(&look(began, began + 10, &[])), []);
        assert_eq!(registry.liveness(id(7, 70), true, began + 20, Source::Reconcile), None);
    }
    assert_eq!(registry.liveness(id(7, 71), false, 400, Source::Reconcile), None);
    let end = registry.liveness(id(7, 70), false, 400, Source::Cleanup);
    assert_eq!(told(end), ["-7/70"]);
    assert_eq!(told(registry.created(id(7, 71), 390, KERNEL, None)), ["+7/71"]);
}

#[test]
fn an_unshare_announces_only_whom_nobody_knows() {
    let mut registry = Registry::new(OWN, 2);
    assert_eq!(registry.unshared(id(6, 60), 5, Some(creator(3))), []);
    assert_eq!(registry.apply(&look(10, 20, &[6, 7])), []);
    assert_eq!(registry.unshared(id(7, 70), 100, Some(creator(4))), []);
    assert_eq!(registry.unshared(OWN, 100, Some(creator(4))), []);
    assert_eq!(told(registry.unshared(id(8, 80), 100, Some(creator(5)))), ["+8/80"]);
    assert_eq!(told(registry.unshared(id(8, 80), 110, Some(creator(5)))), [""; 0]);
    assert_eq!(told(registry.unshared(id(8, 81), 120, Some(creator(5)))), ["-8/80", "+8/81"]);
    assert_eq!(registry.get(8).unwrap().created_ktime_ns, Some(120));
}

#[test]
fn nothing_ends_our_own_namespace() {
    let mut registry = started(&[]);
    assert_eq!(registry.destroyed(OWN, 100, KERNEL), []);
    assert_eq!(registry.created(id(1, 9), 100, KERNEL, None), []);
    assert_eq!(registry.seen(id(1, 9), 100), []);
    assert_eq!(registry.liveness(OWN, false, 100, Source::Reconcile), None);
    for began in [100, 200, 300] {
        assert_eq!(registry.apply(&look(began, began, &[])), []);
    }
    assert_eq!(registry.target(1).unwrap(), Target { id: OWN, doors: vec![Door::Own] });
}

#[test]
fn a_name_comes_from_a_mount_and_stays_while_it_can() {
    let mut registry = started(&[]);
    registry.created(id(7, 70), 100, KERNEL, None);
    assert_eq!(told(registry.apply(&mounts(200, &[("/run/netns/blue", 7)]))), ["=blue"]);
    let two = [("/run/netns/azure", 7), ("/run/netns/blue", 7)];
    assert_eq!(registry.apply(&mounts(300, &two)), []);
    assert_eq!(told(registry.apply(&mounts(400, &two[..1]))), ["=azure"]);
    assert_eq!(told(registry.apply(&mounts(500, &[]))), ["=netns:[7]"]);
}

#[test]
fn a_namespace_found_by_its_mount_is_created_with_its_name() {
    let mut registry = started(&[]);
    let changes = registry.apply(&mounts(200, &[("/run/netns/blue", 7)]));
    assert!(matches!(&changes[..], [Change::Created { netns, .. }] if &*netns.name == "blue"), "{changes:?}");
}

#[test]
fn a_mount_over_an_old_name_renames_both() {
    let mut registry = started(&[]);
    registry.apply(&mounts(200, &[("/run/netns/blue", 7), ("/run/netns/red", 8)]));
    let changes = registry.apply(&mounts(300, &[("/run/netns/blue", 8)]));
    assert_eq!(told(changes), ["=netns:[7]", "=blue"]);
}

#[test]
fn our_own_namespace_is_default_also_under_a_mount() {
    let mut registry = started(&[]);
    assert_eq!(registry.apply(&mounts(200, &[("/run/netns/host", 1)])), []);
    assert_eq!(&*registry.get(1).unwrap().name, "default");
}

#[test]
fn names_are_fit_for_a_line_of_text() {
    use std::os::unix::ffi::OsStringExt;
    let mut registry = started(&[]);
    let path = std::ffi::OsString::from_vec(b"/run/netns/a\nb\xff".to_vec());
    let mut snapshot = mounts(200, &[("", 7)]);
    snapshot.mounts[0].path = path.into();
    registry.apply(&snapshot);
    assert_eq!(&*registry.get(7).unwrap().name, "a\\nb\\xff");
}

#[test]
fn doors_are_the_handle_then_mounts_then_threads() {
    let mut registry = started(&[7]);
    let thread = Door::Thread(Thread { pid: 7, tid: 7 });
    assert_eq!(registry.target(7).unwrap().doors, std::slice::from_ref(&thread));
    registry.verified(id(7, 70), 30);
    registry.apply(&mounts(200, &[("/run/netns/blue", 7)]));
    let mount = Door::Mount("/run/netns/blue".into());
    assert_eq!(registry.target(7).unwrap().doors, [Door::Handle, mount, thread]);
    registry.gone(id(7, 70));
    assert_eq!(registry.target(7).unwrap().doors, [Door::Handle]);
}

#[test]
fn a_creator_is_a_door_until_a_look_finds_better() {
    let mut registry = started(&[]);
    registry.created(id(7, 0), 100, KERNEL, Some(creator(5)));
    assert_eq!(registry.target(7).unwrap().doors, [Door::Thread(Thread { pid: 5, tid: 5 })]);
    registry.apply(&look(200, 210, &[7]));
    assert_eq!(registry.target(7).unwrap().doors, [Door::Thread(Thread { pid: 7, tid: 7 })]);
}

#[test]
fn a_mismatch_takes_the_doors_of_one_and_makes_the_other_known() {
    let mut registry = started(&[7]);
    let changes = registry.mismatched(id(7, 0), id(9, 90), 100);
    assert_eq!(told(changes), ["+9/90"]);
    assert_eq!(registry.target(7).unwrap().doors, []);
}

#[test]
fn a_successor_with_the_same_inode_takes_over_doors_and_name() {
    let mut registry = started(&[]);
    registry.apply(&mounts(200, &[("/run/netns/blue", 7)]));
    registry.verified(id(7, 70), 210);
    let changes = registry.mismatched(id(7, 70), id(7, 71), 300);
    assert_eq!(told(changes), ["-7/70", "+7/71"]);
    assert_eq!(registry.target(7).unwrap().doors, [Door::Handle, Door::Mount("/run/netns/blue".into())]);
    assert_eq!(&*registry.get(7).unwrap().name, "blue");
    assert_eq!(registry.apply(&mounts(400, &[("/run/netns/blue", 7)])), []);
}

#[test]
fn the_dead_are_forgotten_after_a_minute() {
    let mut registry = started(&[]);
    registry.destroyed(id(7, 70), 100, KERNEL);
    registry.apply(&look(100 + REMEMBER_NS, 101 + REMEMBER_NS, &[]));
    assert_eq!(registry.graves.len(), 1);
    registry.apply(&look(200 + REMEMBER_NS, 201 + REMEMBER_NS, &[]));
    assert_eq!(registry.graves.len(), 0);
}

#[test]
fn the_dead_are_forgotten_also_without_looks() {
    let mut registry = started(&[]);
    for n in 1..100_000 {
        registry.destroyed(id(n, u64::from(n)), u64::from(n) * REMEMBER_NS / 1000, KERNEL);
    }
    assert!(registry.graves.len() < 10_000, "{}", registry.graves.len());
}

#[test]
fn an_end_is_told_by_the_name_that_its_mount_gave() {
    let mut registry = started(&[]);
    registry.created(id(7, 70), 100, KERNEL, None);
    registry.apply(&mounts(200, &[("/run/netns/blue", 7)]));
    registry.apply(&mounts(300, &[]));
    assert_eq!(&*registry.get(7).unwrap().name, "netns:[7]");
    let ended = registry.destroyed(id(7, 70), 400, KERNEL);
    assert!(matches!(&ended[..], [Change::Destroyed { netns, .. }] if &*netns.name == "blue"), "{ended:?}");
}

#[test]
fn a_task_that_enters_makes_known_a_namespace_that_nobody_told_of_and_is_a_door() {
    let mut registry = started(&[]);
    assert_eq!(told(registry.entered(id(7, 70), 100, Some(&creator(5)))), ["+7/70"]);
    assert_eq!(registry.get(7).unwrap().source, Some(Source::Setns));
    assert_eq!(registry.target(7).unwrap().doors, [Door::Handle, Door::Thread(Thread { pid: 5, tid: 5 })]);
    assert_eq!(told(registry.entered(id(7, 70), 200, Some(&creator(6)))), [""; 0]);
    assert_eq!(told(registry.destroyed(id(7, 70), 300, KERNEL)), ["-7/70"]);
    assert_eq!(told(registry.entered(id(7, 70), 250, Some(&creator(6)))), [""; 0], "told after its end");
}

#[test]
fn a_namespace_that_nothing_leads_into_is_counted_as_unreachable() {
    let mut registry = started(&[7]);
    registry.created(id(8, 80), 100, KERNEL, None);
    registry.seen(id(9, 0), 100);
    let count = |registry: &Registry, handles| registry.unreachable(handles).count();
    assert_eq!((count(&registry, true), count(&registry, false)), (1, 2));
    registry.apply(&mounts(200, &[("/run/netns/blue", 9)]));
    assert_eq!((count(&registry, true), count(&registry, false)), (0, 1));
}

#[test]
fn what_the_kernel_lists_comes_with_its_cookie() {
    let mut registry = started(&[7]);
    let listed = vec![id(7, 70), id(8, 80)];
    let snapshot = Snapshot {
        began_ktime_ns: 100,
        ended_ktime_ns: 110,
        listed,
        threads: Some(Vec::new()),
        mounts: Vec::new(),
    };
    assert_eq!(told(registry.apply(&snapshot)), ["+8/80"]);
    assert_eq!((registry.get(7).unwrap().id, registry.untraced().count()), (id(7, 70), 0));
    // Another cookie under the same inode is another namespace.
    let listed = vec![id(7, 71), id(8, 80)];
    let snapshot = Snapshot {
        began_ktime_ns: 200,
        ended_ktime_ns: 210,
        listed,
        threads: Some(Vec::new()),
        mounts: Vec::new(),
    };
    assert_eq!(told(registry.apply(&snapshot)), ["-7/70", "+7/71"]);
}

#[test]
fn a_process_that_was_met_is_a_door_into_a_namespace_that_is_new_and_never_raises_the_dead() {
    let mut registry = started(&[]);
    let thread = Thread { pid: 5, tid: 5 };
    assert_eq!(told(registry.met(7, thread, (100, 110))), ["+7/0"]);
    assert_eq!(registry.target(7).unwrap().doors, [Door::Thread(thread)]);
    assert_eq!(registry.get(7).unwrap().source, Some(Source::Reconcile));
    // The same that the kernel's word is about, which comes late.
    assert!(registry.created(id(7, 70), 90, KERNEL, Some(creator(4))).is_empty());
    assert_eq!(told(registry.destroyed(id(7, 70), 200, KERNEL)), ["-7/70"]);
    assert!(registry.met(7, thread, (150, 210)).is_empty(), "it may have been met before its end");
    assert!(registry.met(1, thread, (300, 310)).is_empty(), "the own one is no news");
    assert_eq!(registry.target(1).unwrap().doors, [Door::Own]);
}
