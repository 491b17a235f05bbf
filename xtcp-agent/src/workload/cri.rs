//! The Container Runtime Interface on its socket: what containerd and CRI-O tell of pods and containers. Only reads: the
//! runtime's name, lists, a sandbox's state, and the stream of events where there is one (CRI-O, containerd since 1.7).

mod api;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use self::api::{
    ContainerEvent, Empty, ListContainersRequest, ListContainersResponse, ListPodSandboxRequest,
    ListPodSandboxResponse, PodSandboxStatusRequest, PodSandboxStatusResponse, VersionRequest,
    VersionResponse,
};
use super::directory::{ContainerFacts, PodFacts, Question};
use super::engine::{Engine, EngineError, Link};
use super::{Container, Pod, Source};

/// After an event the list is asked for this much later, so that a burst of them costs one list; and lists take at most
/// one in so many parts of the time.
const SETTLE: Duration = Duration::from_millis(50);
const REST: u32 = 4;
/// Where no events are told, a container that was met and not told asks for the list this much later (it may have
/// connections before the runtime calls it running), and so much after the list before.
const MEET: Duration = Duration::from_millis(200);
const MEET_REST: Duration = Duration::from_secs(1);
/// Sandboxes whose process is asked for after one list at most: the others are found by looks.
const SANDBOXES_PER_LIST: usize = 64;

/// The engine.
pub(super) struct Cri;

impl Engine for Cri {
    const NAME: &'static str = "cri";

    async fn session(link: &Link) -> EngineError {
        match follow(link).await {
            Ok(()) => EngineError::Connection("its events ended".to_owned()),
            Err(error) => error,
        }
    }

    async fn once(link: &Link) -> Result<(), EngineError> {
        Session::begin(link).await?.learn().await.map(drop)
    }
}

/// What is said of one socket.
struct Session<'a> {
    link: &'a Link,
    client: Grpc<Channel>,
    runtime: String,
    /// Sandboxes whose process was asked for.
    known: HashSet<String>,
    /// Sandbox → its pod's uid.
    uids: HashMap<String, String>,
    /// How long the last list took.
    took: Duration,
}

/// What containerd and CRI-O say of a sandbox in words of their own.
#[derive(Deserialize)]
struct Info {
    pid: Option<u32>,
}

fn failed(what: &'static str) -> impl Fn(Status) -> EngineError {
    move |status| match status.code() {
        Code::Unimplemented => EngineError::NotOffered(what),
        Code::DeadlineExceeded => EngineError::Timeout(what),
        Code::Unavailable | Code::Cancelled => EngineError::Connection(status.message().to_owned()),
        _ => EngineError::Answer(format!("{what}: {}", status.message())),
    }
}

async fn follow(link: &Link) -> Result<(), EngineError> {
    let mut session = Session::begin(link).await?;
    // Before the list, so that nothing happens unseen between the two.
    let mut events = match session.events().await {
        Ok(events) => Some(events),
        Err(EngineError::NotOffered(_)) => None,
        Err(error) => return Err(error),
    };
    let mut strangers = link.directory.strangers();
    session.list().await?;
    link.counters.up();
    let follows = if events.is_some() { "its events" } else { "lists, as it has no events" };
    tracing::info!(socket = %link.socket.display(), runtime = session.runtime, "following a container runtime by {follows}");
    let pause = |events: &Option<_>| if events.is_some() { link.pace.relist } else { link.pace.list };
    let mut listed = Instant::now();
    let mut relist = listed + pause(&events);
    loop {
        let has_events = events.is_some();
        tokio::select! {
            event = next(&mut events) => match event {
                Ok(Some(event)) => {
                    link.counters.event();
                    // Events carry what was; the list says what is.
                    session.happened(&event);
                    relist = relist.min(Instant::now() + SETTLE.max(session.took * REST));
                }
                Ok(None) => return Ok(()),
                // Said with the first message only, by runtimes that have switched it off.
                Err(error) if error.code() == Code::Unimplemented => {
                    events = None;
                    relist = Instant::now() + pause(&events);
                }
                Err(error) => return Err(failed("events")(error)),
            },
            Ok(()) = strangers.changed(), if !has_events => {
                relist = relist.min((Instant::now() + MEET).max(listed + MEET_REST));
            }
            () = sleep_until(relist) => {
                session.list().await?;
                listed = Instant::now();
                relist = listed + pause(&events);
            }
        }
    }
}

/// The next event; never, where there are none.
async fn next(events: &mut Option<Streaming<ContainerEvent>>) -> Result<Option<ContainerEvent>, Status> {
    match events {
        Some(events) => events.message().await,
        None => std::future::pending().await,
    }
}

impl<'a> Session<'a> {
    /// Finds out who answers.
    async fn begin(link: &'a Link) -> Result<Self, EngineError> {
        let connection = |error: tonic::transport::Error| {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            EngineError::Connection(format!("{error}{cause}"))
        };
        let endpoint = Endpoint::from_shared(format!("unix:{}", link.socket.display()))
            .map_err(connection)?
            .connect_timeout(link.pace.answer);
        let connect = async { endpoint.connect().await.map_err(connection) };
        let channel = link.answer("a connection", connect).await?;
        let client = Grpc::new(channel).max_decoding_message_size(link.pace.longest);
        let mut session = Self {
            link,
            client,
            runtime: String::new(),
            known: HashSet::new(),
            uids: HashMap::new(),
            took: Duration::ZERO,
        };
        let version: VersionResponse = session.ask("Version", VersionRequest::default()).await?;
        session.runtime = version.runtime_name;
        Ok(session)
    }

