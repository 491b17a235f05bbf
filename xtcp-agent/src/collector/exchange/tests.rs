//! The kernel's part is played by a script: no kernel sends these answers when it is asked to.

use std::cell::RefCell;
use std::collections::VecDeque;

use xtcp_inet_diag::framing::{NLM_F_DUMP_INTR, SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK};

use super::*;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const ROW: [u8; 72] = [2; 72];
const QUESTION: Question<'static> = Question {
    protocol: Protocol::TCP,
    states: States::ALL,
    extensions: Extensions::NONE,
    extras: Extras::NONE,
};

/// Answers `receive` by receive; each is made from the number of the last request.
type Answer = Box<dyn Fn(u32) -> Result<Vec<u8>, Errno>>;

struct Kernel {
    answers: RefCell<VecDeque<Answer>>,
    asked: RefCell<Vec<(u16, u32)>>,
    sent: RefCell<Vec<usize>>,
}

impl Kernel {
    fn new(answers: Vec<Answer>) -> Self {
        Self { answers: RefCell::new(answers.into()), asked: RefCell::default(), sent: RefCell::default() }
    }
}

impl Link for Kernel {
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        for message in Messages::new(bytes) {
            let header = message.expect("a request is netlink").header;
            self.asked.borrow_mut().push((header.kind, header.seq));
        }
        self.sent.borrow_mut().push(bytes.len());
        Ok(bytes.len())
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let answer = self.answers.borrow_mut().pop_front().expect("no more is read than was answered");
        let last = self.asked.borrow().last().expect("asked before answered").1;
        let datagram = answer(last).map_err(io::Error::from)?;
        let fits = datagram.len().min(buffer.len());
        buffer[..fits].copy_from_slice(&datagram[..fits]);
        Ok(datagram.len())
    }
}

fn message(kind: u16, flags: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + payload.len()).unwrap();
    [
        &length.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &seq.to_ne_bytes(),
        &[0; 4],
        payload,
    ]
    .concat()
}

fn row(flags: u16) -> Answer {
    Box::new(move |seq| Ok(message(TCPDIAG_GETSOCK, flags, seq, &ROW)))
}

fn control(kind: u16, errno: i32) -> Answer {
    Box::new(move |seq| Ok(message(kind, 0, seq, &errno.to_ne_bytes())))
}

fn failing(errno: Errno) -> Answer {
    Box::new(move |_| Err(errno))
}

fn metrics() -> CollectorMetrics {
    CollectorMetrics::register(&prometheus::Registry::new()).unwrap()
}

/// Rows that a dump gave, how it ended, and what was asked.
fn dump(answers: Vec<Answer>) -> (usize, Result<(), Fault>, Vec<u16>) {
    let kernel = Kernel::new(answers);
    let mut rows = 0;
    let ended = Exchange::new().dump(&kernel, QUESTION, &metrics(), &mut |payloads| rows += payloads.len());
    let asked = kernel.asked.take().into_iter().map(|(kind, _)| kind).collect();
    (rows, ended, asked)
}

#[test]
fn mptcp_is_asked_for_by_family() {
    let kernel = Kernel::new(vec![row(2), control(NLMSG_DONE, 0), control(NLMSG_DONE, 0)]);
    let question = Question { protocol: Protocol::MPTCP, ..QUESTION };
    Exchange::new().dump(&kernel, question, &metrics(), &mut |_| ()).unwrap();
    assert!(kernel.asked.take().into_iter().map(|(kind, _)| kind).eq([SOCK_DIAG_BY_FAMILY; 2]));
}

#[test]
fn a_dump_is_one_request_and_ends_with_done() {
    let (rows, ended, asked) = dump(vec![row(2), row(2), control(NLMSG_DONE, 0)]);
    assert_eq!((rows, asked), (2, vec![TCPDIAG_GETSOCK]));
    ended.unwrap();
}

#[test]
fn a_kernel_without_the_old_request_is_asked_for_each_family() {
    let (rows, ended, asked) = dump(vec![
        control(NLMSG_ERROR, -(Errno::EINVAL as i32)),
        row(2),
        control(NLMSG_DONE, 0),
        row(2),
        control(NLMSG_DONE, 0),
    ]);
    assert_eq!((rows, asked), (2, vec![TCPDIAG_GETSOCK, SOCK_DIAG_BY_FAMILY, SOCK_DIAG_BY_FAMILY]));
    ended.unwrap();
}

#[test]
fn an_interrupted_dump_is_read_to_its_end_and_repeated() {
    let (rows, ended, _) = dump(vec![row(NLM_F_DUMP_INTR), row(0), control(NLMSG_DONE, 0)]);
    assert_eq!(rows, 2);
    let fault = ended.unwrap_err();
    assert!(matches!(fault, Fault::Interrupted) && fault.is_worth_repeating());
}

