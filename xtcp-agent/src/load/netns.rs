//! `load netns`: fill, churn, empty.

mod log;
mod space;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::guard::Guard;
use super::hub::Hub;
use super::options::{Close, Holder, NetnsOptions};
use super::pace::{Ended, Pace, Stop};
use super::tally::{Count, Faults, progress, rate, seconds};
use super::{LoadError, make_room, say, system};
use crate::netns::NetnsId;
use crate::netns::handle::Handles;
use log::Log;
use space::{Plan, Space};

/// Descriptors of a namespace while it is being made.
const WHILE_MADE: u64 = 8;
/// How long the ended namespaces are waited for.
const WAKE: Duration = Duration::from_secs(10);
/// Time between two looks for them.
const AGAIN: Duration = Duration::from_millis(20);

/// What was done.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// Namespaces that were made.
    created: u64,
    /// Namespaces that were ended.
    destroyed: u64,
    /// Of those, how many the kernel still had at the end; null where it cannot tell.
    still_alive: Option<u64>,
    /// Connections in them.
    connections: u64,
    /// Bytes that went over them, in both directions.
    bytes: u64,
    /// What went wrong.
    pub(super) errors: u64,
    /// From the start to the end of the clean-up.
    seconds: f64,
    /// Namespaces made for `--initial`, a second.
    filled_per_s: f64,
    /// Namespaces made after them, a second.
    created_per_s: f64,
    /// Why it ended.
    ended_by: Ended,
}

/// What all threads share.
struct Load<'a> {
    options: &'a NetnsOptions,
    plan: Plan,
    stop: &'a Stop,
    log: Option<Log>,
    handles: Handles,
    living: Mutex<VecDeque<Space>>,
    /// Ended, and not yet known to be dead.
    dying: Mutex<VecDeque<NetnsId>>,
    next: Count,
    created: Count,
    destroyed: Count,
    connections: Count,
    bytes: Count,
    faults: Faults,
}

/// Makes namespaces as asked for, and ends them all.
pub(super) fn run(options: &NetnsOptions, stop: &Stop) -> Result<Summary, LoadError> {
    let began = Instant::now();
    let plan = plan(options)?;
    let workers = options
        .workers
        .map_or_else(|| thread::available_parallelism().map_or(1, |n| n.get().min(4)), usize::from);
    let at_once = options.initial + u64::try_from(workers).unwrap_or(1);
    let inside = 1 + 2 * u64::from(options.connections);
    make_room(
        at_once.saturating_mul(if options.connections == 0 { 1 } else { inside })
            + WHILE_MADE * at_once.min(64),
    )?;
    if options.connections > 0 && at_once > plan.slots {
        say(&format!(
            "{} have ports of their own, more namespaces share them: --ports, --connections",
            plan.slots
        ));
    }
    let log = options.log.as_deref().map(Log::create).transpose()?;
    let guard = options.named.then(|| {
        space::make_directory(&options.directory)
            .and_then(|()| Guard::start(&options.directory, &plan.name_prefix))
    });
    let guard = guard.transpose()?;
    let load = Load {
        options,
        plan,
        stop,
        log,
        handles: Handles::probe(),
        living: Mutex::default(),
        dying: Mutex::default(),
        next: Count::default(),
        created: Count::default(),
        destroyed: Count::default(),
        connections: Count::default(),
        bytes: Count::default(),
        faults: Faults::default(),
    };
    let (filled, churned, churn_time) = load.go(workers)?;
    if let Some(guard) = guard {
        guard.dismiss();
    }
    let still_alive = load.wait_for_the_dead();
    let ended_by = stop.why();
    let errors = load.faults.number();
    let made = load.created.get();
    if let Some(fatal) = load.faults.take_fatal() {
        if made == 0 {
            return Err(fatal);
        }
        say(&format!("error: {fatal}"));
    }
    Ok(Summary {
        created: made,
        destroyed: load.destroyed.get(),
        still_alive,
        connections: load.connections.get(),
        bytes: load.bytes.get(),
        errors,
        seconds: seconds(began.elapsed()),
        filled_per_s: rate(made - churned, filled),
        created_per_s: rate(churned, churn_time),
        ended_by,
    })
}

