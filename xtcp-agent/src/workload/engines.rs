//! The clients of container engines: what starts them, and what asks them once.

use std::path::PathBuf;

use futures_util::future::join_all;
use prometheus::Registry;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::cri::Cri;
use super::directory::Directory;
use super::docker::Docker;
use super::engine::{Engine, EngineError, EngineMetrics, Link, Pace, exists, keep_in_touch};
use super::socket::Sockets;
use super::{PATIENCE, Settings, socket};

/// Counters of all engines.
#[derive(Clone)]
pub(super) struct Metrics(EngineMetrics);

impl Metrics {
    /// Registers everything under `xtcp_`.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        EngineMetrics::register(registry).map(Self)
    }

    /// Shows what is counted of an engine.
    #[cfg(test)]
    pub(super) fn show(&self) {
        self.0.of("docker", "/run/docker.sock".as_ref()).show();
    }
}

/// Stays in touch with each socket, in a task of its own, until `stop`.
pub(super) fn start(settings: &Settings, directory: &Directory, metrics: &Metrics, stop: &CancellationToken) {
    let all = Links { settings, directory, metrics, pace: Pace::USUAL };
    for link in all.of::<Docker>(&settings.docker, socket::DOCKER) {
        tokio::spawn(keep_in_touch::<Docker>(link, stop.clone()));
    }
    for link in all.of::<Cri>(&settings.cri, socket::CRI) {
        tokio::spawn(keep_in_touch::<Cri>(link, stop.clone()));
    }
}

/// Asks each socket that is there, or was named, for everything, all at the same time; who did not tell within
/// [`PATIENCE`] and why, each in one line.
pub(super) async fn ask_once(settings: &Settings, directory: &Directory, metrics: &Metrics) -> Vec<String> {
    let pace = Pace { answer: PATIENCE, ..Pace::USUAL };
    let all = Links { settings, directory, metrics, pace };
    let docker = all.of::<Docker>(&settings.docker, socket::DOCKER).into_iter();
    let docker = join_all(docker.map(|link| once::<Docker>(link, settings.docker.are_named())));
    let cri = all.of::<Cri>(&settings.cri, socket::CRI).into_iter();
    let cri = join_all(cri.map(|link| once::<Cri>(link, settings.cri.are_named())));
    let (docker, cri) = tokio::join!(docker, cri);
    docker.into_iter().chain(cri).flatten().collect()
}

async fn once<E: Engine>(link: Link, named: bool) -> Option<String> {
    if !named && !exists(&link.socket) {
        return None;
    }
    let told = timeout(PATIENCE, E::once(&link)).await;
    let error = told.unwrap_or(Err(EngineError::Timeout("all questions"))).err()?;
    Some(format!("{}: {error}", link.socket.display()))
}

/// What all links have in common.
struct Links<'a> {
    settings: &'a Settings,
    directory: &'a Directory,
    metrics: &'a Metrics,
    pace: Pace,
}

impl Links<'_> {
    /// A link for each socket; of those that were named what is counted is shown.
    fn of<E: Engine>(&self, sockets: &Sockets, usual: &[&str]) -> Vec<Link> {
        let link = |socket: PathBuf| {
            let link = Link {
                counters: self.metrics.0.of(E::NAME, &socket),
                socket,
                directory: self.directory.clone(),
                pod_labels: self.settings.pod_labels.clone(),
                opt_out: self.settings.opt_out.clone().into(),
                pace: self.pace,
            };
            if sockets.are_named() {
                link.counters.show();
            }
            link
        };
        sockets.paths(usual).into_iter().map(link).collect()
    }
}
