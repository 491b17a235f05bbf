//! The services as a client of another process sees them: over loopback, with the generated clients.

use prost::Message as _;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use xtcp_proto::event::v1::{
    Event, EventKind, EventsRequest, EventsResponse, LossPlace, event as content,
    event_service_client::EventServiceClient,
};
use xtcp_proto::flat_record::v1::{
    FlatRecordsRequest, FlatRecordsResponse, PollFlatRecordsRequest, PollFlatRecordsResponse, XtcpFlatRecord,
    xtcp_flat_record_service_client::XtcpFlatRecordServiceClient,
};
use xtcp_proto::netns::v1::netns_service_client::NetnsServiceClient;
use xtcp_proto::netns::v1::{ListRequest, ListResponse, Netns, NetnsChange, NetnsChangeKind, WatchRequest};

use super::*;
use crate::event_sink::SinkMetrics;
use crate::event_sink::tests::{event, events};
use crate::record::{Reason, RowChunk, Rows};

struct Agent {
    rows: RowHub,
    events: EventHub,
    event_counters: Arc<SinkCounters>,
    metrics: GrpcMetrics,
    polls: mpsc::Receiver<PollRequest>,
    netns: mpsc::Receiver<NetnsRequest>,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), GrpcError>>,
    channel: Channel,
}

const QUEUED_EVENTS: usize = 100;
const QUEUED_BYTES: usize = 64 * 1024;

async fn agent() -> Agent {
    let listener = bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let registry = Registry::new();
    let metrics = GrpcMetrics::register(&registry).expect("register");
    let (polls_in, polls) = mpsc::channel(16);
    let (netns_in, netns) = mpsc::channel(16);
    let services = Services {
        rows: RowHub::new(QUEUED_BYTES),
        polls: polls_in,
        netns: netns_in,
        events: EventHub::default(),
        event_bound: Bound { events: QUEUED_EVENTS, ..Bound::default() },
        event_counters: SinkMetrics::register(&registry).expect("register").sink("grpc"),
    };
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve(listener, services.clone(), metrics.clone(), shutdown.clone()));
    let channel = Channel::from_shared(url).expect("url").connect().await.expect("connect");
    let Services { rows, events, event_counters, .. } = services;
    Agent { rows, events, event_counters, metrics, polls, netns, shutdown, server, channel }
}

impl Agent {
    async fn events(&self, request: EventsRequest) -> Result<Streaming<EventsResponse>, Status> {
        Ok(EventServiceClient::new(self.channel.clone()).events(request).await?.into_inner())
    }

    async fn live(&self) -> Streaming<FlatRecordsResponse> {
        let mut client = XtcpFlatRecordServiceClient::new(self.channel.clone());
        client.flat_records(FlatRecordsRequest::default()).await.expect("stream").into_inner()
    }

    async fn polling(&self) -> (mpsc::Sender<PollFlatRecordsRequest>, Streaming<PollFlatRecordsResponse>) {
        let (ask, requests) = mpsc::channel(1);
        let mut client = XtcpFlatRecordServiceClient::new(self.channel.clone());
        let answers =
            client.poll_flat_records(ReceiverStream::new(requests)).await.expect("stream").into_inner();
        (ask, answers)
    }
}

fn row(counter: u64, padding: usize) -> XtcpFlatRecord {
    XtcpFlatRecord {
        schema_version: 1,
        record_counter: counter,
        netns: "default".to_owned(),
        label: "x".repeat(padding),
        ..XtcpFlatRecord::default()
    }
}

fn chunk(poll: u64, counters: std::ops::RangeInclusive<u64>) -> RowChunk {
    padded(poll, counters, 0)
}

fn padded(poll: u64, counters: std::ops::RangeInclusive<u64>, padding: usize) -> RowChunk {
    let mut rows = Rows::default();
    counters.for_each(|counter| rows.push(&row(counter, padding)));
    let reason = if poll == 0 { Reason::TcpState } else { Reason::Poll };
    RowChunk { reason, poll, netns_inode: 7, rows: Arc::new(rows) }
}

async fn next_events(stream: &mut Streaming<EventsResponse>, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        events.push(stream.message().await.expect("open").expect("not ended").event.expect("event"));
    }
    events
}

async fn next_counters(stream: &mut Streaming<PollFlatRecordsResponse>, count: usize) -> Vec<u64> {
    let mut counters = Vec::new();
    while counters.len() < count {
        let answer = stream.message().await.expect("open").expect("not ended");
        counters.push(answer.xtcp_flat_record.expect("row").record_counter);
    }
    counters
}