fn plan(options: &NetnsOptions) -> Result<Plan, LoadError> {
    if options.holder == Holder::Socket && options.connections == 0 && !options.named {
        return Err(LoadError::Options("--held-by socket needs --connections 1 or more".to_owned()));
    }
    let width = options.connections + 1;
    let slots = (u32::from(options.ports.last - options.ports.first) + 1) / u32::from(width);
    if slots == 0 && options.connections > 0 {
        let needed = format!(
            "--ports holds fewer than {width}, which {} connections and a listener need",
            options.connections
        );
        return Err(LoadError::Options(needed));
    }
    Ok(Plan {
        name_prefix: format!("{}-{}-", options.prefix, std::process::id()),
        named_in: options.named.then(|| options.directory.clone()),
        holder: options.holder,
        connections: options.connections,
        message: usize::try_from(options.message).unwrap_or(0),
        family: options.common.family,
        close: options.common.close.unwrap_or(Close::Reset),
        first_port: options.ports.first,
        slots: u64::from(slots),
        veth: options.veth,
        hub: options.through_veth.then(Hub::new).transpose()?,
    })
}

impl Load<'_> {
    /// Fill, churn, empty. How long the fill took, how many came after it, and how long those took.
    fn go(&self, workers: usize) -> Result<(Duration, u64, Duration), LoadError> {
        let initial = self.options.initial;
        let churns = self.options.common.rate.is_some() || self.options.count.is_some();
        let last = self.options.count.map_or(u64::MAX, |count| initial.saturating_add(count));
        let quiet = self.options.common.quiet;
        thread::scope(|scope| {
            let done = self.stop.apart();
            let _end = done.token().clone().drop_guard();
            if !quiet {
                let reporter = thread::Builder::new().name("load-progress".to_owned());
                reporter
                    .spawn_scoped(scope, move || progress(&done, || self.line()))
                    .map_err(system("start a thread"))?;
            }

            let chats_end = self.stop.apart();
            let _chats_end = chats_end.token().clone().drop_guard();
            if let Some(sleep) = self.options.sleep {
                let thread = thread::Builder::new().name("load-traffic".to_owned());
                thread
                    .spawn_scoped(scope, move || self.chat(&chats_end, sleep))
                    .map_err(system("start a thread"))?;
            }
            let began = Instant::now();
            let made = crew(workers, || self.make(initial, Pace::new(None)));
            let filled = began.elapsed();
            if made.is_ok() && initial > 0 && !self.stop.is_over() && !quiet {
                say(&format!("filled: {} namespaces in {:.3} s", self.created.get(), filled.as_secs_f64()));
            }
            if let Some(log) = self.log.as_ref().filter(|_| made.is_ok()) {
                self.keep(log.filled());
            }
            let before = self.created.get();
            let began = Instant::now();
            if let Some(time) = self.options.common.time {
                self.stop.end_after(time);
            }
            let pace = Pace::new(self.options.common.rate);
            let churned = made.and_then(|()| {
                if churns {
                    // Failures of the fill took numbers too.
                    return crew(workers, || self.make(last, pace));
                }
                if initial > 0 || self.options.common.time.is_some() {
                    self.stop.wait();
                }
                Ok(())
            });
            let (number, took) = (self.created.get() - before, began.elapsed());
            // Whatever happened: nothing stays.
            let emptied = crew(workers, || {
                while let Some(space) = self.oldest() {
                    self.end(space);
                }
            });
            churned.and(emptied).map(|()| (filled, number, took))
        })
    }

    /// Takes numbers below `last` and makes a namespace for each.
    fn make(&self, last: u64, pace: Pace) {
        let initial = self.options.initial;
        while let Some(number) = self.next.take_below(last) {
            if !self.stop.wait_until(pace.due(number.saturating_sub(initial))) {
                return;
            }
            match space::make(&self.plan, number) {
                Ok(space) => self.made(space),
                Err(error) => self.faults.take(error, self.stop),
            }
        }
    }

    fn made(&self, space: Space) {
        self.faults.none();
        self.created.one();
        self.connections.add(space.connections());
        self.bytes.add(space.bytes);
        if let Some(log) = &self.log {
            self.keep(log.created(&space));
        }
        let mut living = lock(&self.living);
        living.push_back(space);
        let many = u64::try_from(living.len()).unwrap_or(u64::MAX) > self.options.initial;
        let oldest = if many { living.pop_front() } else { None };
        drop(living);
        if let Some(oldest) = oldest {
            self.end(oldest);
        }
    }

    /// Sends messages over all connections, again and again, until the end. One namespace is locked at a time: those that
    /// come and go meanwhile may be passed over once.
    fn chat(&self, done: &Stop, sleep: Duration) {
        let mut message = vec![0x78; self.plan.message];
        let mut due = Instant::now() + sleep;
        while done.wait_until(due) {
            // No faster than asked for, however long a round takes.
            due = Instant::now() + sleep;
            let mut at = 0;
            while let Some(space) = lock(&self.living).get_mut(at) {
                at += 1;
                match space.chat(&mut message) {
                    Ok(bytes) => self.bytes.add(bytes),
                    Err(error) => {
                        self.faults.take(system("send a message in a network namespace")(error), self.stop);
                    }
                }
                if done.is_over() {
                    return;
                }
            }
        }
    }

    fn oldest(&self) -> Option<Space> {
        lock(&self.living).pop_front()
    }

    fn end(&self, space: Space) {
        let (ended, result) = space.end();
        if let Err(error) = result {
            self.faults.take(error, self.stop);
        }
        self.destroyed.one();
        if let Some(log) = &self.log {
            self.keep(log.destroyed(&ended));
        }
        if self.handles != Handles::Certain {
            return;
        }
        let mut dying = lock(&self.dying);
        dying.push_back(ended.id);
        // Two for each: so the queue is no longer than the kernel is behind.
        for _ in 0..2 {
            if dying.front().is_some_and(|id| self.handles.alive(*id) == Some(false)) {
                dying.pop_front();
            }
        }
    }

    fn keep(&self, logged: Result<(), LoadError>) {
        if let Err(error) = logged {
            self.faults.take(error, self.stop);
        }
    }

    /// How many never went, within a bounded wait.
    fn wait_for_the_dead(&self) -> Option<u64> {
        let mut dying = lock(&self.dying);
        let until = Instant::now() + WAKE;
        loop {
            dying.retain(|id| self.handles.alive(*id) != Some(false));
            if dying.is_empty() || Instant::now() >= until {
                let left = u64::try_from(dying.len()).unwrap_or(u64::MAX);
                return (self.handles == Handles::Certain).then_some(left);
            }
            thread::sleep(AGAIN);
        }
    }

    fn line(&self) -> String {
        let (created, destroyed) = (self.created.get(), self.destroyed.get());
        format!(
            "namespaces: {} now, {created} made, {destroyed} ended; connections {}; errors {}",
            created.saturating_sub(destroyed),
            self.connections.get(),
            self.faults.number()
        )
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs this on so many threads, to its end.
fn crew(workers: usize, work: impl Fn() + Sync) -> Result<(), LoadError> {
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..workers {
            let work = &work;
            let thread = thread::Builder::new().name("load-worker".to_owned());
            threads.push(thread.spawn_scoped(scope, work).map_err(system("start a thread"))?);
        }
        let panicked = threads.into_iter().map(thread::ScopedJoinHandle::join).filter(Result::is_err).count();
        if panicked == 0 { Ok(()) } else { Err(LoadError::Thread) }
    })
}
