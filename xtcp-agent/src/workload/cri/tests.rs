use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Response;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc as Server, NamedService, ServerStreamingService, UnaryService};

use super::api::{ContainerMetadata, ImageSpec, PodSandbox, PodSandboxMetadata};
use super::*;
use crate::workload::engine::tests::{Serving, Stage, eventually};

type Answer<A> = Pin<Box<dyn Future<Output = Result<Response<A>, Status>> + Send>>;

/// What a fake runtime has.
#[derive(Clone)]
struct Fake {
    sandboxes: Arc<Mutex<Vec<PodSandbox>>>,
    containers: Arc<Mutex<Vec<api::Container>>>,
    events: Option<broadcast::Sender<ContainerEvent>>,
}

/// One answer, whatever the question.
struct Reply<A>(A);

impl<Q, A: Send + 'static> UnaryService<Q> for Reply<A>
where
    A: Clone,
{
    type Response = A;
    type Future = Answer<A>;

    fn call(&mut self, _: Request<Q>) -> Self::Future {
        let answer = self.0.clone();
        Box::pin(async move { Ok(Response::new(answer)) })
    }
}

struct Events(broadcast::Sender<ContainerEvent>);

impl ServerStreamingService<Empty> for Events {
    type Response = ContainerEvent;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<ContainerEvent, Status>> + Send>>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, _: Request<Empty>) -> Self::Future {
        let events = BroadcastStream::new(self.0.subscribe()).filter_map(Result::ok).map(Ok);
        let events: Self::ResponseStream = Box::pin(events);
        Box::pin(async move { Ok(Response::new(events)) })
    }
}

impl NamedService for Fake {
    const NAME: &'static str = "runtime.v1.RuntimeService";
}

impl Service<http::Request<Body>> for Fake {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let fake = self.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            Ok(match method.as_str() {
                "Version" => {
                    let version = VersionResponse { runtime_name: "containerd".to_owned() };
                    Server::new(ProstCodec::<_, VersionRequest>::default())
                        .unary(Reply(version), request)
                        .await
                }
                "ListPodSandbox" => {
                    let items = fake.sandboxes.lock().unwrap().clone();
                    let answer = Reply(ListPodSandboxResponse { items });
                    Server::new(ProstCodec::<_, ListPodSandboxRequest>::default())
                        .unary(answer, request)
                        .await
                }
                "ListContainers" => {
                    let containers = fake.containers.lock().unwrap().clone();
                    let answer = Reply(ListContainersResponse { containers });
                    Server::new(ProstCodec::<_, ListContainersRequest>::default())
                        .unary(answer, request)
                        .await
                }
                "PodSandboxStatus" => {
                    let info = [("info".to_owned(), r#"{"pid":4242,"other":{}}"#.to_owned())].into();
                    let answer = Reply(PodSandboxStatusResponse { info });
                    Server::new(ProstCodec::<_, PodSandboxStatusRequest>::default())
                        .unary(answer, request)
                        .await
                }
                "GetContainerEvents" if fake.events.is_some() => {
                    let events = Events(fake.events.unwrap());
                    Server::new(ProstCodec::<_, Empty>::default()).server_streaming(events, request).await
                }
                _ => Status::unimplemented("not here").into_http(),
            })
        })
    }
}

impl Fake {
    fn new(with_events: bool) -> Self {
        let events = with_events.then(|| broadcast::channel(64).0);
        Self { sandboxes: Arc::default(), containers: Arc::default(), events }
    }

    fn pod(&self, sandbox: &str, name: &str, uid: &str, labels: &[(&str, &str)]) {
        let metadata =
            PodSandboxMetadata { name: name.to_owned(), uid: uid.to_owned(), namespace: "shop".to_owned() };
        self.sandboxes.lock().unwrap().push(PodSandbox {
            id: sandbox.to_owned(),
            metadata: Some(metadata),
            state: 0,
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        });
    }

    fn container(&self, sandbox: &str, id: &str, name: &str) {
        self.containers.lock().unwrap().push(api::Container {
            id: id.to_owned(),
            pod_sandbox_id: sandbox.to_owned(),
            metadata: Some(ContainerMetadata { name: name.to_owned() }),
            image: Some(ImageSpec { image: format!("registry/{name}:1"), ..ImageSpec::default() }),
            labels: HashMap::new(),
        });
    }

