//! A child process that ends with its handle.

use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::shown;

/// How long a child may take to end in its own way.
const PATIENCE: Duration = Duration::from_secs(8);

pub(crate) struct Child(std::process::Child);

impl Child {
    /// Starts it in a process group of its own: Ctrl-C is for us, and we end it in order.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.process_group(0).spawn().with_context(|| format!("start {}", shown(command)))?;
        Ok(Self(child))
    }

    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// How it ended, if it did.
    pub(crate) fn try_status(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.try_status().is_some()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        // Not reaped yet, so the id is still this child's.
        if let Ok(id) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.has_ended() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
