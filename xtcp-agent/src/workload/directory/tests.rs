use super::*;
use crate::workload::{Container, Pod};

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const PAUSE: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";
const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";

const BLUE: NetnsId = NetnsId { inode: 7, cookie: 70 };

fn directory() -> Directory {
    Directory::detached()
}

fn see(directory: &Directory, at: u64, paths: &[String]) {
    let places = paths.iter().map(|path| Place::of_path(path)).collect();
    directory.namespaces_seen(at, vec![Members { inode: BLUE.inode, places, of_host: false }]);
}

fn docker(id: &str) -> String {
    format!("/docker/{id}")
}

fn of_pod(id: &str) -> String {
    format!("/kubepods/burstable/pod{UID}/{id}")
}

fn told(id: &str, name: &str) -> ContainerFacts {
    let container = Container {
        id: id.to_owned(),
        name: name.to_owned(),
        image: format!("{name}:1"),
        runtime: "docker".to_owned(),
    };
    ContainerFacts { container, source: Source::Docker, ..ContainerFacts::default() }
}

fn told_sandbox() -> ContainerFacts {
    ContainerFacts { is_sandbox: true, pod_uid: Some(UID.to_owned()), source: Source::Cri, ..told(PAUSE, "") }
}

fn told_pod() -> PodFacts {
    let pod = Pod {
        name: "web-7d".to_owned(),
        namespace: "shop".to_owned(),
        uid: UID.to_owned(),
        labels: Vec::new(),
    };
    PodFacts { pod, opted_out: false, source: Source::Cri }
}

#[test]
fn the_path_alone_tells_the_id_and_the_engine_adds_names_whichever_comes_first() {
    for engine_first in [true, false] {
        let directory = directory();
        if engine_first {
            directory.learn(vec![told(A, "web")], Vec::new());
        }
        see(&directory, 1, &[docker(A)]);
        if !engine_first {
            let known = directory.of_netns(BLUE).unwrap();
            assert_eq!((known.source, known.container.as_ref().unwrap().name.as_str()), (Source::Cgroup, ""));
            assert_eq!(known.display_name().as_deref(), Some("aaaaaaaaaaaa"));
            assert_eq!(directory.take_changes().netns, [BLUE.inode]);
            directory.learn(vec![told(A, "web")], Vec::new());
        }
        let known = directory.of_netns(BLUE).unwrap();
        assert_eq!(known.container.as_ref(), Some(&told(A, "web").container));
        assert_eq!((known.source, known.cgroup.as_deref()), (Source::Docker, Some(docker(A).as_str())));
        assert_eq!(known.display_name().as_deref(), Some("web"));
        assert_eq!(directory.of_cgroup(&docker(A)).unwrap().container, known.container);
        assert_eq!(directory.take_changes().netns, [BLUE.inode]);
        assert_eq!(directory.take_changes(), Changes::default());
    }
}

#[test]
fn a_cgroup_that_was_asked_for_before_the_engine_told_gets_its_name_too() {
    let directory = directory();
    assert_eq!(directory.of_cgroup(&of_pod(A)).unwrap().source, Source::Cgroup);
    directory.learn(vec![told(A, "web")], vec![told_pod()]);
    let known = directory.of_cgroup(&of_pod(A)).unwrap();
    assert_eq!(known.container.as_ref().unwrap().name, "web");
    assert_eq!(known.pod.as_ref().unwrap().to_string(), "shop/web-7d");
}

#[test]
fn a_pods_pause_container_is_not_its_container() {
    let directory = directory();
    directory.learn(vec![told_sandbox()], vec![told_pod()]);
    see(&directory, 1, &[of_pod(PAUSE)]);
    let known = directory.of_netns(BLUE).unwrap();
    assert_eq!((&known.container, known.display_name().as_deref()), (&None, Some("shop/web-7d")));
    assert_eq!(directory.of_cgroup(&of_pod(PAUSE)).unwrap().container, None);
}

