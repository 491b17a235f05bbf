//! The stage of one scenario: the sockets that it holds, and the moment at which all is captured.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use serde_json::{Value, json};
use socket2::Socket;
use xtcp_inet_diag::framing::{Body, Messages};
use xtcp_inet_diag::message::{Header, decode};
use xtcp_inet_diag::request::{Dump, DumpBoth, Extensions, Lookup, Protocol};
use xtcp_inet_diag::socket_id::Family;
use xtcp_inet_diag::state::{State, States};

use super::conversation::{Conversation, Kept, Until, pcap};
use super::truth::{self, Read};

/// How often a moment is sought in which nothing happens to any socket.
const ATTEMPTS: usize = 40;
/// Of how many sockets a scenario also asks by lookup.
const LOOKUPS: usize = 3;

struct Held {
    role: String,
    socket: Rc<Socket>,
}

/// A request of a scenario's own: protocol, message without sequence number, and where its answer ends.
pub(super) type Extra = Box<dyn Fn(&mut Conversation) -> Result<()>>;

/// What a scenario holds and wants.
pub(super) struct Stage {
    name: &'static str,
    about: &'static str,
    held: Vec<Held>,
    orphans: Vec<Value>,
    notes: Vec<String>,
    facts: serde_json::Map<String, Value>,
    extra: Vec<Extra>,
    packets: Vec<Kept>,
    lean: bool,
    by_family: bool,
    guards: Vec<Box<dyn std::any::Any>>,
}

/// What was captured of a scenario.
pub(super) struct Capture {
    /// The netlink conversation.
    pub(super) pcap: Vec<u8>,
    /// What the sockets said.
    pub(super) truth: String,
    /// What `ss` wrote, where there is one.
    pub(super) ss: Option<String>,
    /// The truth's `quiet`.
    pub(super) quiet: bool,
}