    fn tell(&self, kind: i32, id: &str) {
        let event = ContainerEvent { container_id: id.to_owned(), container_event_type: kind };
        // Nobody listens while the agent is connecting; then it lists afterwards.
        let _ = self.events.as_ref().unwrap().send(event);
    }

    fn serve(&self, stage: &Stage) -> Serving {
        let server = tonic::transport::Server::builder().add_service(self.clone());
        stage.serve(|listener| async {
            server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        })
    }
}

const PAUSE: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";
const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";

fn known(stage: &Stage, id: &str) -> Arc<crate::workload::Workload> {
    stage.directory.of_cgroup(&format!("/kubepods/burstable/pod{UID}/{id}")).unwrap()
}

#[tokio::test]
async fn pods_and_containers_have_the_names_that_the_runtime_lists() {
    for with_events in [true, false] {
        let mut stage = Stage::new();
        let fake = Fake::new(with_events);
        fake.pod(PAUSE, "web-7d", UID, &[("app", "web"), ("xtcp2.io/exclude", "true")]);
        fake.container(PAUSE, A, "web");
        let _serving = fake.serve(&stage);
        stage.follow::<Cri>();
        eventually("the list", || stage.link.counters.is_up()).await;
        let app = known(&stage, A);
        let expected = Container {
            id: A.to_owned(),
            name: "web".to_owned(),
            image: "registry/web:1".to_owned(),
            runtime: "containerd".to_owned(),
        };
        assert_eq!(app.container.as_ref(), Some(&expected));
        let pod = app.pod.as_ref().unwrap();
        assert_eq!((pod.to_string().as_str(), pod.uid.as_str()), ("shop/web-7d", UID));
        assert_eq!(
            (pod.labels.as_slice(), app.source, app.opted_out),
            (&["app=web".to_owned()][..], Source::Cri, true)
        );
        assert_eq!(known(&stage, PAUSE).container, None);
        assert!(stage.questions.try_iter().any(|question| question == Question::Process(4242)));

        // What comes later is told, or found by the next list.
        let second = "b".repeat(64);
        fake.container(PAUSE, &second, "log");
        eventually("the second container", || {
            if with_events {
                fake.tell(1, &second);
            }
            known(&stage, &second).container.as_ref().is_some_and(|container| container.name == "log")
        })
        .await;
        stage.end().await;
    }
}

#[tokio::test]
async fn a_runtime_without_events_is_asked_when_a_container_is_met_that_it_did_not_tell() {
    let mut stage = Stage::new();
    stage.link.pace.list = Duration::from_secs(3600);
    let fake = Fake::new(false);
    fake.pod(PAUSE, "web-7d", UID, &[]);
    let _serving = fake.serve(&stage);
    stage.follow::<Cri>();
    eventually("the list", || stage.link.counters.is_up()).await;
    fake.container(PAUSE, A, "web");
    eventually("the name", || known(&stage, A).container.as_ref().is_some_and(|found| found.name == "web"))
        .await;
    stage.end().await;
}

#[tokio::test]
async fn a_runtime_that_comes_back_is_asked_for_everything_again() {
    let mut stage = Stage::new();
    let fake = Fake::new(false);
    fake.pod(PAUSE, "web-7d", UID, &[]);
    stage.follow::<Cri>();
    let serving = fake.serve(&stage);
    eventually("the list", || stage.link.counters.is_up()).await;
    drop(serving);
    eventually("the end of the session", || !stage.link.counters.is_up()).await;
    let fake = Fake::new(true);
    fake.pod(PAUSE, "web-8e", UID, &[]);
    let _serving = fake.serve(&stage);
    eventually("the new name", || known(&stage, PAUSE).pod.as_ref().is_some_and(|pod| pod.name == "web-8e"))
        .await;
    stage.end().await;
}

#[tokio::test]
async fn a_socket_that_offers_no_cri_is_counted_as_such() {
    let mut stage = Stage::new();
    let (_, health) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().add_service(health);
    let _serving = stage.serve(|listener| async {
        server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
    });
    stage.follow::<Cri>();
    eventually("that it is not offered", || stage.failures("not_offered") >= 2).await;
    stage.end().await;
}