/// Another may have connections before anybody could tell of it.
#[test]
fn a_namespace_of_a_pod_is_no_containers_also_where_only_one_was_met() {
    let directory = directory();
    for members in [&[of_pod(A), of_pod(B)][..], &[of_pod(PAUSE), of_pod(A)], &[of_pod(A)]] {
        see(&directory, 1, members);
        let known = directory.of_netns(BLUE).unwrap();
        assert_eq!(
            (&known.container, &known.cgroup, known.pod.as_ref().unwrap().uid.as_str()),
            (&None, &None, UID)
        );
    }
    directory.learn(vec![told_sandbox(), told(A, "web")], vec![told_pod()]);
    let known = directory.of_netns(BLUE).unwrap();
    assert_eq!((&known.container, known.pod.as_ref().unwrap().name.as_str()), (&None, "web-7d"));
    assert_eq!(directory.of_cgroup(&of_pod(A)).unwrap().container.as_ref().unwrap().name, "web");
}

#[test]
fn a_namespace_of_strangers_is_nobodys() {
    let directory = directory();
    see(&directory, 1, &[docker(A), docker(B)]);
    assert_eq!(directory.of_netns(BLUE), None);
    let units = ["/system.slice/a.service", "/system.slice/b.service"].map(str::to_owned);
    see(&directory, 2, &units);
    assert_eq!(directory.of_netns(BLUE), None);
    see(&directory, 3, &units[..1]);
    assert_eq!(directory.of_netns(BLUE).unwrap().unit.as_deref(), Some("a.service"));
}

#[test]
fn a_tool_of_the_host_that_looks_in_does_not_change_whose_it_is_but_the_hosts_own_stays_its_own() {
    let shell = "/user.slice/user-0.slice/session-1.scope".to_owned();
    let directory = directory();
    see(&directory, 1, &[docker(A), shell.clone()]);
    assert_eq!(directory.of_netns(BLUE).unwrap().container.as_ref().unwrap().id, A);
    let places = [docker(A), shell].map(|path| Place::of_path(&path)).into();
    directory.namespaces_seen(2, vec![Members { inode: 8, places, of_host: true }]);
    assert_eq!(directory.of_netns(NetnsId { inode: 8, cookie: 0 }), None);
}

#[test]
fn what_it_was_called_is_kept_when_the_engine_has_forgotten_it() {
    let directory = directory();
    directory.learn(vec![told(A, "web")], Vec::new());
    see(&directory, 1, &[docker(A)]);
    directory.forget_container(A);
    see(&directory, 2, &[docker(A)]);
    assert_eq!(directory.of_netns(BLUE).unwrap().container.as_ref().unwrap().name, "web");
    directory.learn(vec![told(A, "renamed")], Vec::new());
    assert_eq!(directory.of_netns(BLUE).unwrap().container.as_ref().unwrap().name, "renamed");
}

#[test]
fn what_an_engine_does_not_list_any_more_is_forgotten_and_what_another_told_is_not() {
    let directory = directory();
    let other = ContainerFacts {
        container: Container { runtime: "podman".to_owned(), ..told(B, "other").container },
        ..told(B, "other")
    };
    directory.learn(vec![told(A, "web"), other], Vec::new());
    directory.keep_containers(Source::Docker, "docker", &HashSet::new());
    assert_eq!(directory.of_cgroup(&docker(A)).unwrap().container.as_ref().unwrap().name, "");
    assert_eq!(directory.of_cgroup(&docker(B)).unwrap().container.as_ref().unwrap().name, "other");
}

#[test]
fn the_dead_are_forgotten_and_what_was_read_before_their_end_does_not_raise_them() {
    let directory = directory();
    see(&directory, 10, &[docker(A)]);
    directory.netns_ended(BLUE, 20);
    assert_eq!(directory.of_netns(BLUE), None);
    see(&directory, 15, &[docker(A)]);
    assert_eq!(directory.of_netns(BLUE), None);
    // Whoever got the inode since.
    see(&directory, 25, &[docker(B)]);
    assert_eq!(directory.of_netns(BLUE).unwrap().container.as_ref().unwrap().id, B);
}

