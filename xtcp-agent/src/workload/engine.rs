//! Staying in touch with the container engines of this node: one task for each socket, which asks for everything once,
//! follows the engine's events, and begins anew when that breaks.
//!
//! Nobody waits for these tasks. A socket that hangs costs a timeout now and then, and is counted.

mod metrics;
mod pace;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::directory::{Directory, LabelChoice, OptOut};
pub(super) use metrics::EngineMetrics;
use metrics::SocketCounters;
use pace::Attempts;
pub(super) use pace::Pace;

/// Why an engine does not tell, or tells no more.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum EngineError {
    /// It did not answer.
    #[error("no answer to {0} in time")]
    Timeout(&'static str),
    /// There is no connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// It answers, but this it does not offer.
    #[error("it does not offer {0}")]
    NotOffered(&'static str),
    /// Its answer is no answer to the question.
    #[error("{0}")]
    Answer(String),
    /// What it tells does not end.
    #[error("more than {0} bytes in one answer or event")]
    TooLong(usize),
}

impl EngineError {
    fn why(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Connection(_) => "connection",
            Self::NotOffered(_) => "not_offered",
            Self::Answer(_) => "answer",
            Self::TooLong(_) => "too_long",
        }
    }
}

/// What every session needs.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) socket: PathBuf,
    pub(super) directory: Directory,
    pub(super) pod_labels: LabelChoice,
    pub(super) opt_out: Arc<[OptOut]>,
    pub(super) pace: Pace,
    pub(super) counters: SocketCounters,
}

impl Link {
    /// Waits for an answer, within the limit.
    pub(super) async fn answer<T>(
        &self,
        what: &'static str,
        question: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        timeout(self.pace.answer, question).await.unwrap_or(Err(EngineError::Timeout(what)))
    }
}

/// A way of talking to an engine.
pub(super) trait Engine: Send + Sync + 'static {
    /// Its name in metrics and logs.
    const NAME: &'static str;

    /// Learns what there is, then follows what happens, until that breaks. Calls `Link::counters.up` once it knows all.
    fn session(link: &Link) -> impl Future<Output = EngineError> + Send;

    /// Learns what there is, and ends.
    fn once(link: &Link) -> impl Future<Output = Result<(), EngineError>> + Send;
}

/// Stays in touch until told to stop. A socket that does not exist is looked for now and then.
pub(super) async fn keep_in_touch<E: Engine>(link: Link, stop: CancellationToken) {
    let mut attempts = Attempts::default();
    let mut said = false;
    loop {
        let pause = if exists(&link.socket) {
            link.counters.show();
            let error = tokio::select! {
                error = E::session(&link) => error,
                () = stop.cancelled() => return,
            };
            let was_up = link.counters.is_up();
            link.counters.ended(error.why());
            if was_up {
                attempts = Attempts::default();
                said = false;
            }
            if !std::mem::replace(&mut said, true) {
                tracing::warn!(engine = E::NAME, socket = %link.socket.display(), %error, "names of containers may be missing");
            }
            attempts.next(&link.pace)
        } else {
            link.pace.absent
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Also where that may not be known.
pub(super) fn exists(socket: &Path) -> bool {
    socket.try_exists().unwrap_or(true)
}

#[cfg(test)]
pub(super) mod tests;
