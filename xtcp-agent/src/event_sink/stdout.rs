//! Events on standard output, a JSON object a line.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::batch::Published;
use super::metrics::SinkCounters;
use super::queue::{Delivery, Queue};

/// How many events are written at once.
const AT_ONCE: usize = 1024;

/// Writes what the queue holds until it is closed, `give_up` comes, or standard output is closed. A thread of its own
/// does the writing: a reader that stops reading must not hold up the runtime, not even its end.
pub(super) async fn run(queue: Arc<Queue>, counters: Arc<SinkCounters>, give_up: CancellationToken) {
    let (to_writer, deliveries) = sync_channel::<(Delivery, oneshot::Sender<io::Result<()>>)>(1);
    let writer = std::thread::Builder::new().name("events-stdout".to_owned()).spawn(move || {
        while let Ok((delivery, done)) = deliveries.recv() {
            // The receiver is gone when the agent gave up waiting.
            let _ = done.send(write(&delivery));
        }
    });
    if let Err(error) = writer {
        tracing::error!(%error, "cannot start the thread that writes events to standard output");
        queue.close();
        return;
    }
    counters.connected.set(1);
    while let Some(delivery) = queue.take(AT_ONCE).await {
        let (done, written) = oneshot::channel();
        // The thread answered before: its queue has room, unless it is gone.
        if to_writer.try_send((delivery.clone(), done)).is_err() {
            break;
        }
        let result = tokio::select! {
            result = written => result.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())),
            () = give_up.cancelled() => {
                count(&delivery, &queue, |event| counters.dropped_shutdown.get(event.meta.kind).inc());
                break;
            }
        };
        match result {
            Ok(()) => count(&delivery, &queue, |event| counters.published.get(event.meta.kind).inc()),
            Err(error) => {
                tracing::error!(%error, "standard output is closed: no more change events go there");
                count(&delivery, &queue, |event| counters.dropped_rejected.get(event.meta.kind).inc());
                for (kind, &events) in queue.discard().iter() {
                    counters.dropped_rejected.get(kind).inc_by(events);
                }
                break;
            }
        }
    }
    counters.connected.set(0);
}

fn count(delivery: &Delivery, queue: &Queue, each: impl FnMut(Published<'_>)) {
    delivery.wanted(queue.filter()).for_each(each);
}

fn write(delivery: &Delivery) -> io::Result<()> {
    let mut lines = Vec::new();
    for event in delivery.wanted(&super::queue::Filter::default()) {
        lines.extend_from_slice(&event.jsonl());
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(&lines)?;
    stdout.flush()
}