#[test]
fn whoever_opted_out_is_known_as_such() {
    let directory = directory();
    directory.learn(vec![ContainerFacts { opted_out: true, ..told(A, "web") }], Vec::new());
    see(&directory, 1, &[docker(A)]);
    assert!(directory.of_netns(BLUE).unwrap().opted_out);
    let labels = [("xtcp2.io/exclude".to_owned(), "true".to_owned())].into();
    for (text, is_in) in
        [("xtcp2.io/exclude=true", true), ("xtcp2.io/exclude", true), ("xtcp2.io/exclude=1", false)]
    {
        assert_eq!(OptOut::parse(text).unwrap().is_in::<std::hash::RandomState>(&labels), is_in, "{text}");
    }
    assert_eq!(OptOut::parse("=true"), None);
}

#[test]
fn labels_are_kept_where_they_were_asked_for() {
    let labels = [("app", "web"), ("tier", "front"), ("app.kubernetes.io/name", "x")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into_iter()
        .collect::<std::collections::HashMap<_, _>>();
    let of = |keys: &[&str]| LabelChoice::new(keys).of(&labels);
    assert_eq!(of(&[]), Vec::<String>::new());
    assert_eq!(of(&["tier", "app"]), ["app=web", "tier=front"]);
    assert_eq!(of(&["*"]).len(), 3);
}

#[test]
fn a_process_is_believed_for_a_while_and_read_again_afterwards() {
    let (directory, asked) = Directory::new(1 << 20, None);
    assert_eq!(directory.of_pid(42), None);
    assert_eq!(asked.try_recv(), Ok(Question::Cgroup(42)));
    let now = crate::clock::ktime_ns();
    directory.process_seen(42, Some(&Place::of_path(&docker(A))), Some(99), now);
    assert_eq!(directory.of_pid(42).unwrap().container.as_ref().unwrap().id, A);
    assert_eq!(directory.of_cgroup_id(99).unwrap().container.as_ref().unwrap().id, A);
    directory.process_seen(43, None, None, now);
    assert_eq!(directory.of_pid(43), None);
    assert!(asked.try_recv().is_err(), "both are known");
    directory.process_seen(42, Some(&Place::of_path(&docker(A))), None, now.saturating_sub(11_000_000_000));
    assert_eq!(directory.of_pid(42), None);
    assert_eq!(asked.try_recv(), Ok(Question::Cgroup(42)));
}

#[test]
fn ten_thousand_of_everything_stay_within_the_budget() {
    let budget = 1 << 20;
    let (directory, asked) = Directory::new(budget, None);
    let facts = |n: u32| told(&format!("{n:064x}"), &format!("name-{n}"));
    directory.learn((0..10_000).map(facts).collect(), Vec::new());
    for n in 0..10_000_u32 {
        let id = format!("{n:064x}");
        let places = vec![Place::of_path(&docker(&id))];
        directory.namespaces_seen(1, vec![Members { inode: n + 1, places, of_host: false }]);
        directory.process_seen(n, Some(&Place::of_path(&docker(&id))), Some(u64::from(n)), 1);
        directory.of_cgroup(&docker(&id));
        directory.of_pid(n + 1_000_000);
    }
    drop(asked);
    let usage = directory.lock().usage();
    let bytes: usize = usage.kinds.iter().map(|(_, bytes, _)| bytes).sum();
    assert!(bytes <= budget && bytes > budget / 2, "{usage:?}");
    assert!(
        usage.kinds.iter().take(3).all(|(entries, _, evicted)| *entries > 100 && *evicted > 1_000),
        "{usage:?}"
    );
    // The newest are there.
    assert!(directory.of_netns(NetnsId { inode: 10_000, cookie: 0 }).is_some());
}
