//! The registry's words in the words of the change events.

use xtcp_proto::event::v1::NetnsSource;

use crate::netns::registry::Source;

/// How a beginning or an end became known.
pub(super) fn source(source: Source) -> NetnsSource {
    match source {
        Source::KernelFunction => NetnsSource::KernelFunction,
        Source::Process => NetnsSource::Process,
        Source::Cleanup => NetnsSource::Cleanup,
        Source::Reconcile => NetnsSource::Reconcile,
        Source::Socket => NetnsSource::Socket,
        Source::Entry => NetnsSource::Entry,
        Source::Setns => NetnsSource::Setns,
        Source::Nsid => NetnsSource::Nsid,
    }
}

/// A NUL-padded command name; bytes that are not UTF-8 are replaced.
pub(super) fn comm(comm: &[u8; 16]) -> String {
    let name = comm.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}
