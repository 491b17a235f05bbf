//! The agent's services as a gRPC client sees them.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tonic::transport::Channel;
use xtcp_proto::event::v1::event_service_client::EventServiceClient;
use xtcp_proto::event::v1::{Event, EventsRequest};
use xtcp_proto::flat_record::v1::xtcp_flat_record_service_client::XtcpFlatRecordServiceClient;
use xtcp_proto::flat_record::v1::{FlatRecordsRequest, PollFlatRecordsRequest};
use xtcp_proto::netns::v1::CountersRequest;
use xtcp_proto::netns::v1::netns_service_client::NetnsServiceClient;

use crate::host::{monotonic_ns, slowness};
use crate::row::Row;

/// A server stream that is read by a thread of its own until dropped.
#[derive(Debug)]
pub struct Stream<T> {
    items: Receiver<T>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl<T: Send + 'static> Stream<T> {
    /// The next item, if it comes within `limit`.
    pub fn next(&self, limit: Duration) -> Option<T> {
        self.items.recv_timeout(limit).ok()
    }

    /// The first item from now on that `wanted` accepts; fails naming `what` after `limit` times [`slowness`].
    pub fn wait_for(&self, what: &str, limit: Duration, mut wanted: impl FnMut(&T) -> bool) -> T {
        let limit = limit * slowness();
        let start = Instant::now();
        let mut others = 0;
        while let Some(item) = limit.checked_sub(start.elapsed()).and_then(|left| self.next(left)) {
            if wanted(&item) {
                return item;
            }
            others += 1;
        }
        panic!("waited {limit:?} for {what} on gRPC; {others} others came")
    }

    fn start<F>(name: &str, read: impl FnOnce(Sender<T>, oneshot::Sender<()>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()>,
    {
        #[expect(
            clippy::disallowed_methods,
            reason = "a bounded one sets aside room for all its rows at once"
        )]
        let (sender, items) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    tokio::select! {
                        () = read(sender, ready) => (),
                        _ = stopped => (),
                    }
                });
            })
            .expect("a thread can be started");
        is_ready.blocking_recv().expect("the agent accepts the stream");
        Self { items, stop: Some(stop), thread: Some(thread) }
    }
}

impl<T> Drop for Stream<T> {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Every row from now on.
pub fn rows(agent: SocketAddr) -> Stream<Row> {
    Stream::start("gRPC rows", move |items, ready| async move {
        let mut client = XtcpFlatRecordServiceClient::new(channel(agent).await);
        let response = client.flat_records(FlatRecordsRequest {}).await.expect("the agent streams rows");
        let _ = ready.send(());
        let mut stream = response.into_inner();
        while let Ok(Some(response)) = stream.message().await {
            if let Some(record) = response.xtcp_flat_record {
                let _ = items.send(Row { arrived_ns: monotonic_ns(), record });
            }
        }
    })
}

/// Every event from now on that passes `filter`.
pub fn events(agent: SocketAddr, filter: EventsRequest) -> Stream<(u64, Event)> {
    Stream::start("gRPC events", move |items, ready| async move {
        let mut client = EventServiceClient::new(channel(agent).await);
        let response = client.events(filter).await.expect("the agent streams events");
        let _ = ready.send(());
        let mut stream = response.into_inner();
        while let Ok(Some(response)) = stream.message().await {
            if let Some(event) = response.event {
                let _ = items.send((monotonic_ns(), event));
            }
        }
    })
}

/// The counters of namespaces from now on.
pub fn counters(agent: SocketAddr, filter: CountersRequest) -> Stream<Event> {
    Stream::start("gRPC counters", move |items, ready| async move {
        let mut client = NetnsServiceClient::new(channel(agent).await);
        let response = client.counters(filter).await.expect("the agent streams counters");
        let _ = ready.send(());
        let mut stream = response.into_inner();
        while let Ok(Some(response)) = stream.message().await {
            if let Some(event) = response.event {
                let _ = items.send(event);
            }
        }
    })
}

/// Asks for one poll of every namespace and returns its rows: all until the agent, after the client's last request,
/// ends the stream.
pub fn poll(agent: SocketAddr) -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let work = async {
        let mut client = XtcpFlatRecordServiceClient::new(channel(agent).await);
        let requests = tokio_stream::once(PollFlatRecordsRequest {});
        let response = client.poll_flat_records(requests).await.expect("the agent polls on request");
        let mut stream = response.into_inner();
        let mut rows = Vec::new();
        while let Some(response) = stream.message().await.expect("the poll's stream ends well") {
            if let Some(record) = response.xtcp_flat_record {
                rows.push(Row { arrived_ns: monotonic_ns(), record });
            }
        }
        rows
    };
    let limit = Duration::from_secs(60) * slowness();
    runtime
        .block_on(async { tokio::time::timeout(limit, work).await })
        .unwrap_or_else(|_| panic!("a poll on request did not end in {limit:?}"))
}

async fn channel(agent: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{agent}")).expect("an address is a URI");
    endpoint.connect().await.unwrap_or_else(|e| panic!("gRPC at {agent} takes no connection: {e}"))
}
