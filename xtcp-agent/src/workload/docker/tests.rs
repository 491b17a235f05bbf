use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::*;
use crate::workload::engine::tests::{Serving, Stage, eventually};

/// Name, image and labels by id.
type Containers = HashMap<String, (String, String, Value)>;

/// What a fake engine has.
#[derive(Clone)]
struct Fake {
    podman: bool,
    containers: Arc<Mutex<Containers>>,
    events: broadcast::Sender<Bytes>,
}

impl Fake {
    fn new(podman: bool) -> Self {
        Self { podman, containers: Arc::default(), events: broadcast::channel(64).0 }
    }

    fn put(&self, id: &str, name: &str, labels: Value) {
        let container = (name.to_owned(), format!("registry/{name}:1"), labels);
        self.containers.lock().unwrap().insert(id.to_owned(), container);
    }

    fn tell(&self, action: &str, id: &str) {
        let event =
            json!({"Type": "container", "Action": action, "Actor": {"ID": id, "Attributes": {}}, "time": 1});
        // Nobody listens while the agent is connecting; then it lists afterwards.
        let _ = self.events.send(Bytes::from(format!("{event}\n")));
    }

    fn serve(&self, stage: &Stage) -> Serving {
        let router = Router::new().fallback(answer).with_state(self.clone());
        stage.serve(|listener| async { axum::serve(listener, router).await.unwrap() })
    }
}

async fn answer(State(fake): State<Fake>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    // `/v1.52/containers/json`: the version comes first.
    let parts: Vec<&str> =
        path.split('/').skip_while(|part| part.is_empty() || part.starts_with("v1.")).collect();
    let value = match parts.as_slice() {
        ["version"] => {
            let name = if fake.podman { "Podman Engine" } else { "Engine" };
            json!({"ApiVersion": "1.41", "Components": [{"Name": name, "Version": "5"}]})
        }
        ["containers", "json"] => {
            let containers = fake.containers.lock().unwrap();
            containers
                .iter()
                .map(|(id, (name, image, labels))| {
                    json!({"Id": id, "Names": [format!("/{name}")], "Image": image, "Labels": labels})
                })
                .collect()
        }
        ["containers", id, "json"] => {
            let Some((name, image, labels)) = fake.containers.lock().unwrap().get(*id).cloned() else {
                let message = Body::from(json!({"message": "no such container"}).to_string());
                return Response::builder().status(404).body(message).unwrap();
            };
            json!({
                "Id": id, "Name": format!("/{name}"), "Config": {"Image": image, "Labels": labels},
                "State": {"Pid": 4242},
            })
        }
        ["events"] => {
            let events =
                BroadcastStream::new(fake.events.subscribe()).filter_map(|event| async { event.ok() });
            return Response::new(Body::from_stream(events.map(Ok::<_, Infallible>)));
        }
        other => panic!("nobody should ask for {other:?}"),
    };
    Response::builder()
        .header("content-type", "application/json")
        .body(Body::from(value.to_string()))
        .unwrap()
}

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn container(stage: &Stage, id: &str) -> Container {
    stage.directory.of_cgroup(&format!("/docker/{id}")).unwrap().container.clone().unwrap()
}

#[tokio::test]
async fn containers_have_the_names_that_the_engine_lists_and_tells_of_and_lose_them_with_it() {
    let mut stage = Stage::new();
    let fake = Fake::new(false);
    fake.put(A, "web", json!({}));
    let _serving = fake.serve(&stage);
    stage.follow::<Docker>();
    eventually("the list", || stage.link.counters.is_up()).await;
    let expected = Container {
        id: A.to_owned(),
        name: "web".to_owned(),
        image: "registry/web:1".to_owned(),
        runtime: "docker".to_owned(),
    };
    assert_eq!(container(&stage, A), expected);
    assert!(stage.directory.take_changes().look, "a list tells of no process: they are looked for");

    fake.put(B, "db", json!({"xtcp2.io/exclude": "true"}));
    eventually("the event of a start", || {
        fake.tell("start", B);
        container(&stage, B).name == "db"
    })
    .await;
    assert!(stage.directory.of_cgroup(&format!("/docker/{B}")).unwrap().opted_out);
    assert!(stage.questions.try_iter().any(|question| question == Question::Process(4242)));

    fake.put(A, "renamed", json!({}));
    fake.tell("rename", A);
    eventually("another name", || container(&stage, A).name == "renamed").await;
    // One that is gone before it is asked for.
    fake.tell("start", &"c".repeat(64));
    fake.put(B, "still-there", json!({}));
    fake.tell("rename", B);
    eventually("another name", || container(&stage, B).name == "still-there").await;
    assert!(stage.link.counters.is_up(), "a container that is gone breaks nothing");
    stage.end().await;
}

#[tokio::test]
async fn an_engine_that_comes_back_is_asked_for_everything_again() {
    let mut stage = Stage::new();
    let fake = Fake::new(true);
    fake.put(A, "web", json!({}));
    stage.follow::<Docker>();
    let serving = fake.serve(&stage);
    eventually("the list", || stage.link.counters.is_up()).await;
    assert_eq!(container(&stage, A).runtime, "podman");
    drop(serving);
    eventually("the end of the session", || !stage.link.counters.is_up()).await;
    let again = Fake::new(true);
    again.put(B, "db", json!({}));
    let _serving = again.serve(&stage);
    eventually("the second list", || stage.link.counters.is_up() && container(&stage, B).name == "db").await;
    assert!(stage.failures("connection") >= 1);
    stage.end().await;
}

