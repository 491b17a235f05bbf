//! `xtcp2-agent load`: network namespaces and TCP connections in numbers, for tests and for who wants to see what the agent
//! does on a busy host. Without eBPF and without the agent; nothing that it made outlives it.

mod guard;
mod hub;
mod link;
mod netns;
mod options;
mod pace;
mod tally;
mod tcp;

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use crate::netns::NetnsId;

use options::Task;
pub use options::{LoadOptions, command};
use pace::Stop;

/// All went well; something did not; nothing was done.
const WELL: u8 = 0;
const WITH_ERRORS: u8 = 1;
const FAILED: u8 = 2;

/// Descriptors that the program needs besides those of its load.
const OWN_DESCRIPTORS: u64 = 64;

/// Why there is no load, or no more.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    /// Something is not possible together; nothing was done.
    #[error("{0}")]
    Options(String),
    /// Namespaces are for the privileged.
    #[error("may not {what}: {source}; it needs CAP_SYS_ADMIN and CAP_NET_ADMIN: run it as root")]
    Denied {
        /// What was being done.
        what: Cow<'static, str>,
        /// `EPERM` or `EACCES`.
        source: io::Error,
    },
    /// The descriptor limit cannot hold what is asked for.
    #[error(
        "{needed} descriptors are needed and the hard limit is {limit}: raise it (ulimit -Hn, LimitNOFILE=) or ask for less"
    )]
    Descriptors {
        /// How many.
        needed: u64,
        /// How many there may be.
        limit: u64,
    },
    /// A system call.
    #[error("cannot {what}: {source}")]
    System {
        /// What was being done.
        what: Cow<'static, str>,
        /// Its errno.
        source: io::Error,
    },
    /// Nothing succeeds any more.
    #[error("gave up after {tries} failures in a row, the last: {last}")]
    Hopeless {
        /// How many.
        tries: u64,
        /// The last of them.
        last: String,
    },
    /// A thread of ours panicked.
    #[error("a thread ended unexpectedly")]
    Thread,
}

impl LoadError {
    /// Whether no other try can go better.
    fn is_final(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::Options(_))
    }
}

/// A stream socket of the calling thread's namespace, bound to this address.
fn bound_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// An error of a system call that did this.
fn system<E: Into<io::Error>>(what: impl Into<Cow<'static, str>>) -> impl FnOnce(E) -> LoadError {
    move |source| {
        let what = what.into();
        let source = source.into();
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM | Errno::EACCES) => LoadError::Denied { what, source },
            _ => LoadError::System { what, source },
        }
    }
}

/// `xtcp2-agent load`: progress to standard error, a summary as one line of JSON to standard output. Status 0 all went well,
/// 1 something did not, 2 it could not be done.
pub fn run(options: &LoadOptions) -> ExitCode {
    if let Task::Guard { directory, prefix } = &options.task {
        return ExitCode::from(guard::keep(directory, prefix));
    }
    let done = Stop::listen().and_then(|(runtime, stop)| {
        let stop = &stop;
        let done = match &options.task {
            Task::Netns(options) => netns::run(options, stop).and_then(|done| summarize(&done, done.errors)),
            Task::Tcp(options) => tcp::run(options, stop).and_then(|done| summarize(&done, done.errors)),
            Task::Guard { .. } => Ok(WELL),
        };
        // Nothing of it is waited for.
        runtime.shutdown_background();
        done
    });
    done.map_or_else(
        |error| {
            say(&format!("error: {error}"));
            ExitCode::from(FAILED)
        },
        ExitCode::from,
    )
}

/// Prints what was done, and gives the status.
fn summarize(summary: &impl Serialize, errors: u64) -> Result<u8, LoadError> {
    let mut line = serde_json::to_string(summary)
        .map_err(|error| system("write the summary")(io::Error::other(error)))?;
    line.push('\n');
    match io::stdout().lock().write_all(line.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(system("write the summary")(error)),
        _ => Ok(if errors == 0 { WELL } else { WITH_ERRORS }),
    }
}

fn say(text: &str) {
    // Standard error may be closed; the status still tells.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Makes room for so many descriptors.
fn make_room(descriptors: u64) -> Result<(), LoadError> {
    let needed = descriptors.saturating_add(OWN_DESCRIPTORS);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(system("read the descriptor limit"))?;
    if needed > hard {
        return Err(LoadError::Descriptors { needed, limit: hard });
    }
    if needed > soft {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(system("raise the descriptor limit"))?;
    }
    Ok(())
}

/// A namespace as the log and the errors have it.
#[derive(Clone, Copy, Debug, Serialize)]
struct Identity {
    /// Inode in nsfs.
    inode: u32,
    /// `SO_NETNS_COOKIE`; 0 before 5.14.
    cookie: u64,
}

impl From<NetnsId> for Identity {
    fn from(id: NetnsId) -> Self {
        Self { inode: id.inode, cookie: id.cookie }
    }
}