impl Stage {
    pub(super) fn new(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            held: Vec::new(),
            orphans: Vec::new(),
            notes: Vec::new(),
            facts: serde_json::Map::new(),
            extra: Vec::new(),
            packets: Vec::new(),
            lean: false,
            by_family: false,
            guards: Vec::new(),
        }
    }

    /// Holds a socket until the capture is over, under a name for people.
    pub(super) fn hold(&mut self, role: &str, socket: Socket) -> Rc<Socket> {
        let socket = Rc::new(socket);
        self.held.push(Held { role: role.to_owned(), socket: Rc::clone(&socket) });
        socket
    }

    /// There is a socket without a file: its row must say this state and these addresses.
    pub(super) fn orphan(&mut self, state: u8, local: SocketAddr, remote: SocketAddr) {
        self.orphans.push(json!({"state": state, "local": local.to_string(), "remote": remote.to_string()}));
    }

    /// Something that a reader should know.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Something that a test should know.
    pub(super) fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// One more request, after all others.
    pub(super) fn also_ask(&mut self, extra: Extra) {
        self.extra.push(extra);
    }

    /// Packets of a conversation that the scenario had itself.
    pub(super) fn keep(&mut self, conversation: Conversation) {
        self.packets.extend(conversation.into_packets());
    }

    /// Keeps something until the capture is over.
    pub(super) fn guard(&mut self, guard: impl std::any::Any) {
        self.guards.push(Box::new(guard));
    }

    /// Also asks for each family alone, and for all without attributes.
    pub(super) fn by_family(&mut self) {
        self.by_family = true;
    }

    /// There are many sockets: one dump, of each socket only its `tcp_info`, and no text of `ss`.
    pub(super) fn lean(&mut self) {
        self.lean = true;
    }

    /// Reads every socket, asks for all, runs `ss`, reads every socket; until nothing happened meanwhile.
    pub(super) fn capture(self) -> Result<Capture> {
        for attempt in 1.. {
            let start = Instant::now();
            let before = self.read();
            let read_before = Moment::since(start, start);
            let asked = Instant::now();
            let packets = self.converse().context("the netlink conversation")?;
            let asked = Moment::since(start, asked);
            let ran = Instant::now();
            let ss = if self.lean { None } else { ss().context("ss")? };
            let ran = Moment::since(start, ran);
            let read = Instant::now();
            let after = self.read();
            let read_after = Moment::since(start, read);
            let quiet = before.iter().zip(&after).all(|(before, after)| before.is_quiet(after));
            if quiet || attempt >= ATTEMPTS {
                let times = json!({"read_before": read_before.0, "asked": asked.0, "ss": ran.0, "read_after": read_after.0});
                let truth = self.truth(&before, &after, quiet, &times)?;
                let packets: Vec<_> = self.packets.iter().cloned().chain(packets).collect();
                return Ok(Capture { pcap: pcap(&packets)?, truth, ss, quiet });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("no attempt was made")
    }

    fn read(&self) -> Vec<Read> {
        self.held.iter().map(|held| Read::of(&held.socket, self.lean)).collect()
    }

    fn converse(&self) -> Result<Vec<Kept>> {
        let mut talk = Conversation::new(NETLINK_SOCK_DIAG)?;
        let (states, extensions) = (States::ALL, Extensions::ALL);
        let both = DumpBoth { states, extensions }.to_bytes(talk.next_sequence());
        let rows = headers(&talk.ask(&both, Until::Done)?)?;
        if self.by_family {
            for family in [Family::Inet, Family::Inet6] {
                let dump = Dump { family, protocol: Protocol::TCP, states, extensions };
                let request = dump.to_bytes(talk.next_sequence());
                talk.ask(&request, Until::Done)?;
            }
            let bare = DumpBoth { states, extensions: Extensions::NONE }.to_bytes(talk.next_sequence());
            talk.ask(&bare, Until::Done)?;
        }
        if !self.lean {
            look_up(&mut talk, &rows)?;
        }
        for extra in &self.extra {
            extra(&mut talk)?;
        }
        Ok(talk.into_packets())
    }

    fn truth(&self, before: &[Read], after: &[Read], quiet: bool, times: &Value) -> Result<String> {
        let mut sockets = Vec::new();
        for (held, (before, after)) in self.held.iter().zip(before.iter().zip(after)) {
            sockets.push(truth::socket(&held.role, &held.socket, before, after, self.lean)?);
        }
        let head = json!({
            "scenario": self.name,
            "about": self.about,
            "notes": self.notes,
            "facts": self.facts,
            "quiet": quiet,
            "ns": times,
        });
        let head = serde_json::to_string_pretty(&head)?;
        let list = |values: &[Value]| {
            values.iter().map(|value| format!("    {value}")).collect::<Vec<_>>().join(",\n")
        };
        let head = head.trim_end_matches(['}', '\n']);
        Ok(format!(
            "{head},\n  \"orphans\": [\n{}\n  ],\n  \"sockets\": [\n{}\n  ]\n}}\n",
            list(&self.orphans),
            list(&sockets)
        ))
    }
}

/// From and to, nanoseconds since the first read.
struct Moment([u64; 2]);

impl Moment {
    fn since(start: Instant, from: Instant) -> Self {
        let ns = |at: Instant| u64::try_from(at.duration_since(start).as_nanos()).unwrap_or(u64::MAX);
        Self([ns(from), ns(Instant::now())])
    }
}

/// The headers of all rows of a dump.
fn headers(datagrams: &[Vec<u8>]) -> Result<Vec<Header>> {
    let mut headers = Vec::new();
    for datagram in datagrams {
        for message in Messages::new(datagram) {
            match message.map_err(|e| anyhow::anyhow!("{e}"))?.body {
                Body::Data { payload } => {
                    headers.push(decode(payload).map_err(|e| anyhow::anyhow!("{e}"))?.header);
                }
                Body::Error { errno, .. } => bail!("the kernel answered with errno {errno}"),
                Body::Noop | Body::Overrun | Body::Done { .. } | Body::Malformed => {}
            }
        }
    }
    Ok(headers)
}

/// Asks for some sockets alone, and for one that does not exist.
fn look_up(talk: &mut Conversation, rows: &[Header]) -> Result<()> {
    let findable = |row: &&Header| {
        !matches!(
            row.state(),
            None | Some(State::TimeWait | State::SynRecv | State::Close | State::NewSynRecv)
        )
    };
    let mut lookups: Vec<_> = rows
        .iter()
        .filter(findable)
        .take(LOOKUPS)
        .filter_map(|row| Lookup::of(row, Extensions::ALL))
        .collect();
    let missing = lookups.first().copied();
    lookups.extend(missing.map(|mut lookup| {
        lookup.id.cookie = u64::MAX >> 1;
        lookup
    }));
    for lookup in lookups {
        let request = lookup.to_bytes(talk.next_sequence());
        talk.ask(&request, Until::Datagrams(1))?;
    }
    Ok(())
}

/// The text of `ss` for every TCP socket of the namespace; `None` without the program.
fn ss() -> Result<Option<String>> {
    let argv = ["-tiemnOa", "--tos", "--cgroup", "--inet-sockopt"];
    let output = match Command::new("ss").args(argv).stdin(Stdio::null()).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        output => output?,
    };
    if !output.status.success() || !output.stderr.is_empty() {
        bail!("ss {argv:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout)?;
    // It pads every line to the widest.
    Ok(Some(text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()))
}
