//! What hub, queues and sinks promise.

use prometheus::Registry;
use xtcp_proto::event::v1::{
    Event, EventKind, Loss, LossPlace, Netns, NetnsCreated, Socket, TcpClosed, TcpStateChanged, event,
};

use super::*;

/// One event: a namespace's creation, a state change or a close by turns.
pub(crate) fn event(sequence: u64, inode: u64, ports: [u32; 2]) -> Event {
    let socket = Some(Socket {
        cookie: sequence,
        family: 2,
        source: vec![127; 16],
        destination: vec![127; 16],
        source_port: ports[0],
        destination_port: ports[1],
        ..Socket::default()
    });
    let content = match sequence % 3 {
        0 => event::Event::NetnsCreated(NetnsCreated::default()),
        1 => event::Event::TcpState(TcpStateChanged { socket, ..TcpStateChanged::default() }),
        _ => event::Event::TcpClose(TcpClosed { socket, ..TcpClosed::default() }),
    };
    Event {
        sequence,
        timestamp_ns: 1_700_000_000_000_000_000 + i64::try_from(sequence).expect("small"),
        monotonic_ns: sequence,
        hostname: "test.host".to_owned(),
        boot_id: "boot".to_owned(),
        agent_instance: "instance".to_owned(),
        netns: Some(Netns { inode, cookie: inode + 1, name: format!("ns{inode}"), ..Netns::default() }),
        event: Some(content),
    }
}

pub(crate) fn events(sequences: std::ops::RangeInclusive<u64>) -> Vec<Event> {
    sequences.map(|sequence| event(sequence, 7, [40_000, 443])).collect()
}

pub(crate) fn counters() -> Arc<SinkCounters> {
    SinkMetrics::register(&Registry::new()).expect("register").sink("test")
}

fn bound(events: usize) -> Bound {
    Bound { events, ..Bound::default() }
}

async fn taken(queue: &Queue, most: usize) -> Vec<Event> {
    let delivery = queue.take(most).await.expect("open");
    delivery.wanted(queue.filter()).map(|event| event.event().expect("decodes")).collect()
}

fn loss(event: &Event) -> &Loss {
    match &event.event {
        Some(event::Event::Loss(loss)) => loss,
        other => panic!("not a loss: {other:?}"),
    }
}

fn lost(loss: &Loss) -> Vec<(EventKind, u64)> {
    loss.lost.iter().map(|count| (count.kind(), count.count)).collect()
}

#[tokio::test]
async fn events_arrive_as_published_in_order_and_in_pieces() {
    let hub = EventHub::default();
    hub.publish(&events(1..=3));
    let queue = hub.subscribe(bound(100), Filter::default(), counters());
    hub.publish(&events(4..=8));
    hub.publish(&events(9..=9));
    assert_eq!(taken(&queue, 3).await, events(4..=6));
    assert_eq!(taken(&queue, 3).await, events(7..=8));
    hub.close();
    assert_eq!(taken(&queue, 3).await, events(9..=9));
    assert!(queue.take(3).await.is_none());
    let late = hub.subscribe(bound(100), Filter::default(), counters());
    assert!(late.take(3).await.is_none());
}

#[tokio::test]
async fn a_full_queue_drops_the_oldest_and_says_exactly_which() {
    let hub = EventHub::default();
    let counters = counters();
    let queue = hub.subscribe(bound(4), Filter::default(), Arc::clone(&counters));
    hub.publish(&events(1..=3));
    assert_eq!(taken(&queue, 1).await, events(1..=1));
    hub.publish(&events(4..=9));
    hub.publish(&events(10..=10));
    let seen = taken(&queue, 100).await;
    let loss = loss(&seen[0]);
    assert_eq!((seen[0].sequence, seen[0].timestamp_ns), (0, seen[1].timestamp_ns));
    assert_eq!((seen[0].hostname.as_str(), &seen[0].netns), ("test.host", &None));
    assert_eq!((loss.place(), loss.after_sequence, loss.before_sequence), (LossPlace::SinkQueue, 1, 7));
    let by_kind = [(EventKind::NetnsCreated, 2), (EventKind::TcpState, 1), (EventKind::TcpClose, 2)];
    assert_eq!(lost(loss), by_kind);
    assert_eq!(seen[1..], events(7..=9));
    assert_eq!(taken(&queue, 100).await, events(10..=10));
    assert_eq!(counters.dropped_full.get(Kind::TcpClose).get(), 2);
    assert_eq!(counters.depth.get(), 0);
}

#[tokio::test]
async fn a_byte_bound_holds_and_the_newest_event_always_stays() {
    let hub = EventHub::default();
    let counters = counters();
    let queue = hub.subscribe(Bound { events: 100, bytes: 1 }, Filter::default(), Arc::clone(&counters));
    hub.publish(&events(1..=50));
    let seen = taken(&queue, 100).await;
    assert_eq!((seen.len(), loss(&seen[0]).after_sequence, loss(&seen[0]).before_sequence), (2, 0, 50));
    assert_eq!(seen[1..], events(50..=50));
}