#[tokio::test]
async fn rows_arrive_live_as_they_were_encoded() {
    let agent = agent().await;
    agent.rows.publish(&chunk(0, 90..=99));
    let mut stream = agent.live().await;
    agent.rows.publish(&chunk(3, 1..=2));
    agent.rows.publish(&padded(0, 3..=3, 300));
    agent.rows.poll_ended(3);
    for expected in [row(1, 0), row(2, 0), row(3, 300)] {
        let answer = stream.message().await.expect("open").expect("not ended");
        assert_eq!(answer.xtcp_flat_record, Some(expected));
    }
    assert_eq!(agent.metrics.rows_sent.with_label_values(&["FlatRecords"]).get(), 3);
    agent.rows.close();
    assert!(stream.message().await.expect("ended well").is_none());
}

#[tokio::test]
async fn a_slow_client_loses_counted_rows_and_stops_nobody() {
    let agent = agent().await;
    let mut stream = agent.live().await;
    let chunks = 2000;
    for number in 0..chunks {
        agent.rows.publish(&padded(0, number * 10 + 1..=number * 10 + 10, 1000));
    }
    agent.rows.close();
    let mut received = 0;
    while stream.message().await.expect("open").is_some() {
        received += 1;
    }
    let dropped = agent.metrics.rows_dropped.with_label_values(&["FlatRecords"]).get();
    assert!(dropped > 0, "20 MB do not fit");
    assert_eq!(received + dropped, chunks * 10);
}

#[tokio::test]
async fn a_client_gets_the_rows_of_exactly_the_polls_it_asked_for() {
    let mut agent = agent().await;
    let (ask, mut answers) = agent.polling().await;
    agent.rows.publish(&chunk(1, 1..=3));
    ask.send(PollFlatRecordsRequest::default()).await.expect("send");
    let request = agent.polls.recv().await.expect("asked");
    // The scheduler's rows can overtake its answer; another poll's, and a lookup's, are not for this client.
    agent.rows.publish(&chunk(2, 10..=12));
    agent.rows.publish(&chunk(3, 20..=21));
    agent.rows.publish(&chunk(0, 30..=31));
    request.reply.send(3).expect("waiting");
    assert_eq!(next_counters(&mut answers, 2).await, [20, 21]);
    agent.rows.publish(&chunk(4, 40..=41));
    agent.rows.publish(&chunk(3, 22..=23));
    assert_eq!(next_counters(&mut answers, 2).await, [22, 23]);
    agent.rows.poll_ended(3);

    ask.send(PollFlatRecordsRequest::default()).await.expect("send");
    let request = agent.polls.recv().await.expect("asked");
    request.reply.send(6).expect("waiting");
    drop(ask);
    agent.rows.publish(&chunk(5, 50..=51));
    agent.rows.poll_ended(5);
    agent.rows.publish(&chunk(6, 60..=61));
    agent.rows.poll_ended(6);
    assert_eq!(next_counters(&mut answers, 2).await, [60, 61]);
    assert!(answers.message().await.expect("ended well").is_none(), "asked no more, and all is there");
}

#[tokio::test]
async fn a_poll_that_ended_before_its_number_was_told_is_complete() {
    let mut agent = agent().await;
    let (ask, mut answers) = agent.polling().await;
    ask.send(PollFlatRecordsRequest::default()).await.expect("send");
    drop(ask);
    let request = agent.polls.recv().await.expect("asked");
    agent.rows.publish(&chunk(2, 10..=12));
    agent.rows.poll_ended(2);
    request.reply.send(2).expect("waiting");
    assert_eq!(next_counters(&mut answers, 3).await, [10, 11, 12]);
    assert!(answers.message().await.expect("ended well").is_none());
}

#[tokio::test]
async fn asking_an_agent_that_ends_is_answered_with_unavailable() {
    let mut agent = agent().await;
    let (ask, mut answers) = agent.polling().await;
    ask.send(PollFlatRecordsRequest::default()).await.expect("send");
    drop(agent.polls.recv().await.expect("asked"));
    assert_eq!(answers.message().await.expect_err("failed").code(), Code::Unavailable);
}

