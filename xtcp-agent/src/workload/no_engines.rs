//! In place of the clients of container engines, in a build without the feature `engines`: names and images are not
//! known; ids and units are, by the paths of cgroups.
#![allow(clippy::unnecessary_wraps, clippy::unused_async, reason = "as the clients of engines are called")]

use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::directory::Directory;
use super::socket::Sockets;

/// Nothing is counted.
#[derive(Clone)]
pub(super) struct Metrics;

impl Metrics {
    /// Registers nothing.
    pub(super) fn register(_: &Registry) -> prometheus::Result<Self> {
        Ok(Self)
    }

    /// Shows nothing.
    #[cfg(test)]
    pub(super) fn show(&self) {}
}

/// Says of each socket that was named that nobody asks it.
pub(super) fn start(settings: &Settings, _: &Directory, _: &Metrics, _: &CancellationToken) {
    for silent in named(settings) {
        tracing::warn!("{silent}");
    }
}

/// The same, for a command.
pub(super) async fn ask_once(settings: &Settings, _: &Directory, _: &Metrics) -> Vec<String> {
    named(settings).collect()
}

fn named(settings: &Settings) -> impl Iterator<Item = String> {
    let named = [&settings.docker, &settings.cri].into_iter().filter(|sockets| sockets.are_named());
    named.flat_map(|sockets: &Sockets| sockets.paths(&[])).map(|socket| {
        format!("{}: this build has no clients of container engines (feature `engines`)", socket.display())
    })
}
