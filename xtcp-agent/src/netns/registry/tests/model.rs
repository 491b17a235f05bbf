//! A host that lives by itself, and messages about it that arrive late and mixed: kernel events in order among each
//! other, as a ring buffer delivers them; looks, visits and handles whenever.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// What happens next on the host.
#[derive(Clone, Debug)]
enum Step {
    Create,
    Destroy(usize),
    /// A look that takes in each namespace one step after the other would be exact; this one takes them all in the
    /// middle of its duration.
    Look {
        before: u64,
        after: u64,
        late: u64,
    },
    Visit {
        who: usize,
        late: u64,
    },
    Ask {
        who: usize,
        late: u64,
    },
    SocketEvent(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Create),
        3 => any::<usize>().prop_map(Step::Destroy),
        2 => (0..4_u64, 0..4_u64, 0..8_u64).prop_map(|(before, after, late)| Step::Look { before, after, late }),
        2 => (any::<usize>(), 0..8_u64).prop_map(|(who, late)| Step::Visit { who, late }),
        1 => (any::<usize>(), 0..8_u64).prop_map(|(who, late)| Step::Ask { who, late }),
        2 => any::<usize>().prop_map(Step::SocketEvent),
    ];
    proptest::collection::vec(step, 0..60)
}

/// A message, and when it arrives.
enum Message {
    Created(NetnsId, u64),
    Destroyed(NetnsId, u64),
    Seen(NetnsId, u64),
    Look(Snapshot),
    Verified(NetnsId, u64),
    Liveness(NetnsId, bool, u64),
}

#[derive(Default)]
struct Host {
    alive: Vec<NetnsId>,
    last_cookie: u64,
    messages: Vec<(u64, Message)>,
}

impl Host {
    /// Steps are 10 apart, so that messages can lie between them.
    fn run(&mut self, steps: &[Step], event_delay: u64) {
        for (n, step) in steps.iter().enumerate() {
            let now = 1000 + 10 * n as u64;
            let event = now + 10 * event_delay + 5;
            match step {
                Step::Create => {
                    // The kernel reuses the lowest free number.
                    let inode = (10..1000).find(|i| self.alive.iter().all(|id| id.inode != *i)).unwrap();
                    self.last_cookie += 1;
                    let id = id(inode, 100 + self.last_cookie);
                    self.alive.push(id);
                    self.messages.push((event, Message::Created(id, now)));
                }
                Step::Destroy(who) => {
                    if let Some(at) = who.checked_rem(self.alive.len()) {
                        let id = self.alive.remove(at);
                        self.messages.push((event, Message::Destroyed(id, now)));
                    }
                }
                Step::SocketEvent(who) => {
                    if let Some(id) = self.pick(*who) {
                        self.messages.push((event, Message::Seen(id, now)));
                    }
                }
                Step::Look { before, after, late } => {
                    let inodes: Vec<u32> = self.alive.iter().map(|id| id.inode).collect();
                    let (began, ended) = (now - 10 * before - 1, now + 10 * after + 1);
                    self.messages.push((ended + 10 * late, Message::Look(look(began, ended, &inodes))));
                }
                Step::Visit { who, late } => {
                    if let Some(id) = self.pick(*who) {
                        self.messages.push((now + 10 * late + 1, Message::Verified(id, now)));
                    }
                }
                Step::Ask { who, late } => {
                    let cookie = 101 + *who as u64 % (self.last_cookie + 1);
                    let alive = self.alive.iter().find(|id| id.cookie == cookie).copied();
                    for inode in 10..20 {
                        let message = match alive {
                            Some(id) => Message::Liveness(id, true, now),
                            None if cookie > 100 + self.last_cookie => continue,
                            None => Message::Liveness(id(inode, cookie), false, now),
                        };
                        self.messages.push((now + 10 * late + 1, message));
                    }
                }
            }
        }
    }

    fn pick(&self, who: usize) -> Option<NetnsId> {
        self.alive.get(who.checked_rem(self.alive.len())?).copied()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn each_beginning_and_each_end_is_told_once_in_whatever_order_news_arrive(
        steps in steps(),
        event_delay in 0..6_u64,
    ) {
        let mut host = Host::default();
        host.run(&steps, event_delay);
        host.messages.sort_by_key(|(arrives, _)| *arrives);
        // No event is lost here, so nobody is to be given up.
        let mut registry = Registry::new(OWN, u32::MAX);
        registry.apply(&look(1, 2, &[]));
        let mut changes = Vec::new();
        for (_, message) in host.messages.drain(..) {
            changes.extend(match message {
                Message::Created(id, at) => registry.created(id, at, KERNEL, None),
                Message::Destroyed(id, at) => registry.destroyed(id, at, KERNEL),
                Message::Seen(id, at) => registry.seen(id, at),
                Message::Look(snapshot) => registry.apply(&snapshot),
                Message::Verified(id, at) => registry.verified(id, at),
                Message::Liveness(id, alive, at) =>
                    registry.liveness(id, alive, at, Source::Reconcile).into_iter().collect(),
            });
        }
        let mut known: Vec<NetnsId> = registry.iter().filter(|e| !e.own).map(|e| e.id).collect();
        known.sort_unstable();
        host.alive.sort_unstable();
        prop_assert_eq!(&known, &host.alive, "changes: {:?}", told(changes));

        let mut begun: HashMap<u64, u32> = HashMap::new();
        let mut ended: HashMap<u64, u32> = HashMap::new();
        for change in &changes {
            match change {
                Change::Created { netns, .. } => *begun.entry(netns.id.cookie).or_default() += 1,
                Change::Destroyed { netns, .. } => *ended.entry(netns.id.cookie).or_default() += 1,
                Change::Renamed { .. } => {}
            }
        }
        let created = host.last_cookie;
        prop_assert_eq!(u64::from(begun.values().sum::<u32>()), created, "changes: {:?}", told(changes));
        let died = created - host.alive.len() as u64;
        prop_assert_eq!(u64::from(ended.values().sum::<u32>()), died, "changes: {:?}", told(changes));
        for (cookie, times) in begun.iter().chain(&ended).filter(|(cookie, _)| **cookie != 0) {
            prop_assert_eq!(*times, 1, "cookie {}: {:?}", cookie, told(changes));
        }
    }
}
