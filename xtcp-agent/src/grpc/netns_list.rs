//! Every network namespace, once or with what happens to them.

use std::pin::Pin;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use prost::Message;
use tokio::sync::{broadcast, oneshot};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tonic::codegen::BoxFuture;
use tonic::server::ServerStreamingService;
use tonic::{Request, Response, Status};
use xtcp_proto::netns::v1::{ListRequest, Netns, NetnsChange, NetnsChangeKind, WatchRequest};

use super::{Method, Shared};
use crate::engine::missed_changes;

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// A client asks for the namespaces.
#[derive(Debug)]
pub enum NetnsRequest {
    /// What there is.
    List(oneshot::Sender<Vec<Netns>>),
    /// What there is, and each [`NetnsChange`] after that, encoded.
    Watch(oneshot::Sender<(Vec<Netns>, broadcast::Receiver<Bytes>)>),
}

impl Shared {
    /// Asks the agent's loop.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> NetnsRequest) -> Result<T, Status> {
        let ending = || Status::unavailable("the agent is stopping");
        let (reply, answer) = oneshot::channel();
        self.services.netns.send(request(reply)).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())
    }
}

/// The method `List`.
pub(super) struct List(pub(super) Shared);

impl ServerStreamingService<ListRequest> for List {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = BoxFuture<Response<Messages>, Status>;

    fn call(&mut self, _: Request<ListRequest>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            let seat = shared.seat(Method::List)?;
            let all = shared.ask(NetnsRequest::List).await?;
            Ok(Response::new(seat.keep(stream::iter(all).map(|netns| encoded(&netns)))))
        })
    }
}

/// The method `Watch`.
pub(super) struct Watch(pub(super) Shared);

impl ServerStreamingService<WatchRequest> for Watch {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = BoxFuture<Response<Messages>, Status>;

    fn call(&mut self, _: Request<WatchRequest>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            let seat = shared.seat(Method::Watch)?;
            let (all, changes) = shared.ask(NetnsRequest::Watch).await?;
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let timestamp_ns = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
            let told = move |kind: NetnsChangeKind, netns| {
                encoded(&NetnsChange { kind: kind.into(), netns, timestamp_ns, missed: 0 })
            };
            let there = stream::iter(all).map(move |netns| told(NetnsChangeKind::Exists, Some(netns)));
            let all_told = stream::once(std::future::ready(told(NetnsChangeKind::AllTold, None)));
            let changes = BroadcastStream::new(changes).map(|change| match change {
                Ok(change) => Ok(change),
                Err(BroadcastStreamRecvError::Lagged(missed)) => encoded(&missed_changes(missed)),
            });
            Ok(Response::new(seat.keep(there.chain(all_told).chain(changes))))
        })
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an item of a stream that can fail")]
fn encoded(message: &impl Message) -> Result<Bytes, Status> {
    Ok(message.encode_to_vec().into())
}
