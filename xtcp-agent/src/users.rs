//! What users are called (`--user-names`): asked of the host's user database in a thread of its own, because a directory
//! service behind it may answer late or never.
//!
//! Whoever asks here has an answer at once, which may be that it is not known yet.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry, opts};

use crate::workload::Budgeted;

/// Memory for names, bytes.
const BUDGET: usize = 1 << 20;
/// What a name costs beside its own bytes: the entry, and the counts of its holders.
const OVERHEAD: usize = size_of::<Name>() + 2 * size_of::<usize>();
/// Users that may wait to be asked for; who finds no room is asked for with a later row.
const QUEUE: usize = 256;
/// How long a name is believed; the old one is used until the new one is there.
const BELIEVED: Duration = Duration::from_secs(300);

/// Counters of users' names.
#[derive(Clone)]
pub struct UserMetrics {
    lookups: IntCounterVec,
    entries: IntGauge,
    bytes: IntGauge,
    evicted: IntCounter,
}

impl UserMetrics {
    /// Registers everything under `xtcp_user_names_`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Questions to the host's user database, by result.";
        let lookups = IntCounterVec::new(opts!("xtcp_user_names_lookups_total", help), &["result"])?;
        let entries = IntGauge::new("xtcp_user_names_entries", "Users whose names are remembered.")?;
        let bytes = IntGauge::new("xtcp_user_names_bytes", "Memory that users' names take.")?;
        let evicted =
            IntCounter::new("xtcp_user_names_evictions_total", "Users' names forgotten for want of room.")?;
        registry.register(Box::new(lookups.clone()))?;
        registry.register(Box::new(entries.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        registry.register(Box::new(evicted.clone()))?;
        for result in ["found", "none", "failed", "no_room"] {
            lookups.with_label_values(&[result]);
        }
        Ok(Self { lookups, entries, bytes, evicted })
    }
}

struct Name {
    /// `None` for a user without one, or who was not asked for yet.
    name: Option<Arc<str>>,
    /// When it is to be asked for again.
    until: Instant,
}

struct Names(Budgeted<u32, Name>);

/// The names; a clone is the same.
#[derive(Clone)]
pub struct Users {
    names: Arc<Mutex<Names>>,
    questions: SyncSender<u32>,
    metrics: UserMetrics,
    believed: Duration,
}

impl Users {
    /// Starts the thread that asks. It ends with the last clone, once its question at hand is answered.
    pub fn start(metrics: UserMetrics) -> io::Result<Self> {
        Self::start_with(metrics, BELIEVED, |uid| {
            User::from_uid(Uid::from_raw(uid)).map(|user| user.map(|user| user.name))
        })
    }

    fn start_with(
        metrics: UserMetrics,
        believed: Duration,
        ask: impl Fn(u32) -> nix::Result<Option<String>> + Send + 'static,
    ) -> io::Result<Self> {
        let (questions, asked) = sync_channel(QUEUE);
        let names = Arc::new(Mutex::new(Names(Budgeted::new(BUDGET))));
        let users = Self { names: Arc::clone(&names), questions, metrics: metrics.clone(), believed };
        thread::Builder::new()
            .name("xtcp-users".to_owned())
            .spawn(move || answer(&asked, &names, &metrics, believed, &ask))?;
        Ok(users)
    }

    /// The user's name; `None` where there is none, or where it is not known yet.
    pub fn name(&self, uid: u32) -> Option<Arc<str>> {
        let now = Instant::now();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match names.0.get(&uid) {
            Some(known) if now < known.until => return known.name.clone(),
            known => known.and_then(|stale| stale.name.clone()),
        };
        let mut until = now + self.believed;
        if self.questions.try_send(uid).is_err() {
            self.metrics.lookups.with_label_values(&["no_room"]).inc();
            until = now;
        }
        names.put(uid, Name { name: known.clone(), until }, &self.metrics);
        known
    }
}

impl Names {
    fn put(&mut self, uid: u32, name: Name, metrics: &UserMetrics) {
        let Self(names) = self;
        let bytes = OVERHEAD + name.name.as_ref().map_or(0, |name| name.len());
        names.insert(uid, name, bytes);
        metrics.entries.set(i64::try_from(names.len()).unwrap_or(i64::MAX));
        metrics.bytes.set(i64::try_from(names.bytes()).unwrap_or(i64::MAX));
        metrics.evicted.inc_by(names.evicted().saturating_sub(metrics.evicted.get()));
    }
}

fn answer(
    asked: &Receiver<u32>,
    names: &Mutex<Names>,
    metrics: &UserMetrics,
    believed: Duration,
    ask: &dyn Fn(u32) -> nix::Result<Option<String>>,
) {
    for uid in asked {
        let (result, name) = match ask(uid) {
            Ok(Some(name)) => ("found", Some(Arc::from(name))),
            Ok(None) => ("none", None),
            Err(error) => {
                tracing::debug!(%error, uid, "a user's name cannot be read");
                ("failed", None)
            }
        };
        metrics.lookups.with_label_values(&[result]).inc();
        let name = Name { name, until: Instant::now() + believed };
        names.lock().unwrap_or_else(PoisonError::into_inner).put(uid, name, metrics);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> UserMetrics {
        UserMetrics::register(&Registry::new()).unwrap()
    }

    fn wait_for(what: impl Fn() -> bool) {
        let start = Instant::now();
        while !what() {
            assert!(start.elapsed() < Duration::from_secs(30), "waited too long");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_name_comes_from_the_hosts_user_database() {
        let users = Users::start(metrics()).unwrap();
        wait_for(|| users.name(0).as_deref() == Some("root"));
    }

    #[test]
    fn whoever_asks_does_not_wait_for_a_database_that_hangs() {
        let (release, held) = sync_channel::<()>(0);
        let held = Mutex::new(held);
        let ask = move |uid| {
            // Until the test lets it go on.
            let _ = held.lock().unwrap().recv();
            Ok(Some(format!("user{uid}")))
        };
        let users = Users::start_with(metrics(), BELIEVED, ask).unwrap();
        for uid in 0..10 * u32::try_from(QUEUE).unwrap() {
            assert_eq!(users.name(uid), None);
        }
        assert!(users.metrics.lookups.with_label_values(&["no_room"]).get() > 0);
        drop(release);
        wait_for(|| users.name(0).as_deref() == Some("user0"));
        // Who found no room is asked for again.
        wait_for(|| users.name(2_000).as_deref() == Some("user2000"));
    }

    #[test]
    fn names_take_no_more_than_their_budget_and_are_asked_for_again_in_time() {
        let (told, hears) = sync_channel(1 << 16);
        let ask = move |uid| {
            let _ = told.try_send(uid);
            Ok((uid != 7).then(|| "x".repeat(5_000)))
        };
        let users = Users::start_with(metrics(), Duration::ZERO, ask).unwrap();
        wait_for(|| users.name(1).is_some());
        assert!(hears.recv().is_ok());
        assert!(users.name(7).is_none());
        for uid in 100..500 {
            wait_for(|| users.name(uid).is_some());
            assert!(users.metrics.bytes.get() <= i64::try_from(BUDGET).unwrap());
        }
        assert!(users.metrics.evicted.get() > 0);
        assert!(hears.iter().take(10).any(|uid| uid == 1), "never asked for again");
    }
}