#[tokio::test]
async fn events_arrive_filtered() {
    let agent = agent().await;
    let request = EventsRequest {
        kinds: vec![EventKind::TcpState.into(), EventKind::TcpClose.into()],
        netns_inodes: vec![7, 8],
        netns_names: vec!["ns8".to_owned()],
        ports: vec![443],
    };
    let mut stream = agent.events(request).await.expect("stream");
    let published: Vec<Event> =
        (1..=10).map(|s| event(s, 7 + s / 6, [40_000, if s == 8 { 80 } else { 443 }])).collect();
    agent.events.publish(&published);
    let expected = [&published[6], &published[9]];
    assert_eq!(next_events(&mut stream, 2).await.iter().collect::<Vec<_>>(), expected);
    agent.events.close();
    assert!(stream.message().await.expect("ended well").is_none());
    assert_eq!(agent.event_counters.published.iter().map(|(_, counter)| counter.get()).sum::<u64>(), 2);
}

#[tokio::test]
async fn wrong_filters_are_refused_by_name() {
    let agent = agent().await;
    for (request, fault) in [
        (EventsRequest { kinds: vec![0], ..EventsRequest::default() }, "kinds: 0"),
        (EventsRequest { kinds: vec![99], ..EventsRequest::default() }, "kinds: 99"),
        (EventsRequest { ports: vec![65_536], ..EventsRequest::default() }, "ports: 65536"),
    ] {
        let status = agent.events(request).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(fault), "{status}");
    }
}

#[tokio::test]
async fn a_slow_subscriber_is_told_exactly_what_it_missed() {
    let agent = agent().await;
    let mut stream = agent.events(EventsRequest::default()).await.expect("stream");
    let last = 100_000;
    // Nothing is awaited: the stream cannot be read in between and its queue overflows.
    for first in (1..last).step_by(500) {
        agent.events.publish(&events(first..=first + 499));
    }
    agent.events.close();
    let (mut next, mut missed, mut received) = (1, 0, 0);
    while let Some(answer) = stream.message().await.expect("open") {
        let event = answer.event.expect("event");
        if let Some(content::Event::Loss(loss)) = &event.event {
            assert_eq!(
                (event.sequence, loss.place(), loss.after_sequence),
                (0, LossPlace::SinkQueue, next - 1)
            );
            let by_kind: u64 = loss.lost.iter().map(|lost| lost.count).sum();
            assert_eq!(by_kind, loss.before_sequence - loss.after_sequence - 1);
            missed += by_kind;
            next = loss.before_sequence;
        } else {
            assert_eq!(event.sequence, next);
            (next, received) = (next + 1, received + 1);
        }
    }
    assert_eq!((next, received + missed), (last + 1, last));
    assert!(missed > 0);
    let dropped: u64 = agent.event_counters.dropped_full.iter().map(|(_, counter)| counter.get()).sum();
    assert_eq!(dropped, missed);
}

#[tokio::test]
async fn a_client_that_goes_leaves_nothing_behind() {
    let agent = agent().await;
    let live = agent.live().await;
    let subscriber = agent.events(EventsRequest::default()).await.expect("stream");
    let (ask, polling) = agent.polling().await;
    assert_eq!((agent.rows.clients(), agent.events.consumers()), (2, 1));
    drop((live, subscriber, ask, polling));
    while agent.rows.clients() + agent.events.consumers() > 0 {
        agent.rows.publish(&chunk(0, 1..=1));
        agent.events.publish(&events(1..=1));
        tokio::task::yield_now().await;
    }
    for method in ["FlatRecords", "PollFlatRecords", "Events"] {
        while agent.metrics.streams.with_label_values(&[method]).get() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn more_streams_than_there_are_seats_are_refused() {
    let agent = agent().await;
    let mut open = Vec::new();
    let refused = loop {
        match agent.events(EventsRequest::default()).await {
            Ok(stream) => open.push(stream),
            Err(status) => break status,
        }
    };
    assert_eq!((refused.code(), open.len()), (Code::ResourceExhausted, MAX_STREAMS));
}

#[tokio::test]
async fn health_and_unknown_methods_are_answered() {
    let agent = agent().await;
    let mut health = HealthClient::new(agent.channel.clone());
    for service in ["", "xtcp_flat_record.v1.XTCPFlatRecordService", "xtcp_event.v1.EventService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(health.check(request).await.expect("known").into_inner().status, 1, "{service:?}");
    }
    let request = HealthCheckRequest { service: "nothing".to_owned() };
    assert_eq!(health.check(request).await.expect_err("unknown").code(), Code::NotFound);
}

#[tokio::test]
async fn reflection_lists_every_service_in_both_versions() {
    use tonic_reflection::pb::{v1, v1alpha};
    let agent = agent().await;
    let request = v1::ServerReflectionRequest {
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..v1::ServerReflectionRequest::default()
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(agent.channel.clone());
    let mut answers =
        client.server_reflection_info(tokio_stream::iter([request])).await.expect("v1").into_inner();
    let answer = answers.message().await.expect("open").expect("answered");
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer.message_response
    else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in
        ["xtcp_flat_record.v1.XTCPFlatRecordService", "xtcp_event.v1.EventService", "grpc.health.v1.Health"]
    {
        assert!(names.contains(&name), "{name}: {names:?}");
    }

    let symbol = "xtcp_event.v1.EventService".to_owned();
    let request = v1alpha::ServerReflectionRequest {
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            symbol,
        )),
        ..v1alpha::ServerReflectionRequest::default()
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(agent.channel.clone());
    let mut answers =
        client.server_reflection_info(tokio_stream::iter([request])).await.expect("v1alpha").into_inner();
    let answer = answers.message().await.expect("open").expect("answered");
    assert!(matches!(
        answer.message_response,
        Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))
    ));
}

