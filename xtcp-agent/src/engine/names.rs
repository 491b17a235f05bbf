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
