//! Rows against the text of `ss`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use xtcp_inet_diag::message::Decoded;

use super::explain::explained;
use super::model::{Scene, TcpRow, scenes};
use super::rows::addresses;
use super::tokens::{Line, lines};

/// The five columns of a row, as `ss` writes them.
fn columns(decoded: &Decoded<'_>) -> [String; 5] {
    let states = [
        "",
        "ESTAB",
        "SYN-SENT",
        "SYN-RECV",
        "FIN-WAIT-1",
        "FIN-WAIT-2",
        "TIME-WAIT",
        "UNCONN",
        "CLOSE-WAIT",
        "LAST-ACK",
        "LISTEN",
        "CLOSING",
    ];
    let (local, remote) = addresses(decoded);
    let interface = if decoded.header.id.interface == 1 { "%lo" } else { "" };
    // An IPv6 socket that takes IPv4 too stands for both.
    let dual = decoded.attributes.sk_v6only.is_some_and(|only| !only.0);
    let text = |address: std::net::SocketAddr, interface: &str| {
        let port = if address.port() == 0 { "*".to_owned() } else { address.port().to_string() };
        match address.ip() {
            IpAddr::V6(ip) if ip.is_unspecified() && dual => format!("*{interface}:{port}"),
            IpAddr::V6(ip) => format!("[{ip}]{interface}:{port}"),
            IpAddr::V4(ip) => format!("{ip}{interface}:{port}"),
        }
    };
    [
        states[usize::from(decoded.header.state)].to_owned(),
        // It prints both as signed numbers.
        decoded.header.rqueue.cast_signed().to_string(),
        decoded.header.wqueue.cast_signed().to_string(),
        text(local, interface),
        text(remote, ""),
    ]
}

/// What of a line the row does not explain, and what of the row the line does not say.
fn line_misses(scene: &Scene, line: &Line<'_>, row: &TcpRow) -> String {
    let mut text = String::new();
    let said = [line.state, line.receive_queue, line.send_queue, line.local, line.remote];
    let wanted = columns(&row.decoded);
    if said[..] != wanted.each_ref().map(String::as_str)[..] {
        let _ = writeln!(text, "  columns: ss {said:?}, row {wanted:?}");
    }
    let words = explained(&row.decoded);
    for (name, value) in &line.words {
        // A congestion control's name is also the name of what it tells of itself.
        let known: Vec<_> = words.iter().filter(|word| word.name == *name).map(|word| &word.say).collect();
        if known.is_empty() {
            let _ = writeln!(text, "  no field explains {name:?} {value:?}");
        } else if !known.iter().any(|say| say.fits(value, scene)) {
            let _ = writeln!(text, "  {name}: ss {value:?}, row {known:?}");
        }
    }
    for word in words.iter().filter(|word| word.always) {
        if !line.words.iter().any(|(name, _)| *name == word.name) {
            let _ = writeln!(text, "  ss does not say {} {:?}", word.name, word.say);
        }
    }
    text
}

#[test]
fn every_word_of_ss_is_explained_by_a_decoded_field_and_every_field_by_a_word() {
    let (mut seen, mut names, mut misses) = (0, BTreeSet::new(), String::new());
    for scene in scenes() {
        let Some(text) = &scene.capture.ss else {
            assert_eq!(scene.capture.scenario, "many", "{} has no text of ss", scene.capture.name());
            continue;
        };
        let rows = scene.first_dump();
        let cookie_of = |line: &Line<'_>| {
            let cookie = line.words.iter().find(|(name, _)| *name == "sk").expect("ss writes the cookie");
            u64::from_str_radix(&cookie.1, 16).expect("a cookie is hexadecimal")
        };
        let lines = lines(text);
        for line in &lines {
            let Some(row) = rows.iter().find(|row| row.decoded.header.id.cookie == cookie_of(line)) else {
                let _ = writeln!(misses, "{}: no row for {line:?}", scene.capture.name());
                continue;
            };
            let wrong = line_misses(&scene, line, row);
            if !wrong.is_empty() {
                let (local, remote) = (line.local, line.remote);
                let _ = write!(misses, "{} {local} {remote}:\n{wrong}", scene.capture.name());
            }
            seen += 1;
            names.extend(line.words.iter().map(|(name, _)| (*name).to_owned()));
        }
        let shown: BTreeSet<_> = lines.iter().map(cookie_of).collect();
        // This ss does not ask for sockets that are only bound.
        let unshown = rows
            .iter()
            .filter(|row| row.decoded.header.state != 7 && !shown.contains(&row.decoded.header.id.cookie));
        assert_eq!(unshown.count(), 0, "{}: rows that ss does not show", scene.capture.name());
    }
    assert!(misses.is_empty(), "{misses}");
    assert!(seen > 500 && names.len() > 70, "{seen} lines with {} different words", names.len());
}
