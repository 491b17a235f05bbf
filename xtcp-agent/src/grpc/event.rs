//! `xtcp_event.v1.EventService`: change events live.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::server::ServerStreamingService;
use tonic::{Request, Response, Status};
use xtcp_proto::event::v1::{EventKind, EventsRequest};

use super::service::{Answer, Methods, server_streaming};
use super::{Method, Shared};
use crate::event_sink::{Filter, Kind, Subscription};

/// How many events are taken from the queue at once.
const AT_ONCE: usize = 256;

pub(super) type Events = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// The service.
pub(super) struct EventService;

impl Methods for EventService {
    const NAME: &'static str = "xtcp_event.v1.EventService";

    fn call(shared: Shared, method: &str, request: http::Request<Body>) -> Option<Answer> {
        (method == "Events").then(|| server_streaming(EventStream(shared), request))
    }
}

struct EventStream(Shared);

impl ServerStreamingService<EventsRequest> for EventStream {
    type Response = Bytes;
    type ResponseStream = Events;
    type Future = BoxFuture<Response<Events>, Status>;

    fn call(&mut self, request: Request<EventsRequest>) -> Self::Future {
        let response =
            filter(request.into_inner()).and_then(|filter| stream(&self.0, Method::Events, filter));
        Box::pin(std::future::ready(response))
    }
}

/// The events from now on that pass a filter.
pub(super) fn stream(shared: &Shared, method: Method, filter: Filter) -> Result<Response<Events>, Status> {
    let seat = shared.seat(method)?;
    let services = &shared.services;
    let counters = Arc::clone(&services.event_counters);
    let subscription =
        Subscription::new(&services.events, services.event_bound, filter, Arc::clone(&counters));
    let deliveries = stream::unfold(subscription, async |subscription| {
        let delivery = subscription.take(AT_ONCE).await?;
        let wanted: Vec<_> =
            delivery.wanted(subscription.filter()).map(|event| (event.meta.kind, event.protobuf())).collect();
        Some((stream::iter(wanted), subscription))
    });
    let events = deliveries.flatten().map(move |(kind, event)| {
        counters.published.get(kind).inc();
        Ok(event)
    });
    Ok(Response::new(seat.keep(events)))
}

fn filter(request: EventsRequest) -> Result<Filter, Status> {
    let mut kinds = HashSet::new();
    for number in request.kinds {
        let kind = EventKind::try_from(number)
            .ok()
            .and_then(|wanted| Kind::ALL.into_iter().find(|kind| kind.proto() == wanted));
        kinds.insert(
            kind.ok_or_else(|| Status::invalid_argument(format!("kinds: {number} is not an event kind")))?,
        );
    }
    if let Some(port) = request.ports.iter().find(|&&port| port == 0 || port > u32::from(u16::MAX)) {
        return Err(Status::invalid_argument(format!("ports: {port} is not a port from 1 to 65535")));
    }
    Ok(Filter {
        kinds,
        netns_inodes: request.netns_inodes.into_iter().collect(),
        netns_names: request.netns_names.into_iter().collect(),
        ports: request.ports.into_iter().collect(),
    })
}
