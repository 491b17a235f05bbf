//! `xtcp_netns.v1.NetnsService`: network namespaces as the agent sees them.

use std::collections::HashSet;
use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};
use xtcp_proto::netns::v1::CountersRequest;

use super::codec::FieldOne;
use super::event::{self, Events};
use super::{MAX_REQUEST, Method, Shared, unimplemented};
use crate::event_sink::{Filter, Kind};

/// The service.
#[derive(Clone)]
pub(super) struct NetnsService(pub(super) Shared);

impl NamedService for NetnsService {
    const NAME: &'static str = "xtcp_netns.v1.NetnsService";
}

impl Service<http::Request<Body>> for NetnsService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        match request.uri().path() {
            "/xtcp_netns.v1.NetnsService/Counters" => Box::pin(async move {
                let codec = FieldOne::<CountersRequest, Bytes>::default();
                let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_REQUEST);
                Ok(grpc.server_streaming(Counters(shared), request).await)
            }),
            _ => Box::pin(std::future::ready(Ok(unimplemented()))),
        }
    }
}

struct Counters(Shared);

impl ServerStreamingService<CountersRequest> for Counters {
    type Response = Bytes;
    type ResponseStream = Events;
    type Future = BoxFuture<Response<Events>, Status>;

    fn call(&mut self, request: Request<CountersRequest>) -> Self::Future {
        let CountersRequest { netns_inodes, netns_names } = request.into_inner();
        let filter = Filter {
            kinds: HashSet::from([Kind::NetnsCounters]),
            netns_inodes: netns_inodes.into_iter().collect(),
            netns_names: netns_names.into_iter().collect(),
            ports: HashSet::new(),
        };
        let response = event::stream(&self.0, Method::Counters, filter);
        Box::pin(std::future::ready(response))
    }
}
