//! A thread that writes for a destination. A pipe that nobody reads and a disk that hangs block whoever writes, for ever:
//! the agent's tasks must not, and its end must not wait for it.

use std::io;
use std::thread;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::{Destination, Payload, SendError};

/// What a thread writes to. Every call may block.
pub(super) trait Sink: Send + 'static {
    /// Writes one batch whole, or says why not.
    fn write(&mut self, payload: &Payload) -> Result<(), SendError>;

    /// Makes what was written as safe as it is to be.
    fn flush(&mut self) -> Result<(), SendError>;

    /// What a check finds.
    fn probe(&mut self) -> Result<String, SendError>;
}

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Writes from a thread, which ends when this is dropped and what it is at is done.
pub(super) struct Writer<S> {
    name: String,
    jobs: mpsc::Sender<Job<S>>,
}

impl<S: Sink> Writer<S> {
    /// Starts the thread. `name` stands before each message of its own.
    pub(super) fn start(name: &str, mut sink: S) -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job<S>>(1);
        let name = name.to_owned();
        // A kernel's name of a thread has 15 bytes.
        let short = name.split([' ', ':']).next().unwrap_or_default().to_owned();
        thread::Builder::new().name(short).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut sink);
            }
        })?;
        Ok(Self { name, jobs })
    }

    async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut S) -> Result<T, SendError> + Send + 'static,
    ) -> Result<T, SendError> {
        let (done, outcome) = oneshot::channel();
        let job: Job<S> = Box::new(move |sink| {
            // Who gave up does not want to know.
            let _ = done.send(act(sink));
        });
        let ended = || SendError::Fatal(format!("{}: its writer has ended", self.name).into());
        self.jobs.send(job).await.map_err(|_| ended())?;
        outcome.await.map_err(|_| ended())?
    }
}

impl<S: Sink> Destination for Writer<S> {
    fn send<'a>(&'a mut self, payload: &'a Payload) -> BoxFuture<'a, Result<(), SendError>> {
        let payload = payload.clone();
        self.run(move |sink| sink.write(&payload)).boxed()
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SendError>> {
        self.run(Sink::flush).boxed()
    }

    fn probe(&mut self) -> BoxFuture<'_, Result<String, SendError>> {
        self.run(Sink::probe).boxed()
    }
}
