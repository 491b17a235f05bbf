//! What the layers come to: precedence, and every error at once.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::cli::{Invocation, Stop, Task, command, parse_from};

fn parse(args: &[&str], env: &[(&str, &str)], file: Option<&str>) -> Result<Invocation, Stop> {
    let around = Surroundings {
        env: env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect(),
        default_file: "default.toml".into(),
        read: &|path| match file {
            Some(text) if path == Path::new("default.toml") => Ok(text.to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        },
    };
    let args = std::iter::once("xtcp2-agent").chain(args.iter().copied()).map(OsString::from).collect();
    parse_from(args, &around)
}

fn config(args: &[&str], env: &[(&str, &str)], file: Option<&str>) -> Config {
    match parse(args, env, file) {
        Ok(invocation) => invocation.config().expect("valid settings"),
        Err(stop) => panic!("{stop:?}"),
    }
}

fn errors(args: &[&str], env: &[(&str, &str)], file: Option<&str>) -> Vec<String> {
    let errors = match parse(args, env, file) {
        Ok(invocation) => invocation.config().expect_err("invalid settings"),
        Err(Stop::Invalid(errors)) => errors,
        Err(stop) => panic!("{stop:?}"),
    };
    errors.0.iter().map(ToString::to_string).collect()
}

#[test]
fn the_command_is_consistent() {
    command().debug_assert();
}

#[test]
fn no_settings_give_the_defaults_that_users_know() {
    let config = Config::defaults().unwrap();
    assert_eq!(config.poll.frequency, Duration::from_secs(10));
    assert_eq!(config.listen.grpc(), "127.0.0.1:8889".parse().unwrap());
    assert_eq!(config.listen.prom, "127.0.0.1:9088".parse().unwrap());
    let dest: Vec<String> = config.records.dest.iter().map(|route| route.address.to_string()).collect();
    assert_eq!((dest, config.records.topic.as_str()), (vec!["null".to_owned()], "xtcp"));
    assert_eq!(config.records.marshal.name(), "protobufList");
    assert_eq!((config.envelope.flush_rows, config.envelope.flush_bytes), (10_000, 768 << 10));
    assert_eq!(config.ebpf.ring_bytes, 8 << 20);
    assert_eq!(config.events.sinks, [crate::event_sink::parse("nats:127.0.0.1:4222").unwrap()]);
    assert!(config.events.by_default);
    assert_eq!(config.poll.states(), xtcp_inet_diag::state::States::DEFAULT);
    assert!(!config.identity.hostname.is_empty());
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let (flag, env, file) = (["--topic", "flag"], [("XTCP_TOPIC", "env")], Some("topic = 'file'"));
    assert_eq!(config(&flag, &env, file).records.topic, "flag");
    assert_eq!(config(&[], &env, file).records.topic, "env");
    assert_eq!(config(&[], &[], file).records.topic, "file");
    assert_eq!(config(&[], &[], None).records.topic, "xtcp");
}

#[test]
fn a_flag_that_repeats_the_default_still_beats_the_environment() {
    assert_eq!(config(&["--topic", "xtcp"], &[("XTCP_TOPIC", "env")], None).records.topic, "xtcp");
}

#[test]
fn options_stand_before_or_after_the_command() {
    for args in [["--topic", "t", "check", "--json"], ["check", "--json", "--topic", "t"]] {
        let invocation = parse(&args, &[], None).ok().unwrap();
        assert_eq!(invocation.task, Task::Check { json: true });
        assert_eq!(invocation.config().unwrap().records.topic, "t");
    }
}

#[test]
fn a_list_replaces_the_weaker_layers_list() {
    let file = Some("include_port = [1, 2]\nnetns-dir = '/a'");
    assert_eq!(config(&[], &[], file).sockets.include_ports, [1, 2]);
    assert_eq!(config(&[], &[("XTCP_INCLUDE_PORT", "3,4")], file).sockets.include_ports, [3, 4]);
    let flags = ["--include-port", "5", "--include-port", "6,7"];
    assert_eq!(config(&flags, &[], file).sockets.include_ports, [5, 6, 7]);
    assert_eq!(config(&[], &[], file).netns.dirs, [Path::new("/a")]);
}

#[test]
fn deserializers_are_put_together_and_a_wrong_one_is_told_which_are_known() {
    use xtcp_inet_diag::attr::Selection;
    let of = |config: Config| config.poll.deserializers();
    assert_eq!(of(config(&[], &[], None)), Selection::DEFAULT);
    let two = Selection::INFO | Selection::CONG;
    assert_eq!(of(config(&["--deserializers", "info,congestion_algorithm"], &[], None)), two);
    assert_eq!(of(config(&[], &[("XTCP_DESERIALIZERS", "tcp_info, cong")], None)), two);
    assert_eq!(of(config(&[], &[], Some("deserializers = ['info', 'cong']"))), two);
    let more = of(config(&["--deserializers", "default,md5sig_peers"], &[], None));
    assert_eq!(more, Selection::DEFAULT | Selection::MD5SIG_WITH_PEERS);
    let schema = schema();
    let option = schema.get_arguments().find(|arg| arg.get_id() == "deserializers").unwrap();
    let help = option.get_long_help().unwrap().to_string();
    for word in Selection::names().chain(["default", "all"]) {
        assert!(help.contains(word), "{word} is not in the help");
    }
    let error = &errors(&["--deserializers", "info,congg"], &[], None)[0];
    let start =
        "command line: deserializers = \"congg\": unknown group of attributes; did you mean cong? known: ";
    assert!(error.starts_with(start), "{error}");
}

#[test]
fn states_are_put_together_from_words_lists_and_arrays() {
    let listed =
        config(&["--states", "listening,established", "--states", "bucket"], &[], None).poll.states();
    let array = config(&[], &[], Some("states = ['listening', 'established', 'bucket']")).poll.states();
    let line = config(&[], &[], Some("states = 'listening,established,bucket'")).poll.states();
    assert_eq!((listed, array), (line, line));
    assert_eq!(config(&["--states", "all"], &[], None).poll.states(), xtcp_inet_diag::state::States::ALL);
    let error = &errors(&["--states", "open,all"], &[], None)[0];
    assert!(
        error.starts_with("command line: states = \"open\": unknown TCP state 'open'; known are"),
        "{error}"
    );
}

#[test]
fn an_item_of_a_list_in_the_file_may_contain_a_comma() {
    assert_eq!(config(&[], &[], Some("netns-include = ['a,b']")).netns.include.len(), 1);
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    assert_eq!(config(&[], &[("XTCP_TOPIC", "")], Some("topic = 'file'")).records.topic, "file");
}

#[test]
fn the_file_takes_numbers_strings_and_either_dash() {
    let file = "grpc_port = 1_234\nebpf-ring-bytes = 0x10_0000\nfrequency = '1m'\nlookup-batch = '3'";
    let config = config(&[], &[], Some(file));
    assert_eq!((config.listen.grpc_port, config.ebpf.ring_bytes, config.lookup.batch), (1234, 1 << 20, 3));
    assert_eq!(config.poll.frequency, Duration::from_secs(60));
}

#[test]
fn what_kubernetes_says_of_services_called_xtcp_is_no_setting() {
    let env = [
        ("XTCP_SERVICE_HOST", "10.0.0.1"),
        ("XTCP_SERVICE_PORT", "9088"),
        ("XTCP_SERVICE_PORT_METRICS", "9088"),
        ("XTCP_PORT", "tcp://10.0.0.1:9088"),
        ("XTCP_PORT_9088_TCP", "tcp://10.0.0.1:9088"),
        ("XTCP_AGENT_PORT_9088_TCP_ADDR", "10.0.0.1"),
        ("XTCP_GRPC_PORT", "9000"),
    ];
    assert_eq!(config(&[], &env, None).listen.grpc().port(), 9000);
    let errors =
        errors(&[], &[("XTCP_PORT", "9088"), ("XTCP_PORT_9088", "1"), ("XTCP_PROM_PORT", "1")], None);
    assert_eq!(errors.len(), 3, "{errors:?}");
}

#[test]
fn all_errors_come_at_once_with_key_source_and_accepted_values() {
    let file = "\nfrequencey = '1s'\nlog-format = 'xml'\n[poll]\nx = 1";
    let env = [("XTCP_TIMEOUT", "1ns"), ("XTCP_TIMOUT", "1s"), ("XTCP_TEST_X", "1"), ("XTCPX", "1")];
    let errors = errors(
        &[
            "--ebpf-ring-bytes=5MiB",
            "--netns-workers=0",
            "--dest=carrier-pigeon:",
            "--events=ftp:x",
            "--ebpf-deny=kprobe",
        ],
        &env,
        Some(file),
    );
    for wanted in [
        "default.toml:2: frequencey: unknown key; did you mean frequency? known: frequency, timeout",
        "default.toml:3: log-format = \"xml\": accepted: text, json",
        "default.toml:4: poll: unknown key",
        "environment XTCP_TIMEOUT: timeout = \"1ns\": out of range; accepted: a duration from 10ms to 24h",
        "environment XTCP_TIMOUT: unknown variable; did you mean XTCP_TIMEOUT? known: XTCP_FREQUENCY",
        "command line: ebpf-ring-bytes = \"5MiB\": not a power of two",
        "command line: netns-workers = \"0\": 0 is not in 1..=64",
        "command line: dest = \"carrier-pigeon:\": unknown destination",
        "command line: events = \"ftp:x\": event sink \"ftp:x\" has the unknown scheme \"ftp\"; known: nats:HOST",
        "command line: ebpf-deny = \"kprobe\": accepted: tcp_state, ",
    ] {
        assert!(errors.iter().any(|e| e.starts_with(wanted)), "{wanted}\nis not in\n{}", errors.join("\n"));
    }
    assert_eq!(errors.len(), 10, "{}", errors.join("\n"));
}

#[test]
fn a_flag_that_does_not_exist_does_not_hide_the_other_layers_errors() {
    let errors = errors(&["--frequencey", "1s"], &[("XTCP_NOPE", "1")], Some("topc = 'x'"));
    assert!(
        errors[0].contains("--frequencey") && errors[0].contains("a similar argument exists: '--frequency'")
    );
    assert!(errors[0].contains("known: --frequency, --timeout"), "{}", errors[0]);
    assert_eq!(errors.len(), 3);
}

#[test]
fn a_value_that_a_stronger_layer_hides_is_still_checked() {
    assert_eq!(errors(&["--frequency", "1s"], &[("XTCP_FREQUENCY", "often")], None).len(), 1);
}

#[test]
fn an_unknown_command_is_an_error() {
    assert!(errors(&["chekc"], &[], None)[0].contains("check"));
}

#[test]
fn broken_toml_is_told_with_its_line() {
    let errors = errors(&[], &[], Some("topic = 'x'\nfrequency = \n"));
    assert!(errors[0].starts_with("default.toml:2: TOML: "), "{}", errors[0]);
}

#[test]
fn a_named_file_must_exist_and_the_default_need_not() {
    let errors = errors(&["--config", "/nowhere.toml"], &[], None);
    assert!(
        errors[0].starts_with("command line: config = \"/nowhere.toml\": cannot be read"),
        "{}",
        errors[0]
    );
    assert!(parse(&[], &[], None).is_ok());
}

#[test]
fn the_file_cannot_name_another_file() {
    assert!(errors(&[], &[], Some("config = 'x'"))[0].contains("unknown key"));
}

#[test]
fn an_untold_timeout_follows_a_low_frequency_and_a_told_one_is_an_error() {
    assert_eq!(config(&["--frequency", "1s"], &[], None).poll.timeout, Duration::from_millis(500));
    assert_eq!(config(&["--frequency", "100ms"], &[], None).poll.timeout, Duration::from_millis(50));
    assert_eq!(config(&[], &[], None).poll.timeout, Duration::from_secs(5));
    let errors = errors(&["--frequency", "1s"], &[("XTCP_TIMEOUT", "2s")], None);
    assert_eq!(errors, ["environment XTCP_TIMEOUT: timeout: 2s is not below frequency, which is 1s"]);
}

#[test]
fn settings_that_contradict_each_other_are_errors() {
    for args in [
        &["--prom-listen", "127.0.0.1:8889"][..],
        &["--prom-listen", ":8889"],
        &["--events", "off", "--events", "stdout:"],
        &["--events", "nats:h", "--events", "nats:h:4222"],
        &["--include-port", "1", "--exclude-port", "1"],
        &["--dest", "stdout", "--events", "stdout:"],
        &["--protocols", "mptcp"],
        &["--protocols", "udp"],
    ] {
        assert_eq!(errors(args, &[], None).len(), 1, "{args:?}");
    }
    assert_eq!(config(&["--prom-listen", "127.0.0.1:0", "--grpc-port", "0"], &[], None).listen.grpc_port, 0);
}

#[test]
fn mptcp_is_asked_for_beside_tcp_only() {
    let mptcp = |args: &[&str]| config(args, &[], None).sockets.wants_mptcp();
    assert!(!mptcp(&[]));
    assert!(mptcp(&["--protocols", "tcp,mptcp"]) && mptcp(&["--protocols", "mptcp", "--protocols", "tcp"]));
}

#[test]
fn states_of_a_filter_replace_the_default_and_narrow_what_was_chosen() {
    let states = |args: &[&str]| config(args, &[], None).poll.states().to_string();
    assert_eq!(states(&["--filter", "state time-wait"]), "time-wait");
    assert_eq!(
        states(&["--states", "connected", "--filter", "exclude time-wait exclude established"]),
        "syn-sent,syn-recv,fin-wait-1,fin-wait-2,close-wait,last-ack,closing"
    );
    assert_eq!(states(&["--states", "listening", "--filter", "sport = :22"]), "listening");
    let contradiction = errors(&["--states", "listening", "--filter", "state established"], &[], None);
    assert!(
        matches!(contradiction.as_slice(), [one] if one.contains("no socket is in both")),
        "{contradiction:?}"
    );
}

#[test]
fn a_filter_is_taken_whole_from_every_layer_and_refused_with_its_place() {
    let text = "dport = :443 and ( src 10.0.0.0/8 or src [2001:db8::/32] )";
    let file = format!("filter = {text:?}");
    for config in [
        config(&["--filter", text], &[], None),
        config(&[], &[("XTCP_FILTER", text)], None),
        config(&[], &[], Some(&file)),
    ] {
        assert_eq!(config.sockets.filter.map(|filter| filter.to_string()).as_deref(), Some(text));
    }
    let wrong = errors(&["--filter", "dport = :443 and source 10.0.0.1"], &[], None);
    assert!(
        matches!(wrong.as_slice(), [one] if one.contains("byte 17") && one.contains("'source'")),
        "{wrong:?}"
    );
}

#[test]
fn an_empty_list_is_an_error_only_where_the_default_is_not_empty() {
    assert_eq!(errors(&[], &[], Some("netns-dir = []")).len(), 1);
    assert!(config(&[], &[], Some("include-port = []")).sockets.include_ports.is_empty());
}

proptest! {
    #[test]
    fn the_strongest_layer_wins_for_every_option(
        flag in prop::option::of(0u16..4), env in prop::option::of(10u16..14), file in prop::option::of(20u16..24),
    ) {
        let flag_word = flag.map(|port| port.to_string());
        let args: Vec<&str> = flag_word.iter().flat_map(|word| ["--grpc-port", word.as_str()]).collect();
        let env_word = env.map(|port| port.to_string());
        let env_layer: Vec<(&str, &str)> = env_word.iter().map(|word| ("XTCP_GRPC_PORT", word.as_str())).collect();
        let text = file.map(|port| format!("grpc-port = {port}"));
        let config = config(&args, &env_layer, text.as_deref());
        prop_assert_eq!(config.listen.grpc_port, flag.or(env).or(file).unwrap_or(8889));
    }

    #[test]
    fn no_file_makes_the_parser_panic(text: String) {
        let _ = parse(&[], &[], Some(&text));
    }
}

fn dest(config: &Config) -> Vec<String> {
    config.records.dest.iter().map(|route| route.address.to_string()).collect()
}

#[test]
fn several_destinations_come_from_flags_one_variable_or_the_file() {
    let flags = ["--dest", "null#name=a", "--dest", "stdout#marshal=jsonl"];
    let both = ["null#name=a", "stdout#marshal=jsonl"];
    assert_eq!(dest(&config(&flags, &[], None)), both);
    assert_eq!(dest(&config(&[], &[("XTCP_DEST", "null#name=a | stdout#marshal=jsonl")], None)), both);
    assert_eq!(dest(&config(&[], &[], Some("dest = ['null#name=a', 'stdout#marshal=jsonl']"))), both);
    let tables = "
        topic = 't'
        [[destination]]
        address = 'null'
        name = 'a'
        [[destination]]
        address = 'stdout'
        marshal = 'jsonl'
        queue_bytes = 2097152
        events = false
    ";
    let config = config(&[], &[], Some(tables));
    assert_eq!(dest(&config), ["null#name=a", "stdout#events=false&marshal=jsonl&queue-bytes=2097152"]);
    assert_eq!(config.records.dest[1].bounds.queue_bytes, 2 << 20);
}

#[test]
fn a_table_of_a_destination_says_what_is_wrong_in_it_and_where() {
    let wrong = |text: &str| errors(&[], &[], Some(text)).join(";");
    assert!(
        wrong("[[destination]]\nname = 'a'").contains("needs an address"),
        "{}",
        wrong("[[destination]]\nname = 'a'")
    );
    let unknown = wrong("[[destination]]\naddress = 'null'\ncolour = 'red'");
    assert!(unknown.contains("option colour is unknown") && unknown.contains(":1"), "{unknown}");
    let twice =
        wrong("[[destination]]\naddress = 'null'\nname = 'a'\n[[destination]]\naddress = 'null'\nname = 'a'");
    assert!(twice.contains("two destinations are called a"), "{twice}");
}