#[tokio::test]
async fn filters_hold_and_do_not_count_what_nobody_wanted_as_lost() {
    let stream: Vec<Event> = (1..=12)
        .map(|sequence| {
            event(
                sequence,
                if sequence <= 6 { 7 } else { 8 },
                [40_000, 400 + u32::try_from(sequence).expect("small")],
            )
        })
        .collect();
    let sequences = async |filter: Filter| {
        let hub = EventHub::default();
        let queue = hub.subscribe(bound(100), filter, counters());
        hub.publish(&stream);
        taken(&queue, 100).await.iter().map(|event| event.sequence).collect::<Vec<_>>()
    };
    let kinds = [Kind::NetnsCreated].into();
    assert_eq!(sequences(Filter { kinds, ..Filter::default() }).await, [3, 6, 9, 12]);
    assert_eq!(sequences(Filter { netns_inodes: [7].into(), ..Filter::default() }).await, [1, 2, 3, 4, 5, 6]);
    let names = ["ns8".to_owned()].into();
    assert_eq!(sequences(Filter { netns_names: names, ..Filter::default() }).await, [7, 8, 9, 10, 11, 12]);
    assert_eq!(sequences(Filter { ports: [402, 411].into(), ..Filter::default() }).await, [2, 11]);
    let both = Filter { ports: [402, 411].into(), netns_inodes: [8].into(), ..Filter::default() };
    assert_eq!(sequences(both.clone()).await, [11]);

    let hub = EventHub::default();
    let counters = counters();
    let queue = hub.subscribe(
        bound(1),
        Filter { ports: [402, 411].into(), ..Filter::default() },
        Arc::clone(&counters),
    );
    hub.publish(&stream);
    let seen = taken(&queue, 100).await;
    assert_eq!(seen.len(), 1, "the marker; event 12 has no ports");
    assert_eq!((loss(&seen[0]).after_sequence, loss(&seen[0]).before_sequence), (1, 12));
    assert_eq!(lost(loss(&seen[0])), [(EventKind::TcpClose, 2)]);
}

#[tokio::test]
async fn loss_events_pass_every_filter() {
    let hub = EventHub::default();
    let queue = hub.subscribe(bound(10), Filter { ports: [1].into(), ..Filter::default() }, counters());
    let ring = Loss { place: LossPlace::RingBuffer.into(), ..Loss::default() };
    hub.publish(&[Event { sequence: 5, event: Some(event::Event::Loss(ring)), ..Event::default() }]);
    assert_eq!(taken(&queue, 10).await[0].sequence, 5);
}

#[tokio::test]
async fn a_dropped_subscription_leaves_the_hub() {
    let hub = EventHub::default();
    let subscription = Subscription::new(&hub, bound(10), Filter::default(), counters());
    assert_eq!(hub.consumers(), 1);
    drop(subscription);
    hub.publish(&events(1..=1));
    assert_eq!(hub.consumers(), 0);
}

#[test]
fn json_lines_are_the_event_in_proto3_json() {
    let batch = Batch::new(&events(1..=2));
    let lines: Vec<_> = batch.iter(0..2).map(|event| event.jsonl()).collect();
    for (line, event) in lines.iter().zip(events(1..=2)) {
        assert_eq!(line.last(), Some(&b'\n'));
        assert_eq!(serde_json::from_slice::<Event>(line).expect("parses"), event);
        assert_eq!(line.split(|&byte| byte == b'\n').count(), 2, "one line");
    }
}

#[tokio::test]
async fn without_a_server_the_queue_keeps_the_newest_and_the_end_counts_them() {
    // A port that was free a moment ago and that nobody answers on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port").port();
    let (hub, metrics) = (EventHub::default(), SinkMetrics::register(&Registry::new()).expect("register"));
    let settings = SinkSettings {
        hostname: "h".to_owned(),
        marshal: Marshal::Protobuf,
        bound: bound(5),
        by_default: true,
    };
    let address = parse(&format!("nats:127.0.0.1:{port}")).expect("address");
    let sinks = Sinks::start(&hub, std::slice::from_ref(&address), &settings, &metrics).await.expect("start");
    hub.publish(&events(1..=12));
    let counters = metrics.sink(&address.to_string());
    assert_eq!(counters.depth.get(), 5);
    assert_eq!(counters.connected.get(), 0);
    hub.close();
    assert_eq!(sinks.drain(Duration::from_secs(30)).await, 5);
    let dropped: u64 = counters.dropped_full.iter().map(|(_, counter)| counter.get()).sum();
    assert_eq!(dropped, 7);
    assert_eq!(counters.depth.get(), 0);
}
