//! `xtcp_flat_record.v1.XTCPFlatRecordService`: rows live, and the rows of polls that a client asks for.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::server::{ServerStreamingService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use xtcp_proto::flat_record::v1::{FlatRecordsRequest, PollFlatRecordsRequest};

use super::poll_rows::PollRows;
use super::row_hub::{Row, RowStream};
use super::service::{Answer, Methods, server_streaming, streaming};
use super::{Method, Shared};

/// Chunks between a poll conversation and its stream.
const AHEAD: usize = 4;

type Rows = Pin<Box<dyn Stream<Item = Result<Row, Status>> + Send>>;

/// The service.
pub(super) struct FlatRecordService;

impl Methods for FlatRecordService {
    const NAME: &'static str = "xtcp_flat_record.v1.XTCPFlatRecordService";

    fn call(shared: Shared, method: &str, request: http::Request<Body>) -> Option<Answer> {
        match method {
            "FlatRecords" => Some(server_streaming(FlatRecords(shared), request)),
            "PollFlatRecords" => Some(streaming(PollFlatRecords(shared), request)),
            _ => None,
        }
    }
}

struct FlatRecords(Shared);

impl ServerStreamingService<FlatRecordsRequest> for FlatRecords {
    type Response = Row;
    type ResponseStream = Rows;
    type Future = BoxFuture<Response<Rows>, Status>;

    fn call(&mut self, _: Request<FlatRecordsRequest>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            let seat = shared.seat(Method::FlatRecords)?;
            let counters = shared.metrics.method(Method::FlatRecords);
            let chunks = shared.services.rows.subscribe(counters.rows_dropped);
            Ok(Response::new(seat.keep(RowStream::new(chunks, counters.rows_sent))))
        })
    }
}

struct PollFlatRecords(Shared);

impl StreamingService<PollFlatRecordsRequest> for PollFlatRecords {
    type Response = Row;
    type ResponseStream = Rows;
    type Future = BoxFuture<Response<Rows>, Status>;

    fn call(&mut self, request: Request<Streaming<PollFlatRecordsRequest>>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            let seat = shared.seat(Method::PollFlatRecords)?;
            let counters = shared.metrics.method(Method::PollFlatRecords);
            let hub = &shared.services.rows;
            // Subscribed before any poll is asked for: not one of its rows can be missed.
            let rows = hub.subscribe(counters.rows_dropped.clone());
            let (output, chunks) = mpsc::channel(AHEAD);
            let polls = shared.services.polls.clone();
            let held = (hub.queued_bytes(), counters.rows_dropped);
            let requests = request.into_inner().fuse();
            tokio::spawn(PollRows::new(requests, polls, rows, output, held).run());
            Ok(Response::new(seat.keep(RowStream::new(ReceiverStream::new(chunks), counters.rows_sent))))
        })
    }
}