#[tokio::test]
async fn ten_thousand_containers_with_long_names_stay_within_the_budget() {
    let mut stage = Stage::new();
    let fake = Fake::new(false);
    for n in 0..10_000 {
        fake.put(&format!("{n:064x}"), &format!("{n}-{}", "x".repeat(200)), json!({}));
    }
    let _serving = fake.serve(&stage);
    stage.follow::<Docker>();
    eventually("the list", || stage.link.counters.is_up()).await;
    assert!(stage.directory.bytes() <= 1 << 20, "{}", stage.directory.bytes());
    stage.end().await;
}

#[tokio::test]
async fn a_pods_container_is_known_by_its_labels() {
    let mut stage = Stage::new();
    let fake = Fake::new(false);
    let labels = |kind: &str| {
        json!({
            "io.kubernetes.pod.name": "web-7d", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": "u-1",
            "io.kubernetes.docker.type": kind, "app": "web", "other": "label",
        })
    };
    fake.put(A, "k8s_POD_web-7d", labels("podsandbox"));
    fake.put(B, "k8s_web_web-7d", labels("container"));
    let _serving = fake.serve(&stage);
    stage.follow::<Docker>();
    eventually("the list", || stage.link.counters.is_up()).await;
    for (id, name) in [(A, None), (B, Some("k8s_web_web-7d"))] {
        let known = stage.directory.of_cgroup(&format!("/kubepods/podu-1/{id}")).unwrap();
        assert_eq!(known.container.as_ref().map(|container| container.name.as_str()), name);
        let pod = known.pod.as_ref().unwrap();
        assert_eq!((pod.to_string().as_str(), pod.uid.as_str()), ("shop/web-7d", "u-1"));
        assert_eq!(pod.labels, ["app=web"]);
    }
    stage.end().await;
}

/// Answers this path with bytes without an end, and counts them; the others as [`Fake`] does.
fn endless(path: &'static str, sent: &Arc<AtomicUsize>) -> Router {
    let (fake, sent) = (Fake::new(false), Arc::clone(sent));
    Router::new().fallback(move |request: Request| {
        let (fake, sent) = (fake.clone(), Arc::clone(&sent));
        async move {
            if !request.uri().path().ends_with(path) {
                return answer(State(fake), request).await;
            }
            // A text in JSON that is never closed.
            let begin = futures_util::stream::iter([Bytes::from_static(b"\"")]);
            let rest = futures_util::stream::repeat_with(move || {
                sent.fetch_add(1 << 14, Ordering::Relaxed);
                Bytes::from(vec![b'a'; 1 << 14])
            });
            Response::new(Body::from_stream(begin.chain(rest).map(Ok::<_, Infallible>)))
        }
    })
}

#[tokio::test]
async fn no_more_of_an_endless_answer_or_event_is_taken_than_allowed() {
    for path in ["/containers/json", "/events"] {
        let mut stage = Stage::new();
        stage.link.pace.longest = 1 << 20;
        let sent = Arc::<AtomicUsize>::default();
        let router = endless(path, &sent);
        let _serving = stage.serve(|listener| async { axum::serve(listener, router).await.unwrap() });
        stage.follow::<Docker>();
        eventually("two sessions to be too long", || stage.failures("too_long") >= 2).await;
        // What the kernel and the server hold on the way is sent, and not taken: less than a MiB of each connection.
        let sessions = usize::try_from(stage.failures("too_long")).unwrap() + 1;
        let sent = sent.load(Ordering::Relaxed);
        assert!(sent <= sessions * 2 * stage.link.pace.longest, "{sent} bytes in {sessions} sessions");
        assert_eq!(stage.failures("connection") + stage.failures("answer"), 0, "{path}");
        stage.end().await;
    }
}

#[tokio::test]
async fn events_together_may_be_longer_than_one_may_be() {
    let mut stage = Stage::new();
    // An event may have 64 KiB.
    stage.link.pace.longest = 8 << 16;
    let fake = Fake::new(false);
    fake.put(A, "web", json!({}));
    let _serving = fake.serve(&stage);
    stage.follow::<Docker>();
    eventually("the list", || stage.link.counters.is_up()).await;
    fake.put(A, "followed", json!({}));
    eventually("a first event", || {
        fake.tell("rename", A);
        container(&stage, A).name == "followed"
    })
    .await;
    let long = json!({"Type": "container", "Action": "rename", "Actor": {"ID": A, "Attributes": {"x": "y".repeat(1 << 14)}}});
    for round in 0..40 {
        let name = format!("web-{round}");
        fake.put(A, &name, json!({}));
        fake.events.send(Bytes::from(format!("{long}\n"))).unwrap();
        eventually("an event", || container(&stage, A).name == name).await;
    }
    assert_eq!(stage.failures("too_long"), 0);
    assert!(stage.link.counters.is_up());
    stage.end().await;
}
