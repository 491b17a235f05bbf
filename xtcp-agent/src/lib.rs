//! The agent: kernel events become targeted `inet_diag` requests, records and change events; beside them every
//! namespace is polled on the clock.

pub mod agent;
pub mod asn;
pub mod change_event;
pub mod cli;
pub mod clock;
pub mod collector;
pub mod config;
pub mod connections;
pub mod destination;
pub mod ebpf;
pub mod engine;
pub mod envelope;
pub mod event;
pub mod event_sink;
pub mod grpc;
pub mod load;
pub mod logging;
pub mod marshaller;
pub mod mask;
pub mod metrics;
pub mod netns;
pub mod netns_counters;
pub mod offline;
pub mod once;
pub mod owners;
pub mod pcap;
pub mod preflight;
pub mod printer;
pub mod record;
pub mod scheduler;
pub mod selection;
pub mod sys;
pub mod topology;
pub mod users;
pub mod workload;