#[tokio::test]
async fn shutdown_ends_open_streams_and_the_server() {
    let agent = agent().await;
    let mut stream = agent.live().await;
    agent.shutdown.cancel();
    assert!(stream.message().await.expect("ended well").is_none());
    agent.server.await.expect("join").expect("served");
}

#[tokio::test]
async fn a_taken_address_is_named_with_its_flags() {
    let first = bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
    let address = first.local_addr().expect("address");
    let error = bind(address).await.expect_err("taken").to_string();
    assert!(error.contains(&address.to_string()) && error.contains("--grpc-port"), "{error}");
}

fn netns(name: &str) -> Netns {
    Netns { inode: 7, name: name.to_owned(), ..Netns::default() }
}

#[tokio::test]
async fn a_list_is_what_the_agents_loop_answers() {
    let mut agent = agent().await;
    let mut client = NetnsServiceClient::new(agent.channel.clone());
    let answer = async {
        let Some(NetnsRequest::List(reply)) = agent.netns.recv().await else {
            panic!("no list was asked for")
        };
        reply.send(vec![netns("default"), netns("blue")]).expect("the client waits");
    };
    let (stream, ()) = tokio::join!(client.list(ListRequest {}), answer);
    let answers: Vec<_> =
        stream.expect("stream").into_inner().map(|answer| answer.expect("netns")).collect().await;
    let expected = ["default", "blue"].map(|name| ListResponse { netns: Some(netns(name)) });
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn who_watches_is_told_what_there_is_then_what_happens_and_what_was_missed() {
    let mut agent = agent().await;
    let mut client = NetnsServiceClient::new(agent.channel.clone());
    let changes = broadcast::Sender::new(2);
    let answer = async {
        let Some(NetnsRequest::Watch(reply)) = agent.netns.recv().await else { panic!("nobody watches") };
        let subscription = changes.subscribe();
        // Three changes, room for two, before the client reads any.
        for name in ["one", "two", "three"] {
            let kind = NetnsChangeKind::Created.into();
            let change = NetnsChange { kind, netns: Some(netns(name)), ..NetnsChange::default() };
            changes.send(change.encode_to_vec().into()).expect("somebody watches");
        }
        reply.send((vec![netns("default")], subscription)).expect("the client waits");
    };
    let (stream, ()) = tokio::join!(client.watch(WatchRequest {}), answer);
    let mut stream = stream.expect("stream").into_inner();
    let mut seen = Vec::new();
    for _ in 0..5 {
        let change = stream.next().await.expect("a change").expect("no error").change.expect("a change");
        let name = change.netns.as_ref().map(|netns| netns.name.clone());
        seen.push((change.kind(), name, change.missed));
    }
    let name = |name: &str| Some(name.to_owned());
    let expected = [
        (NetnsChangeKind::Exists, name("default"), 0),
        (NetnsChangeKind::AllTold, None, 0),
        (NetnsChangeKind::Missed, None, 1),
        (NetnsChangeKind::Created, name("two"), 0),
        (NetnsChangeKind::Created, name("three"), 0),
    ];
    assert_eq!(seen, expected);
    drop(changes);
    assert!(stream.next().await.is_none(), "the stream ends with the agent");
}
