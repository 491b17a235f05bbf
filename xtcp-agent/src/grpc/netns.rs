//! `xtcp_netns.v1.NetnsService`: network namespaces as the agent sees them.

use std::collections::HashSet;

use bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::server::ServerStreamingService;
use tonic::{Request, Response, Status};
use xtcp_proto::netns::v1::CountersRequest;

use super::event::{self, Events};
use super::netns_list::{List, Watch};
use super::service::{Answer, Methods, server_streaming};
use super::{Method, Shared};
use crate::event_sink::{Filter, Kind};

/// The service.
pub(super) struct NetnsService;

impl Methods for NetnsService {
    const NAME: &'static str = "xtcp_netns.v1.NetnsService";

    fn call(shared: Shared, method: &str, request: http::Request<Body>) -> Option<Answer> {
        match method {
            "List" => Some(server_streaming(List(shared), request)),
            "Watch" => Some(server_streaming(Watch(shared), request)),
            "Counters" => Some(server_streaming(Counters(shared), request)),
            _ => None,
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
