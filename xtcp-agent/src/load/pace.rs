//! When to go on, and when to end: a rate, a time, a signal.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{LoadError, system};

/// What ended the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ended {
    /// All that was asked for was made.
    Count,
    /// `--time` is over.
    Time,
    /// SIGINT or SIGTERM.
    Signal,
    /// What cannot be mended.
    Error,
}

/// The one end of all threads. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Stop {
    token: CancellationToken,
    why: Arc<OnceLock<Ended>>,
    handle: Handle,
}

impl Stop {
    /// Listens to SIGINT and SIGTERM from here on, as long as the runtime lives.
    pub(super) fn listen() -> Result<(Runtime, Self), LoadError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("load-clock")
            .enable_all()
            .build()
            .map_err(system("start a thread"))?;
        let stop =
            Self { token: CancellationToken::new(), why: Arc::default(), handle: runtime.handle().clone() };
        let entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system("listen to SIGINT"))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(system("listen to SIGTERM"))?;
        drop(entered);
        let told = stop.clone();
        runtime.spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            told.end(Ended::Signal);
        });
        Ok((runtime, stop))
    }

    /// Another end, which this one does not bring about.
    pub(super) fn apart(&self) -> Self {
        Self { token: CancellationToken::new(), why: Arc::default(), handle: self.handle.clone() }
    }

    /// Ends the load; the first reason counts.
    pub(super) fn end(&self, why: Ended) {
        let _ = self.why.set(why);
        self.token.cancel();
    }

    /// Ends it after a time from now.
    pub(super) fn end_after(&self, time: Duration) {
        let stop = self.clone();
        self.handle.spawn(async move {
            tokio::time::sleep(time).await;
            stop.end(Ended::Time);
        });
    }

    /// What ended it; that all was made, if nothing else did.
    pub(super) fn why(&self) -> Ended {
        self.why.get().copied().unwrap_or(Ended::Count)
    }

    /// Whether the end has come.
    pub(super) fn is_over(&self) -> bool {
        self.token.is_cancelled()
    }

    /// To wait for the end, or to race it.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Waits on this thread until a time, or the end: whether that has not come.
    pub(super) fn wait_until(&self, due: Instant) -> bool {
        if due > Instant::now() {
            self.handle.block_on(async {
                let _ = tokio::time::timeout_at(due.into(), self.token.cancelled()).await;
            });
        }
        !self.is_over()
    }

    /// Waits on this thread for the end.
    pub(super) fn wait(&self) {
        self.handle.block_on(self.token.cancelled());
    }
}

/// So many a second from a beginning on, or as many as it gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    began: Instant,
    per_s: Option<f64>,
}

impl Pace {
    /// Begins now.
    pub(super) fn new(per_s: Option<f64>) -> Self {
        Self { began: Instant::now(), per_s }
    }

    /// When the one with this number is due, counted from 0.
    pub(super) fn due(&self, number: u64) -> Instant {
        let Some(per_s) = self.per_s else { return self.began };
        #[expect(clippy::cast_precision_loss, reason = "exact to 2^53, more than will ever be made")]
        let after = Duration::try_from_secs_f64(number as f64 / per_s).unwrap_or(Duration::MAX);
        // A time that cannot be told is never reached either.
        self.began.checked_add(after).unwrap_or_else(|| self.began + Duration::from_secs(u64::from(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_spreads_its_numbers_and_none_makes_all_due_at_once() {
        let pace = Pace::new(Some(4.0));
        assert_eq!(pace.due(0), pace.began);
        assert_eq!(pace.due(6) - pace.began, Duration::from_millis(1_500));
        assert!(pace.due(u64::MAX) > pace.began + Duration::from_secs(1_000_000));
        let pace = Pace::new(None);
        assert_eq!(pace.due(1_000_000), pace.began);
    }

    #[test]
    fn the_first_reason_for_an_end_counts_and_ends_every_wait() {
        let (runtime, stop) = Stop::listen().unwrap();
        assert!(stop.wait_until(Instant::now()));
        assert_eq!(stop.why(), Ended::Count);
        stop.end_after(Duration::ZERO);
        stop.wait();
        stop.end(Ended::Signal);
        assert!(!stop.wait_until(Instant::now() + Duration::from_secs(3_600)));
        assert_eq!(stop.why(), Ended::Time);
        runtime.shutdown_background();
    }
}
