//! The Docker Engine API on its socket: what Docker and Podman tell of their containers. Only reads: lists, one
//! container, and the stream of events.

mod bounded;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::time::SystemTime;

use bollard::Docker as Client;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerSummary, EventMessage};
use bollard::query_parameters::{EventsOptions, ListContainersOptions};
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep_until};

use super::directory::{ContainerFacts, PodFacts, Question};
use super::engine::{Engine, EngineError, Link};
use super::{Container, Pod, Source};
use bounded::Allowances;

/// The engine.
pub(super) struct Docker;

impl Engine for Docker {
    const NAME: &'static str = "docker";

    async fn session(link: &Link) -> EngineError {
        let allowances = Allowances::new(link.pace.longest);
        match follow(link, &allowances).await {
            _ if allowances.are_spent() => EngineError::TooLong(link.pace.longest),
            Ok(()) => EngineError::Connection("its events ended".to_owned()),
            Err(error) => error,
        }
    }

    async fn once(link: &Link) -> Result<(), EngineError> {
        let allowances = Allowances::new(link.pace.longest);
        let told = async { Session::begin(link, &allowances).await?.list().await }.await;
        if allowances.are_spent() { Err(EngineError::TooLong(link.pace.longest)) } else { told }
    }
}

/// What labels of a container say when it is a pod's, made by dockershim's heir.
mod label {
    pub(super) const POD_NAME: &str = "io.kubernetes.pod.name";
    pub(super) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub(super) const POD_UID: &str = "io.kubernetes.pod.uid";
    pub(super) const TYPE: &str = "io.kubernetes.docker.type";
    pub(super) const SANDBOX: &str = "podsandbox";
}

fn failed(error: Error) -> EngineError {
    match error {
        Error::RequestTimeoutError => EngineError::Timeout("a request"),
        Error::DockerResponseServerError { status_code, message } => {
            EngineError::Answer(format!("status {status_code}: {message}"))
        }
        Error::JsonDataError { message, .. } => EngineError::Answer(message),
        Error::JsonSerdeError { err } => EngineError::Answer(err.to_string()),
        other => EngineError::Connection(other.to_string()),
    }
}

/// What is said of one socket.
struct Session<'a> {
    link: &'a Link,
    client: Client,
    runtime: &'static str,
}

async fn follow(link: &Link, allowances: &Allowances) -> Result<(), EngineError> {
    let session = Session::begin(link, allowances).await?;
    // From before the list on, so that nothing happens unseen between the two.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let options = EventsOptions {
        since: Some(since.to_string()),
        filters: Some(HashMap::from([("type".to_owned(), vec!["container".to_owned()])])),
        ..EventsOptions::default()
    };
    session.list().await?;
    link.counters.up();
    tracing::info!(socket = %link.socket.display(), runtime = session.runtime, "following a container engine");
    let mut events = pin!(session.client.events(Some(options)));
    let mut relist = Instant::now() + link.pace.relist;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => {
                    allowances.event_taken();
                    link.counters.event();
                    session.happened(event).await?;
                }
                Some(Err(error)) => return Err(failed(error)),
                None => return Ok(()),
            },
            () = sleep_until(relist) => {
                session.list().await?;
                relist = Instant::now() + link.pace.relist;
            }
        }
    }
}

impl<'a> Session<'a> {
    /// Finds out who answers.
    async fn begin(link: &'a Link, allowances: &Allowances) -> Result<Self, EngineError> {
        let (socket, allowances) = (link.socket.clone(), allowances.clone());
        let way = move |request| bounded::ask(socket.clone(), allowances.clone(), request);
        let seconds = link.pace.answer.as_secs().max(1);
        let host = Some("http://localhost");
        let client = Client::connect_with_custom_transport(way, host, seconds, bollard::API_DEFAULT_VERSION)
            .map_err(failed)?;
        let version = link.answer("version", async { client.version().await.map_err(failed) }).await?;
        let components = version.components.unwrap_or_default();
        let is_podman = components.iter().any(|component| component.name.contains("Podman"));
        Ok(Self { link, client, runtime: if is_podman { "podman" } else { "docker" } })
    }