#[test]
fn every_way_in_which_an_answer_breaks_off_is_told_apart() {
    let ended = |answer| dump(vec![row(0), answer]).1.unwrap_err();
    assert!(matches!(ended(control(NLMSG_DONE, -(Errno::ENOMEM as i32))), Fault::Refused(Errno::ENOMEM)));
    assert!(matches!(ended(control(NLMSG_ERROR, -(Errno::EPERM as i32))), Fault::Refused(Errno::EPERM)));
    assert!(matches!(ended(control(NLMSG_OVERRUN, 0)), Fault::Overrun));
    assert!(matches!(ended(failing(Errno::ENOBUFS)), Fault::Overrun));
    assert!(matches!(ended(failing(Errno::EAGAIN)), Fault::Timeout));
    assert!(matches!(ended(failing(Errno::EBADF)), Fault::Call { call: "recv", .. }));
    assert!(matches!(
        ended(Box::new(|seq| Ok(message(18, 0, seq, &vec![0; 40_000])))),
        Fault::Truncated(40_016)
    ));
    assert!(matches!(ended(Box::new(|_| Ok(vec![9; 7]))), Fault::Framing(_)));
    assert!(matches!(ended(Box::new(|seq| Ok(message(NLMSG_ERROR, 0, seq, &[1])))), Fault::Control));
}

#[test]
fn an_interrupted_system_call_is_not_an_end() {
    let (rows, ended, _) = dump(vec![failing(Errno::EINTR), row(0), control(NLMSG_DONE, 0)]);
    assert_eq!(rows, 1);
    ended.unwrap();
}

#[test]
fn answers_to_other_requests_are_passed_over() {
    let stray: Answer = Box::new(|seq| Ok(message(TCPDIAG_GETSOCK, 0, seq.wrapping_sub(1), &ROW)));
    let early_done: Answer = Box::new(|seq| Ok(message(NLMSG_DONE, 0, seq.wrapping_add(7), &[0; 4])));
    let (rows, ended, _) = dump(vec![stray, early_done, row(0), control(NLMSG_DONE, 0)]);
    assert_eq!(rows, 1);
    ended.unwrap();
}

fn lookup(cookie: u64) -> Lookup {
    Lookup {
        family: 2,
        source: [0; 16],
        destination: [0; 16],
        source_port: 1,
        destination_port: 2,
        interface: 0,
        cookie,
        sk: cookie,
        event_sequence: 0,
        owner: None,
    }
}

#[test]
fn each_lookup_of_a_batch_gets_its_own_answer_whatever_the_order() {
    let answer = |kind, back: u32, payload: Vec<u8>| -> Answer {
        Box::new(move |last| Ok(message(kind, 0, last.wrapping_sub(back), &payload)))
    };
    let kernel = Kernel::new(vec![
        answer(SOCK_DIAG_BY_FAMILY, 0, ROW.to_vec()),
        answer(NLMSG_ERROR, 1, (-(Errno::ENOENT as i32)).to_ne_bytes().to_vec()),
        answer(SOCK_DIAG_BY_FAMILY, 9, ROW.to_vec()),
        answer(SOCK_DIAG_BY_FAMILY, 2, ROW.to_vec()),
    ]);
    let mut found = Vec::new();
    let batch = [lookup(1), lookup(2), lookup(3)];
    Exchange::new()
        .look_up(&kernel, &batch, Extensions::NONE, &metrics(), &mut |lookup, _| found.push(lookup.cookie))
        .unwrap();
    assert_eq!(found, [3, 1]);
}

#[test]
fn a_refused_lookup_ends_the_batch_with_its_errno() {
    let kernel = Kernel::new(vec![control(NLMSG_ERROR, -(Errno::EPERM as i32))]);
    let ended = Exchange::new().look_up(&kernel, &[lookup(1)], Extensions::NONE, &metrics(), &mut |_, _| ());
    assert!(matches!(ended, Err(Fault::Refused(Errno::EPERM))));
}

#[test]
fn bpf_storages_that_the_kernel_does_not_tell_are_asked_for_once() {
    let refused = control(NLMSG_ERROR, -(Errno::EPERM as i32));
    let kernel =
        Kernel::new(vec![refused, row(0), control(NLMSG_DONE, 0), row(0), row(0), control(NLMSG_DONE, 0)]);
    let (metrics, mut exchange, mut rows) = (metrics(), Exchange::new(), 0);
    let extras = Extras { bpf_storages: true, ..Extras::NONE };
    for _ in 0..2 {
        exchange
            .dump(&kernel, Question { extras, ..QUESTION }, &metrics, &mut |payloads| rows += payloads.len())
            .unwrap();
    }
    assert_eq!(rows, 3);
    assert_eq!(*kernel.sent.borrow(), [80, 76, 76], "the attribute has 4 bytes");
}

#[test]
fn a_row_with_bpf_storages_may_be_longer_than_any_other() {
    let long: Answer = Box::new(|seq| {
        let payload = [&ROW[..], &vec![0; 60_000]].concat();
        Ok(message(TCPDIAG_GETSOCK, 0, seq, &payload))
    });
    let kernel = Kernel::new(vec![long, control(NLMSG_DONE, 0)]);
    let extras = Extras { bpf_storages: true, ..Extras::NONE };
    let mut lengths = Vec::new();
    Exchange::new()
        .dump(&kernel, Question { extras, ..QUESTION }, &metrics(), &mut |payloads| {
            lengths.extend(payloads.iter().map(|row| row.len()));
        })
        .unwrap();
    assert_eq!(lengths, [60_072]);
}