    async fn ask<Q, A>(&mut self, method: &'static str, question: Q) -> Result<A, EngineError>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let client = &mut self.client;
        let asked = async {
            client.ready().await.map_err(|error| EngineError::Connection(error.to_string()))?;
            let path = path(method);
            let answer = client.unary(Request::new(question), path, ProstCodec::<Q, A>::default()).await;
            answer.map(tonic::Response::into_inner).map_err(failed(method))
        };
        self.link.answer(method, asked).await
    }

    async fn events(&mut self) -> Result<Streaming<ContainerEvent>, EngineError> {
        let client = &mut self.client;
        let pace = self.link.pace;
        let asked = async {
            client.ready().await.map_err(|error| EngineError::Connection(error.to_string()))?;
            let codec = ProstCodec::<Empty, ContainerEvent>::default();
            let answer =
                client.server_streaming(Request::new(Empty {}), path("GetContainerEvents"), codec).await;
            answer.map(tonic::Response::into_inner).map_err(failed("GetContainerEvents"))
        };
        // Some runtimes send the headers of the stream with its first message only.
        match tokio::time::timeout(pace.answer, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(EngineError::NotOffered("GetContainerEvents")),
        }
    }

    fn happened(&mut self, event: &ContainerEvent) {
        /// `CONTAINER_DELETED_EVENT`.
        const DELETED: i32 = 3;
        if event.container_event_type == DELETED {
            self.link.directory.forget_container(&event.container_id);
            self.known.remove(&event.container_id);
        }
    }

    /// All sandboxes that are ready and all containers that run.
    async fn list(&mut self) -> Result<(), EngineError> {
        let began = Instant::now();
        self.list_and_find().await?;
        self.took = began.elapsed();
        Ok(())
    }

    async fn list_and_find(&mut self) -> Result<(), EngineError> {
        let (ready, ids) = self.learn().await?;
        self.known.retain(|id| ids.contains(id));
        let new: Vec<String> = ready.into_iter().filter(|id| !self.known.contains(id)).collect();
        for id in new.into_iter().take(SANDBOXES_PER_LIST) {
            self.find_process(&id).await?;
            self.known.insert(id);
        }
        Ok(())
    }

    /// Takes in what there is: the sandboxes that are ready, and the ids of all.
    async fn learn(&mut self) -> Result<(Vec<String>, HashSet<String>), EngineError> {
        let sandboxes: ListPodSandboxResponse =
            self.ask("ListPodSandbox", ListPodSandboxRequest::default()).await?;
        let containers: ListContainersResponse =
            self.ask("ListContainers", ListContainersRequest::running()).await?;
        let (mut pods, mut facts) = (Vec::new(), Vec::new());
        self.uids.clear();
        for sandbox in &sandboxes.items {
            let Some(metadata) = &sandbox.metadata else { continue };
            self.uids.insert(sandbox.id.clone(), metadata.uid.clone());
            facts.push(ContainerFacts {
                container: Container {
                    id: sandbox.id.clone(),
                    runtime: self.runtime.clone(),
                    ..Container::default()
                },
                pod_uid: Some(metadata.uid.clone()),
                is_sandbox: true,
                opted_out: false,
                source: Source::Cri,
            });
            if !sandbox.is_ready() {
                // Of a pod's former sandbox only what it was called counts: the next one says the rest.
                continue;
            }
            pods.push(PodFacts {
                pod: Pod {
                    name: metadata.name.clone(),
                    namespace: metadata.namespace.clone(),
                    uid: metadata.uid.clone(),
                    labels: self.link.pod_labels.of(&sandbox.labels),
                },
                opted_out: self.link.opt_out.iter().any(|label| label.is_in(&sandbox.labels)),
                source: Source::Cri,
            });
        }
        for container in containers.containers {
            let image = container.image.map(api::ImageSpec::name).unwrap_or_default();
            facts.push(ContainerFacts {
                container: Container {
                    id: container.id,
                    name: container.metadata.map(|metadata| metadata.name).unwrap_or_default(),
                    image,
                    runtime: self.runtime.clone(),
                },
                pod_uid: self.uids.get(&container.pod_sandbox_id).cloned(),
                is_sandbox: false,
                opted_out: self.link.opt_out.iter().any(|label| label.is_in(&container.labels)),
                source: Source::Cri,
            });
        }
        let ids: HashSet<String> = facts.iter().map(|facts| facts.container.id.clone()).collect();
        self.link.directory.keep_containers(Source::Cri, &self.runtime, &ids);
        self.link.directory.learn(facts, pods);
        let ready = sandboxes.items.into_iter().filter(api::PodSandbox::is_ready);
        Ok((ready.map(|sandbox| sandbox.id).collect(), ids))
    }

    /// Asks in which process a sandbox lives, so that its namespace is known at once.
    async fn find_process(&mut self, id: &str) -> Result<(), EngineError> {
        let question = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let status: PodSandboxStatusResponse = match self.ask("PodSandboxStatus", question).await {
            Ok(status) => status,
            // It is gone again.
            Err(EngineError::Answer(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let info = status.info.get("info").and_then(|text| serde_json::from_str::<Info>(text).ok());
        if let Some(pid) = info.and_then(|info| info.pid).filter(|pid| *pid != 0) {
            self.link.directory.ask(Question::Process(pid));
        }
        Ok(())
    }
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"))
        .unwrap_or_else(|_| PathAndQuery::from_static("/"))
}

#[cfg(test)]
mod tests;
