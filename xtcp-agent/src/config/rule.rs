//! What must hold between settings that are each valid.

use std::time::Duration;

use xtcp_inet_diag::state::States;

use super::Config;
use super::value::SocketProtocol;
use crate::delivery::{self, events::Form};
use crate::event_sink::SinkAddress;
use crate::marshaller;
use crate::selection::SocketFilter;
use crate::workload::socket::Word;

/// One broken rule.
pub(super) struct Broken {
    /// The settings that it speaks of, first the one to blame.
    pub(super) keys: &'static [&'static str],
    pub(super) problem: String,
}

/// Fits to each other what was not given.
pub(super) fn adapt(config: &mut Config, given: impl Fn(&str) -> bool) {
    let half = (config.poll.frequency / 2).max(Duration::from_millis(10));
    if !given("timeout") && config.poll.timeout >= config.poll.frequency {
        config.poll.timeout = half;
    }
    // What cannot be is left, and refused by a rule.
    let mut records = config.records.clone();
    for route in &mut records.dest {
        let format = route.marshal.unwrap_or(config.records.marshal);
        let common = config.records.laid_out(format).unwrap_or(format);
        route.marshal = marshaller::with_options(common, route.address.options()).ok().or(Some(common));
    }
    config.records = records;
    // The states of a filter take the default's place, and narrow what was chosen.
    if let Some(states) = config.sockets.filter.as_ref().and_then(SocketFilter::states) {
        let wanted = if given("states") { common(states, config.poll.states()) } else { states };
        if !wanted.is_empty() {
            config.poll.set_states(wanted);
        }
    }
}

/// States that are in both sets.
fn common(one: States, other: States) -> States {
    one.without(one.without(other))
}

/// Every rule that does not hold.
pub(super) fn broken(config: &Config) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut rule = |holds: bool, keys, problem: &dyn Fn() -> String| {
        if !holds {
            broken.push(Broken { keys, problem: problem() });
        }
    };
    rule(config.poll.timeout < config.poll.frequency, &["timeout", "frequency"], &|| {
        let frequency = humantime::format_duration(config.poll.frequency);
        let timeout = humantime::format_duration(config.poll.timeout);
        format!("{timeout} is not below frequency, which is {frequency}")
    });
    let (prom, grpc) = (config.listen.prom, config.listen.grpc());
    let same_address = prom.ip() == grpc.ip() || prom.ip().is_unspecified() || grpc.ip().is_unspecified();
    let clash = prom.port() != 0 && prom.port() == grpc.port() && same_address;
    rule(!clash, &["prom-listen", "grpc-port", "grpc-listen"], &|| {
        format!("metrics on {prom} and gRPC on {grpc} cannot share a port")
    });
    let sinks = &config.events.sinks;
    rule(sinks.len() == 1 || !sinks.contains(&SinkAddress::Off), &["events"], &|| {
        "off goes with no other sink".to_owned()
    });
    for (key, words) in [
        (&["docker-socket"], &config.workload.docker_sockets),
        (&["cri-socket"], &config.workload.cri_sockets),
    ] {
        let alone = words.len() == 1 || words.iter().all(|word| matches!(word, Word::At(_)));
        rule(alone, key, &|| "auto and off go with no other socket".to_owned());
    }
    destinations(config, &mut rule);
    let twice = sinks
        .iter()
        .enumerate()
        .find(|(at, sink)| sinks.iter().take(*at).any(|other| other.to_string() == sink.to_string()));
    rule(twice.is_none(), &["events"], &|| {
        format!("{} is given twice", twice.map(|(_, sink)| sink.to_string()).unwrap_or_default())
    });
    rule(config.sockets.protocols.contains(&SocketProtocol::Tcp), &["protocols"], &|| {
        "mptcp comes beside tcp, which its subflows are: write tcp,mptcp".to_owned()
    });
    let filter = config.sockets.filter.as_ref();
    let filter_states = filter.and_then(SocketFilter::states).unwrap_or(States::ALL);
    rule(!common(filter_states, config.poll.states()).is_empty(), &["filter", "states"], &|| {
        let states = config.poll.states();
        format!("it selects the states {filter_states}, and states only {states}: no socket is in both")
    });
    let both: Vec<String> = config
        .sockets
        .include_ports
        .iter()
        .filter(|port| config.sockets.exclude_ports.contains(port))
        .map(ToString::to_string)
        .collect();
    rule(both.is_empty(), &["exclude-port", "include-port"], &|| {
        format!("{} is both included and excluded", both.join(", "))
    });
    broken
}

/// Takes whether a rule holds, the settings that it speaks of, and what is wrong.
type Rule<'r> = dyn FnMut(bool, &'static [&'static str], &dyn Fn() -> String) + 'r;

/// Rules of where records go and as what.
fn destinations(config: &Config, rule: &mut Rule<'_>) {
    let sinks = &config.events.sinks;
    let twice = marshaller::repeated(&config.records.columns);
    rule(twice.is_none(), &["columns"], &|| format!("{} is given twice", twice.unwrap_or_default()));
    let routes = &config.records.dest;
    for route in routes {
        let format = route.marshal.unwrap_or(config.records.marshal);
        let layout = marshaller::with_options(format, route.address.options());
        rule(layout.is_ok(), &["dest", "marshal"], &|| {
            format!("{}: {}", route.address, layout.clone().err().unwrap_or_default())
        });
        let fits = route.address.opener().takes(format);
        rule(fits.is_ok(), &["dest", "marshal"], &|| {
            let problem = fits.clone().err().unwrap_or_default();
            format!("{} does not take {}: {problem}", route.address, format.name())
        });
        rule(!route.events || Form::of(format).is_some(), &["dest", "marshal"], &|| {
            format!(
                "{} carries change events, which go as protobufList or jsonl, not as {}",
                route.address,
                format.name()
            )
        });
        let shared = route.address.scheme() == "stdout" && sinks.contains(&SinkAddress::Stdout);
        rule(!shared || format.name() == "jsonl", &["marshal", "events", "dest"], &|| {
            "standard output takes records beside change events only as jsonl: one object a line, as those are"
                .to_owned()
        });
    }
    let names = delivery::names(routes);
    let same = names.iter().enumerate().find(|(at, name)| names.iter().take(*at).any(|other| other == *name));
    rule(same.is_none(), &["dest"], &|| {
        format!("two destinations are called {}", same.map(|(_, name)| name.as_str()).unwrap_or_default())
    });
}
