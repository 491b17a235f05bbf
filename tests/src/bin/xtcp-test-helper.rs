//! A process of its own for tests in which a process ends with a connection open.
//!
//! `xtcp-test-helper ADDRESS` connects there, says `connected`, and holds the connection. At a byte on its standard input
//! it exits by itself; it also ends when its standard input does, so it never outlives the test.
#![allow(clippy::print_stdout, reason = "it answers on standard output")]

use std::io::{Read, stdin};
use std::net::TcpStream;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(address) = std::env::args().nth(1) else {
        return ExitCode::from(2);
    };
    let Ok(stream) = TcpStream::connect(address) else {
        return ExitCode::from(3);
    };
    println!("connected");
    let _ = stdin().read(&mut [0; 1]);
    // Ends with the connection open: the kernel closes it, not this program.
    std::mem::forget(stream);
    ExitCode::SUCCESS
}
