//! `stdout`: batches go to the process's standard output, one behind the other.
//!
//! A thread of its own writes, because a pipe that nobody reads blocks for ever: the agent's tasks must not, and its
//! end must not wait for it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{mpsc, oneshot};

use super::scheme::{Built, nothing_follows};
use super::{Cause, Context, Destination, Opener, Payload, SendError};

pub(super) const BUILT: Built =
    Built { parse: |rest, _| nothing_follows(rest).map(|()| Arc::new(Stdout) as _), options: &[] };

struct Stdout;

impl Opener for Stdout {
    fn open(&self, _: &Context) -> Result<Box<dyn Destination>, Cause> {
        // A copy of the descriptor: the standard library's own would buffer by lines.
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Box::new(Writer::start("stdout", stdout)?))
    }

    fn patience(&self) -> Option<Duration> {
        None
    }
}

type Job = (Payload, oneshot::Sender<io::Result<()>>);

/// Writes from a thread, which ends with it.
struct Writer {
    name: &'static str,
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    fn start(name: &'static str, mut to: impl Write + AsFd + Send + 'static) -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(1);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some((payload, done)) = queue.blocking_recv() {
                // Who gave up does not want to know.
                let _ = done.send(write_all(&mut to, &payload.bytes));
            }
        })?;
        Ok(Self { name, jobs })
    }

    async fn write(&mut self, payload: &Payload) -> Result<(), SendError> {
        let (done, written) = oneshot::channel();
        let Ok(()) = self.jobs.send((payload.clone(), done)).await else {
            return Err(self.fatal("its writer has ended"));
        };
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(self.fatal("nobody reads it any more (EPIPE)"))
            }
            // Part of the batch may be out already: the next one would be read as its rest.
            Ok(Err(error)) => Err(self.fatal(&format!("cannot write: {error}"))),
            Err(_) => Err(self.fatal("its writer has ended")),
        }
    }

    fn fatal(&self, problem: &str) -> SendError {
        SendError::Fatal(format!("{}: {problem}", self.name).into())
    }
}

/// Like [`Write::write_all`], and also when the descriptor is non-blocking: whoever shares it may have made it so.
fn write_all(to: &mut (impl Write + AsFd), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_until_writable(to)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_until_writable(to: &impl AsFd) -> io::Result<()> {
    match poll(&mut [PollFd::new(to.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

impl Destination for Writer {
    fn send<'a>(&'a mut self, payload: &'a Payload) -> BoxFuture<'a, Result<(), SendError>> {
        self.write(payload).boxed()
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SendError>> {
        // A send that succeeded was written.
        std::future::ready(Ok(())).boxed()
    }

    fn probe(&mut self) -> BoxFuture<'_, Result<String, SendError>> {
        std::future::ready(Ok("open".to_owned())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    fn payload(bytes: Vec<u8>) -> Payload {
        Payload { bytes: bytes.into(), header: 0, rows: 1, id: "i-1-0".into() }
    }

    #[tokio::test]
    async fn batches_are_written_whole_and_in_order() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut writer =
            Writer::start("test", File::from(std::os::fd::OwnedFd::from(writer))).expect("a thread");
        // More than a pipe holds, so that the writer has to wait for the reader.
        let reading = thread::Builder::new()
            .spawn(move || {
                let mut all = Vec::new();
                reader.read_to_end(&mut all).map(|_| all)
            })
            .expect("a thread");
        for byte in 1..=3 {
            writer.send(&payload(vec![byte; 100_000])).await.expect("sent");
        }
        drop(writer);
        let all = reading.join().expect("no panic").expect("read");
        assert_eq!(all, [vec![1; 100_000], vec![2; 100_000], vec![3; 100_000]].concat());
    }

    #[tokio::test]
    async fn a_non_blocking_descriptor_is_waited_for() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        fcntl(writer.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set");
        let mut writer =
            Writer::start("test", File::from(std::os::fd::OwnedFd::from(writer))).expect("a thread");
        let reading = thread::Builder::new()
            .spawn(move || {
                let mut all = Vec::new();
                reader.read_to_end(&mut all).map(|_| all)
            })
            .expect("a thread");
        writer.send(&payload(vec![7; 300_000])).await.expect("sent");
        drop(writer);
        assert_eq!(reading.join().expect("no panic").expect("read"), vec![7; 300_000]);
    }

    #[tokio::test]
    async fn a_reader_that_went_away_is_fatal_and_named() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let mut writer =
            Writer::start("test", File::from(std::os::fd::OwnedFd::from(writer))).expect("a thread");
        drop(reader);
        let error = writer.send(&payload(vec![1])).await.expect_err("no reader");
        assert!(matches!(error, SendError::Fatal(_)), "{error:?}");
        assert_eq!(error.to_string(), "test: nobody reads it any more (EPIPE)");
    }
}
