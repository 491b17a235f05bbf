//! Upper-layer protocols: kernel TLS and MPTCP.

use anyhow::Result;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{TcpTlsRx, TcpTlsTx, TcpUlp, TlsCryptoInfo};
use socket2::{Domain, Protocol, Socket, Type};

use super::conversation::{Conversation, Until};
use super::netns::{message, sysctl};
use super::sockets::{join, listen, listen_on, pair, read, write};
use super::stage::Stage;
use super::states::{v4, v6};
use super::{Scenario, absent};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "tls",
        about: "kernel TLS (the keys are zeros): 1.2 and 1.3, both directions, one direction, and the module alone",
        run: tls,
    },
    Scenario {
        name: "mptcp",
        about: "an MPTCP listener and connection, their subflows, and a dump of MPTCP itself",
        run: mptcp,
    },
];

/// `IPPROTO_MPTCP`.
const MPTCP: i32 = 262;
/// `INET_DIAG_REQ_PROTOCOL`: a protocol number that has more than 8 bits. Linux 5.10.
const REQ_PROTOCOL: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x301;

fn aes_128(version: u16) -> TlsCryptoInfo {
    TlsCryptoInfo::Aes128Gcm(libc::tls12_crypto_info_aes_gcm_128 {
        info: libc::tls_crypto_info { version, cipher_type: libc::TLS_CIPHER_AES_GCM_128 },
        iv: [0; 8],
        key: [0; 16],
        salt: [0; 4],
        rec_seq: [0; 8],
    })
}

fn aes_256(version: u16) -> TlsCryptoInfo {
    TlsCryptoInfo::Aes256Gcm(libc::tls12_crypto_info_aes_gcm_256 {
        info: libc::tls_crypto_info { version, cipher_type: libc::TLS_CIPHER_AES_GCM_256 },
        iv: [0; 8],
        key: [0; 32],
        salt: [0; 4],
        rec_seq: [0; 8],
    })
}

fn tls(stage: &mut Stage) -> Result<()> {
    let listener = listen(v4(24871), 16)?;
    let (client, server) = pair(&listener)?;
    setsockopt(&client, TcpUlp::default(), b"tls")
        .map_err(|error| absent(format!("the kernel has no TLS: TCP_ULP: {error}")))?;
    setsockopt(&server, TcpUlp::default(), b"tls")?;
    for end in [&client, &server] {
        setsockopt(end, TcpTlsTx, &aes_128(libc::TLS_1_2_VERSION))?;
        setsockopt(end, TcpTlsRx, &aes_128(libc::TLS_1_2_VERSION))?;
    }
    write(&client, b't', 2000, 2000)?;
    read(&server, 2000)?;
    stage.hold("TLS 1.2 client", client);
    stage.hold("TLS 1.2 server", server);

    let (client, server) = pair(&listener)?;
    setsockopt(&client, TcpUlp::default(), b"tls")?;
    match setsockopt(&client, TcpTlsTx, &aes_256(libc::TLS_1_3_VERSION)) {
        Ok(()) => stage.hold("TLS 1.3 client that only sends", client),
        Err(error) => {
            stage.note(format!("no TLS 1.3 with AES-256: {error}"));
            stage.hold("client with a TLS module and no keys", client)
        }
    };
    setsockopt(&server, TcpUlp::default(), b"tls")?;
    stage.hold("server with a TLS module and no keys", server);
    stage.hold("listener", listener);
    Ok(())
}

fn mptcp(stage: &mut Stage) -> Result<()> {
    let socket =
        |address| Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::from(MPTCP)));
    let _ = sysctl("mptcp/enabled", "1");
    for address in [v4(24872), v6(24872)] {
        let listener =
            socket(address).map_err(|error| absent(format!("the kernel has no MPTCP: socket: {error}")))?;
        listen_on(&listener, address, 16)?;
        let client = socket(address)?;
        let server = join(&client, &listener)?;
        write(&client, b'm', 4000, 1000)?;
        read(&server, 4000)?;
        write(&server, b'm', 1000, 1000)?;
        read(&client, 1000)?;
        stage.hold("MPTCP listener", listener);
        stage.hold("MPTCP client", client);
        stage.hold("MPTCP server", server);
    }
    stage.also_ask(Box::new(|talk| {
        dump_mptcp(talk, libc::AF_INET)?;
        dump_mptcp(talk, libc::AF_INET6)
    }));
    Ok(())
}

/// A dump of MPTCP's own sockets, whose protocol number does not fit the request's byte.
fn dump_mptcp(talk: &mut Conversation, family: i32) -> Result<()> {
    let mut body = vec![u8::try_from(family)?, u8::try_from(MPTCP & 0xff)?, 0xff, 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend([0; 48]);
    body.extend(8_u16.to_ne_bytes());
    body.extend(REQ_PROTOCOL.to_ne_bytes());
    body.extend(MPTCP.to_ne_bytes());
    let request = message(SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, talk.next_sequence(), &body)?;
    talk.ask(&request, Until::Done)?;
    Ok(())
}
