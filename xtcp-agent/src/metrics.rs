//! The registry and its page. Owns the `prometheus::Registry`, the process collector, build information and the
//! HTTP page; a metric lives with what it counts and registers itself here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder, IntCounter, IntGaugeVec, Opts, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long a scrape that is under way at shutdown may take.
const GRACE: Duration = Duration::from_secs(1);

const INDEX: &str = "xtcp2-agent\n\n\
    /metrics  Prometheus metrics\n\
    /healthz  200 while the process runs\n\
    /readyz   200 while it does its work, else 503 and why not\n";

/// Why the metrics page is not there.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Two metrics have one name, or a name is invalid.
    #[error("cannot register a metric: {0}")]
    Register(#[from] prometheus::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for metrics (--prom-listen): {source}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The page's server failed.
    #[error("the metrics page ended: {0}")]
    Serve(#[source] io::Error),
}

/// A registry that already holds `process_*` (of this process) and `xtcp_build_info{version}`.
pub fn registry(version: &str) -> Result<Registry, MetricsError> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let build =
        IntGaugeVec::new(Opts::new("xtcp_build_info", "Always 1; the version is a label."), &["version"])?;
    build.with_label_values(&[version]).set(1);
    registry.register(Box::new(build))?;
    Ok(registry)
}

/// Raises a counter to a total that something else counts and that never falls.
pub fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// How each component does, by its name.
type Components = BTreeMap<Cow<'static, str>, Result<(), String>>;

/// Whether the agent does its work, by component. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    components: Arc<RwLock<Components>>,
}

impl Readiness {
    /// Of an agent that has polled nothing yet, whatever works already.
    pub fn starting() -> Self {
        let readiness = Self::default();
        readiness.set("polls", Err("the first poll has not ended yet".to_owned()));
        readiness
    }

    /// Says that a component works, or why it does not.
    pub fn set(&self, component: impl Into<Cow<'static, str>>, state: Result<(), String>) {
        self.components.write().unwrap_or_else(PoisonError::into_inner).insert(component.into(), state);
    }

    /// One line per component that does not work; one line before any component has said anything. Empty: ready.
    pub fn reasons(&self) -> Vec<String> {
        let components = self.components.read().unwrap_or_else(PoisonError::into_inner);
        if components.is_empty() {
            return vec!["agent: starting".to_owned()];
        }
        components
            .iter()
            .filter_map(|(component, state)| {
                state.as_ref().err().map(|reason| format!("{component}: {reason}"))
            })
            .collect()
    }
}

/// Listens on `address` for [`serve`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, MetricsError> {
    TcpListener::bind(address).await.map_err(|source| MetricsError::Listen { address, source })
}

#[derive(Clone)]
struct Page {
    registry: Registry,
    readiness: Readiness,
}

/// Serves `/metrics`, `/healthz`, `/readyz` and `/` until `shutdown`; a request under way then gets one second.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> Result<(), MetricsError> {
    let router = Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Page { registry, readiness });
    let server = axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.clone().cancelled_owned())
        .into_future();
    let too_late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = server => result.map_err(MetricsError::Serve),
        () = too_late => Ok(()),
    }
}

async fn readyz(State(page): State<Page>) -> Response {
    let reasons = page.readiness.reasons();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response()
}

async fn metrics(State(page): State<Page>) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&page.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("receive");
        answer
    }

    #[tokio::test]
    async fn the_page_tells_metrics_health_and_readiness_and_ends_at_shutdown() {
        let listener = bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (readiness, shutdown) = (Readiness::default(), CancellationToken::new());
        let registry = registry("1.2.3").expect("registry");
        let page = tokio::spawn(serve(listener, registry, readiness.clone(), shutdown.clone()));

        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains("text/plain"), "{metrics}");
        assert!(metrics.contains("xtcp_build_info{version=\"1.2.3\"} 1"), "{metrics}");
        assert!(metrics.contains("process_resident_memory_bytes"), "{metrics}");
        assert!(get(address, "/healthz").await.ends_with("ok\n"));
        assert!(get(address, "/").await.contains("/readyz"));
        assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404"));

        let starting = get(address, "/readyz").await;
        assert!(
            starting.starts_with("HTTP/1.1 503") && starting.ends_with("agent: starting\n"),
            "{starting}"
        );
        readiness.set("poll", Err("no poll has ended for 40 s".to_owned()));
        readiness.set("events", Err("the ring buffer reader ended".to_owned()));
        let stale = get(address, "/readyz").await;
        assert!(stale.starts_with("HTTP/1.1 503"), "{stale}");
        assert!(
            stale.ends_with("events: the ring buffer reader ended\npoll: no poll has ended for 40 s\n"),
            "{stale}"
        );
        readiness.set("poll", Ok(()));
        readiness.set("events", Ok(()));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));

        shutdown.cancel();
        page.await.expect("join").expect("serve");
    }

    #[test]
    fn a_destination_that_works_makes_no_agent_ready_before_its_first_poll() {
        let readiness = Readiness::starting();
        readiness.set("dest", Ok(()));
        assert_eq!(readiness.reasons(), ["polls: the first poll has not ended yet"]);
        readiness.set("polls", Ok(()));
        assert!(readiness.reasons().is_empty());
    }

    #[tokio::test]
    async fn a_taken_address_is_named_with_its_flag() {
        let first = bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
        let address = first.local_addr().expect("address");
        let error = bind(address).await.expect_err("taken").to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--prom-listen"), "{error}");
    }
}
