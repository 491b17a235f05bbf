//! What a row costs before it is delivered: sockets of this process, asked for as a poll asks.

use std::net::{TcpListener, TcpStream};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use nix::time::ClockId;
use xtcp_agent::netns::NetnsId;
use xtcp_agent::record::builder::{Builder, Context, HostFields, RowFields, Template};
use xtcp_agent::record::{Reason, Rows};
use xtcp_inet_diag::framing::{Body, Messages};
use xtcp_inet_diag::request::{DumpBoth, Extensions};
use xtcp_inet_diag::state::States;
use xtcp_inet_diag::wire::Row;
use xtcp_proto::flat_record::v1::xtcp_flat_record::RecordMethod;

use super::rows::cpu;

/// Connections to hold; each is two sockets.
const CONNECTIONS: usize = 200;
/// Dumps of one measurement.
const DUMPS: usize = 50;

/// Holds connections and asks for them.
pub(crate) struct Collector {
    socket: Socket,
    template: Template,
    _connections: Vec<(TcpStream, TcpStream)>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let connection = |_| {
            let client = TcpStream::connect(address).expect("connected");
            (client, listener.accept().expect("accepted").0)
        };
        let mut socket = Socket::new(NETLINK_SOCK_DIAG).expect("a netlink socket");
        socket.bind_auto().expect("bound");
        let host = HostFields { hostname: "host.example".to_owned(), ..HostFields::default() };
        let template = Builder::new(host, (6, 12)).template(&Context {
            timestamp_ns: 1_700_000_000_000_000_000,
            netns: "default",
            netns_id: NetnsId { inode: 4_026_531_840, cookie: 1 },
            nsid: 0,
            workload: None,
            reason: Reason::Poll,
            method: RecordMethod::Dump,
            poll: 1_000,
            dump: 0,
            socket_fd: 9,
            netlinker_id: 1,
        });
        Self { socket, template, _connections: (0..CONNECTIONS).map(connection).collect() }
    }

    /// CPU of the kernel and of this thread for a row, ns.
    pub(crate) fn row_ns(&mut self) -> f64 {
        let began = cpu(ClockId::CLOCK_THREAD_CPUTIME_ID);
        let rows: usize = (0..DUMPS).map(|_| self.dump()).sum();
        let used = cpu(ClockId::CLOCK_THREAD_CPUTIME_ID).saturating_sub(began);
        assert!(rows >= 2 * CONNECTIONS * DUMPS, "{rows} rows");
        used.as_secs_f64() * 1e9 / rows as f64
    }

    fn dump(&mut self) -> usize {
        let request = DumpBoth { states: States::DEFAULT, extensions: Extensions::ALL_WANTED };
        self.socket.send_to(&request.to_bytes(1), &SocketAddr::new(0, 0), 0).expect("asked");
        let mut rows = Rows::default();
        let mut buffer = bytes::BytesMut::with_capacity(1 << 16);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0).expect("an answer");
            for message in Messages::new(&buffer) {
                match message.expect("a message").body {
                    Body::Data { payload } => {
                        let row = Row::new(payload).expect("a row");
                        let fields = RowFields { counter: 1, ..RowFields::default() };
                        self.template.append(&row, fields, &mut rows).expect("encoded");
                    }
                    Body::Done { .. } => return rows.len(),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