    /// All that run.
    async fn list(&self) -> Result<(), EngineError> {
        let options = ListContainersOptions { all: false, ..ListContainersOptions::default() };
        let running = self
            .link
            .answer("the list of containers", async {
                self.client.list_containers(Some(options)).await.map_err(failed)
            })
            .await?;
        let (containers, pods): (Vec<_>, Vec<_>) =
            running.into_iter().filter_map(|summary| self.of_summary(summary)).unzip();
        let ids: HashSet<String> = containers.iter().map(|facts| facts.container.id.clone()).collect();
        self.link.directory.keep_containers(Source::Docker, self.runtime, &ids);
        self.link.directory.learn(containers, pods.into_iter().flatten().collect());
        // A list names no processes, and events of containers that began before it may be lost.
        self.link.directory.want_look();
        Ok(())
    }

    async fn happened(&self, event: EventMessage) -> Result<(), EngineError> {
        let Some(id) = event.actor.and_then(|actor| actor.id) else { return Ok(()) };
        match event.action.as_deref() {
            // Docker's word and Podman's.
            Some("destroy" | "remove") => self.link.directory.forget_container(&id),
            Some("start" | "restart" | "rename" | "update" | "unpause") => self.inspect(&id).await?,
            _ => {}
        }
        Ok(())
    }

    async fn inspect(&self, id: &str) -> Result<(), EngineError> {
        let asked = self
            .link
            .answer("a container", async { Ok(self.client.inspect_container(id, None).await) })
            .await?;
        let found = match asked {
            Ok(found) => found,
            // It is gone again.
            Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let pid = found.state.as_ref().and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok());
        if let Some((container, pod)) = self.of_inspection(found) {
            self.link.directory.learn(vec![container], pod.into_iter().collect());
        }
        if let Some(pid) = pid.filter(|pid| *pid != 0) {
            self.link.directory.ask(Question::Process(pid));
        }
        Ok(())
    }

    fn of_summary(&self, summary: ContainerSummary) -> Option<(ContainerFacts, Option<PodFacts>)> {
        let ContainerSummary { id, names, image, labels, .. } = summary;
        let name = names.unwrap_or_default().into_iter().next().unwrap_or_default();
        Some(self.facts(id?, &name, image.unwrap_or_default(), &labels.unwrap_or_default()))
    }

    fn of_inspection(&self, found: ContainerInspectResponse) -> Option<(ContainerFacts, Option<PodFacts>)> {
        let ContainerInspectResponse { id, name, config, .. } = found;
        let config = config.unwrap_or_default();
        let labels = config.labels.unwrap_or_default();
        Some(self.facts(id?, &name.unwrap_or_default(), config.image.unwrap_or_default(), &labels))
    }

    fn facts(
        &self,
        id: String,
        name: &str,
        image: String,
        labels: &HashMap<String, String>,
    ) -> (ContainerFacts, Option<PodFacts>) {
        let opted_out = self.link.opt_out.iter().any(|label| label.is_in(labels));
        let text = |key: &str| labels.get(key).filter(|text| !text.is_empty()).cloned();
        let pod_uid = text(label::POD_UID);
        let is_sandbox = labels.get(label::TYPE).is_some_and(|kind| kind == label::SANDBOX);
        let pod = pod_uid.clone().map(|uid| PodFacts {
            pod: Pod {
                name: text(label::POD_NAME).unwrap_or_default(),
                namespace: text(label::POD_NAMESPACE).unwrap_or_default(),
                uid,
                // A container's labels are not its pod's; its sandbox's are.
                labels: if is_sandbox { self.link.pod_labels.of(labels) } else { Vec::new() },
            },
            opted_out: is_sandbox && opted_out,
            source: Source::Docker,
        });
        // Of a pod its sandbox tells more than its containers do.
        let pod = pod.filter(|_| is_sandbox);
        let name = name.trim_start_matches('/').to_owned();
        // Podman's own pods have one that only holds their namespaces.
        let is_infra = self.runtime == "podman" && name.ends_with("-infra") && image.contains("pause");
        let container = Container { id, name, image, runtime: self.runtime.to_owned() };
        let facts = ContainerFacts {
            container,
            pod_uid,
            is_sandbox: is_sandbox || is_infra,
            opted_out,
            source: Source::Docker,
        };
        (facts, pod)
    }
}

#[cfg(test)]
mod tests;
