//! `stdout` and `stderr`: batches go to one of the process's own streams, one behind the other.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::explain::error_text;
use super::scheme::{Built, nothing_follows};
use super::writer::{Sink, Writer};
use super::{Cause, Context, Destination, Opener, Payload, SendError};

pub(super) const STDOUT: Built =
    Built { parse: |rest, _| nothing_follows(rest).map(|()| Arc::new(Standard::Output) as _), options: &[] };
pub(super) const STDERR: Built =
    Built { parse: |rest, _| nothing_follows(rest).map(|()| Arc::new(Standard::Error) as _), options: &[] };

/// One of the streams that every process starts with.
#[derive(Clone, Copy)]
enum Standard {
    Output,
    Error,
}

impl Standard {
    /// A copy of the descriptor: the standard library's own of the output would buffer by lines.
    fn copy(self) -> io::Result<File> {
        Ok(File::from(match self {
            Self::Output => io::stdout().as_fd().try_clone_to_owned()?,
            Self::Error => io::stderr().as_fd().try_clone_to_owned()?,
        }))
    }
}

impl Opener for Standard {
    fn open(&self, _: &Context) -> Result<Box<dyn Destination>, Cause> {
        let name = match self {
            Self::Output => "stdout",
            Self::Error => "stderr",
        };
        Ok(Box::new(Writer::start(name, Stream { name, to: self.copy()?, written: false })?))
    }

    fn patience(&self) -> Option<Duration> {
        None
    }
}

struct Stream<W> {
    name: &'static str,
    to: W,
    written: bool,
}

impl<W: Write + AsFd + Send + 'static> Sink for Stream<W> {
    fn write(&mut self, payload: &Payload) -> Result<(), SendError> {
        let skipped = if self.written { payload.header } else { 0 };
        self.written = true;
        match write_all(&mut self.to, payload.bytes.get(skipped..).unwrap_or_default()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(self.fatal("nobody reads it any more (EPIPE)"))
            }
            // Part of the batch may be out already: the next one would be read as its rest.
            Err(error) => Err(self.fatal(&format!("cannot write: {}", error_text(&error)))),
        }
    }

    fn flush(&mut self) -> Result<(), SendError> {
        // What was written has left the process.
        Ok(())
    }

    fn probe(&mut self) -> Result<String, SendError> {
        Ok("open".to_owned())
    }
}

impl<W> Stream<W> {
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

#[cfg(test)]
mod tests {
    use std::io::{PipeWriter, Read};
    use std::os::fd::OwnedFd;
    use std::thread;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    fn payload(bytes: Vec<u8>) -> Payload {
        Payload { bytes: bytes.into(), header: 0, rows: 1, id: "i-1-0".into() }
    }

    fn start(pipe: PipeWriter) -> Writer<Stream<File>> {
        let to = File::from(OwnedFd::from(pipe));
        Writer::start("test", Stream { name: "test", to, written: false }).expect("a thread")
    }

    #[tokio::test]
    async fn batches_are_written_whole_and_in_order() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut writer = start(writer);
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
        let mut writer = start(writer);
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
        let mut writer = start(writer);
        drop(reader);
        let error = writer.send(&payload(vec![1])).await.expect_err("no reader");
        assert!(matches!(error, SendError::Fatal(_)), "{error:?}");
        assert_eq!(error.to_string(), "test: nobody reads it any more (EPIPE)");
    }

    #[tokio::test]
    async fn columns_are_named_once() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut writer = start(writer);
        for row in ["1\n", "2\n"] {
            let bytes = format!("column\n{row}").into_bytes();
            let payload = Payload { header: 7, ..payload(bytes) };
            writer.send(&payload).await.expect("sent");
        }
        drop(writer);
        let mut all = String::new();
        reader.read_to_string(&mut all).expect("read");
        assert_eq!(all, "column\n1\n2\n");
    }
}
