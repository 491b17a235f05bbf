//! `xtcp2-agent`: parse, build, run, drain.

use std::io::Write;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use xtcp_agent::cli::{self, Task};
use xtcp_agent::config::Config;
use xtcp_agent::delivery::route;
use xtcp_agent::{agent, load, logging, netns_list, offline, once, preflight, schema};

fn main() -> ExitCode {
    let invocation = match cli::parse() {
        Ok(invocation) => invocation,
        Err(stop) => return stop.exit(),
    };
    match invocation.task {
        Task::Check { json } => preflight::check(&invocation.settings, json),
        Task::Decode(options) => offline::decode(&invocation.settings, &options),
        Task::Dump(options) => once::dump(invocation.settings, &options),
        Task::Capture(options) => once::capture(invocation.settings, &options),
        Task::Netns(options) => netns_list::run(invocation.settings, &options),
        Task::Load(options) => load::run(&options),
        Task::Destinations => cli::show(&route::explain()),
        Task::Schema(options) => schema::run(&options),
        Task::Run => match invocation.config() {
            Ok(config) => collect(config),
            Err(errors) => cli::refuse(&errors),
        },
    }
}

/// Runs the agent until SIGTERM or SIGINT.
fn collect(config: Config) -> ExitCode {
    match logging::init(&config.log).map_err(anyhow::Error::from).and_then(|()| run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Each error says its cause itself. Standard error may be closed; the status still tells.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    // The work is in threads of its own; what runs here waits for sockets and timers. This thread runs the agent's loop; on
    // a small host one beside it is enough for the rest.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(if processors > 4 { 2 } else { 1 })
        .thread_name("xtcp-io")
        .enable_all()
        .build()?;
    // Before anything takes time: a signal that comes while the agent starts ends it in order, too.
    let within = runtime.enter();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    drop(within);
    let _admission = preflight::admit(&config)?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let signals = tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stop.cancel();
        });
        let ended = agent::run(config, shutdown).await;
        signals.abort();
        Ok(ended?)
    })
}
