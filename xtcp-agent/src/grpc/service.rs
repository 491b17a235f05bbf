//! What all services share: the way from a path to a method.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService, StreamingService};

use super::codec::{Encoded, FieldOne};
use super::{MAX_REQUEST, Shared};

/// What becomes of a request.
pub(super) type Answer = BoxFuture<http::Response<Body>, Infallible>;

/// The methods of a service.
pub(super) trait Methods: 'static {
    /// Package and name of the service.
    const NAME: &'static str;

    /// Calls the method of this name; `None` when there is no such method.
    fn call(shared: Shared, method: &str, request: http::Request<Body>) -> Option<Answer>;
}

/// A service of these methods.
pub(super) struct Routed<M> {
    shared: Shared,
    methods: PhantomData<fn() -> M>,
}

impl<M> Routed<M> {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared, methods: PhantomData }
    }
}

impl<M> Clone for Routed<M> {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone())
    }
}

impl<M: Methods> NamedService for Routed<M> {
    const NAME: &'static str = M::NAME;
}

impl<M: Methods> Service<http::Request<Body>> for Routed<M> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let path = request.uri().path();
        // `/package.Service/Method`; the server chose this service by the first part.
        let method = path.rsplit_once('/').map_or(path, |(_, method)| method).to_owned();
        M::call(self.shared.clone(), &method, request).unwrap_or_else(|| {
            let unimplemented = Status::unimplemented("no such method").into_http();
            Box::pin(std::future::ready(Ok(unimplemented)))
        })
    }
}

/// One request, a stream of encoded messages.
pub(super) fn server_streaming<R, S>(service: S, request: http::Request<Body>) -> Answer
where
    R: Message + Default + 'static,
    S: ServerStreamingService<R, Response: Encoded> + Send + 'static,
    S::ResponseStream: Send,
    S::Future: Send,
{
    Box::pin(async move { Ok(grpc::<R, S::Response>().server_streaming(service, request).await) })
}

/// A stream of requests, a stream of encoded messages.
pub(super) fn streaming<R, S>(service: S, request: http::Request<Body>) -> Answer
where
    R: Message + Default + 'static,
    S: StreamingService<R, Response: Encoded> + Send + 'static,
    S::ResponseStream: Send,
    S::Future: Send,
{
    Box::pin(async move { Ok(grpc::<R, S::Response>().streaming(service, request).await) })
}

fn grpc<R, A>() -> Grpc<FieldOne<R, A>>
where
    R: Message + Default + 'static,
    A: Encoded,
{
    Grpc::new(FieldOne::default()).max_decoding_message_size(MAX_REQUEST)
}
