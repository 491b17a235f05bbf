use std::vec::Vec;

use super::*;

fn message(len: u32, kind: u16, flags: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(len.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    bytes.extend(77_u32.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(align(bytes.len()), 0);
    bytes
}

fn whole(kind: u16, flags: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
    message(u32::try_from(HEADER_LEN + payload.len()).unwrap(), kind, flags, seq, payload)
}

fn only(datagram: &[u8]) -> Message<'_> {
    let mut messages = Messages::new(datagram);
    let message = messages.next().unwrap().unwrap();
    assert!(messages.next().is_none());
    message
}

/// An error about no request.
fn error(errno: i32) -> Body<'static> {
    Body::Error { errno, request: None, extended: ExtendedAck::default() }
}

/// What `NETLINK_EXT_ACK` adds: a text, an offset, and two attributes that nobody reads.
fn extended_ack() -> Vec<u8> {
    let attributes: [(u16, &[u8]); 4] =
        [(1, b"too many\0"), (3, &[9; 3]), (2, &36_u32.to_ne_bytes()), (99, &[])];
    let mut bytes = Vec::new();
    for (number, payload) in attributes {
        bytes.extend(u16::try_from(4 + payload.len()).unwrap().to_ne_bytes());
        bytes.extend(number.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(align(bytes.len()), 0);
    }
    bytes
}

const SAID: ExtendedAck<'static> = ExtendedAck { message: Some("too many"), offset: Some(36), missing: None };

#[test]
fn every_control_message_is_told_from_data() {
    let mut datagram = whole(NLMSG_NOOP, 0, 1, &[]);
    datagram.extend(whole(SOCK_DIAG_BY_FAMILY, NLM_F_MULTI, 2, &[1, 2, 3]));
    datagram.extend(whole(NLMSG_OVERRUN, 0, 3, &[]));
    datagram.extend(whole(NLMSG_DONE, NLM_F_MULTI | NLM_F_DUMP_INTR, 4, &(-105_i32).to_ne_bytes()));
    datagram.extend(whole(NLMSG_DONE, NLM_F_MULTI, 5, &[]));
    let messages: Vec<_> = Messages::new(&datagram).collect::<Result<_, _>>().unwrap();
    let bodies: Vec<_> = messages.iter().map(|message| message.body).collect();
    assert_eq!(
        bodies,
        [
            Body::Noop,
            Body::Data { payload: &[1, 2, 3] },
            Body::Overrun,
            Body::Done { status: -105, extended: ExtendedAck::default() },
            Body::Done { status: 0, extended: ExtendedAck::default() }
        ]
    );
    assert!(messages[1].is_multipart() && messages[1].is_socket() && !messages[1].is_dump_interrupted());
    assert!(messages[3].is_dump_interrupted() && !messages[3].is_socket());
    assert_eq!(messages.iter().map(|message| message.header.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(messages[0].header.pid, 77);
}

#[test]
fn an_error_names_the_request_that_failed_and_zero_is_an_acknowledgement() {
    let mut payload = (-2_i32).to_ne_bytes().to_vec();
    payload.extend(message(72, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 41, &[]));
    let mut datagram = whole(NLMSG_ERROR, 0, 41, &payload);
    datagram.extend(whole(NLMSG_ERROR, 0, 42, &0_i32.to_ne_bytes()));
    datagram.extend(whole(NLMSG_ERROR, 0, 43, &[1]));
    let bodies: Vec<_> = Messages::new(&datagram).map(|message| message.unwrap().body).collect();
    let Body::Error { errno: 2, request: Some(request), .. } = bodies[0] else { panic!("{:?}", bodies[0]) };
    assert_eq!((request.seq, request.kind, request.len), (41, SOCK_DIAG_BY_FAMILY, 72));
    assert_eq!(bodies[1], error(0));
    assert_eq!(bodies[2], Body::Malformed);
}

#[test]
fn the_smallest_errno_does_not_overflow() {
    let datagram = whole(NLMSG_ERROR, 0, 1, &i32::MIN.to_ne_bytes());
    let body = Messages::new(&datagram).next().unwrap().unwrap().body;
    assert_eq!(body, error(i32::MAX));
}

#[test]
fn a_length_below_the_header_ends_the_datagram() {
    let mut datagram = whole(NLMSG_NOOP, 0, 1, &[]);
    datagram.extend(message(15, SOCK_DIAG_BY_FAMILY, 0, 2, &[]));
    datagram.extend(whole(NLMSG_NOOP, 0, 3, &[]));
    let mut messages = Messages::new(&datagram);
    assert!(messages.next().unwrap().is_ok());
    let error = messages.next().unwrap().unwrap_err();
    let expected =
        FramingError { fault: FramingFault::LengthTooSmall, offset: 16, wanted: 16, available: 15 };
    assert_eq!(error, expected);
    assert!(messages.next().is_none());
}

#[test]
fn a_truncated_datagram_says_where_and_how_much_is_missing() {
    let datagram = whole(SOCK_DIAG_BY_FAMILY, 0, 1, &[7; 32]);
    let error = Messages::new(&datagram[..40]).next().unwrap().unwrap_err();
    let expected =
        FramingError { fault: FramingFault::MessageTruncated, offset: 0, wanted: 48, available: 40 };
    assert_eq!(error, expected);
    let error = Messages::new(&datagram[..9]).next().unwrap().unwrap_err();
    assert_eq!(std::format!("{error}"), "netlink message header cut off at byte 0: wanted 16 bytes, got 9");
}

#[test]
fn the_last_message_may_lack_its_padding() {
    let datagram = whole(SOCK_DIAG_BY_FAMILY, 0, 1, &[7; 5]);
    let messages: Vec<_> = Messages::new(&datagram[..21]).collect();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].unwrap().body, Body::Data { payload: &[7; 5] });
}

#[test]
fn an_empty_datagram_holds_no_message() {
    assert!(Messages::new(&[]).next().is_none());
}

#[test]
fn an_error_says_more_behind_the_request_whether_that_is_whole_or_capped() {
    let request = whole(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 41, &[3; 57]);
    for (flags, repeated) in [(NLM_F_ACK_TLVS, 76), (NLM_F_ACK_TLVS | NLM_F_CAPPED, 16)] {
        let mut payload = (-22_i32).to_ne_bytes().to_vec();
        payload.extend(&request[..repeated]);
        payload.extend(extended_ack());
        let datagram = whole(NLMSG_ERROR, flags, 41, &payload);
        let Body::Error { errno: 22, request: Some(header), extended } = only(&datagram).body else {
            panic!("{datagram:?}")
        };
        assert_eq!((header.len, header.seq, extended), (73, 41, SAID));
        // Without the flag nothing is read behind the request.
        let datagram = whole(NLMSG_ERROR, flags & NLM_F_CAPPED, 41, &payload);
        assert!(
            matches!(only(&datagram).body, Body::Error { extended, .. } if extended == ExtendedAck::default())
        );
    }
}

#[test]
fn a_request_length_beyond_the_error_leaves_nothing_to_read() {
    let mut payload = (-22_i32).to_ne_bytes().to_vec();
    payload.extend(message(u32::MAX, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 41, &[]));
    payload.extend(extended_ack());
    let datagram = whole(NLMSG_ERROR, NLM_F_ACK_TLVS, 41, &payload);
    let Body::Error { errno: 22, request: Some(_), extended } = only(&datagram).body else { panic!() };
    assert_eq!(extended, ExtendedAck::default());
}

#[test]
fn the_end_of_a_dump_says_more_behind_its_status() {
    let mut payload = (-28_i32).to_ne_bytes().to_vec();
    payload.extend(extended_ack());
    let datagram = whole(NLMSG_DONE, NLM_F_MULTI | NLM_F_ACK_TLVS, 5, &payload);
    assert_eq!(only(&datagram).body, Body::Done { status: -28, extended: SAID });
}

#[test]
fn a_part_of_a_status_is_no_success() {
    for len in 1..4 {
        assert_eq!(only(&whole(NLMSG_DONE, NLM_F_MULTI, 5, &[0; 4][..len])).body, Body::Malformed);
    }
}

/// Gives the messages to an answer; the rows' payloads, what was foreign, and the end.
fn follow(mut answer: Answer, messages: &[Vec<u8>]) -> (Vec<u8>, usize, Option<Ending>) {
    let (mut rows, mut foreign) = (Vec::new(), 0);
    for message in messages {
        match answer.take(&only(message)) {
            Step::Row(payload) => rows.push(payload[0]),
            Step::Control => {}
            Step::Foreign => foreign += 1,
        }
    }
    (rows, foreign, answer.ending())
}

fn row(flags: u16, first: u8) -> Vec<u8> {
    whole(SOCK_DIAG_BY_FAMILY, flags, 1, &[first; 72])
}

fn control(kind: u16, flags: u16, errno: i32) -> Vec<u8> {
    whole(kind, flags, 1, &errno.to_ne_bytes())
}

#[test]
fn a_dump_is_over_with_done_and_says_how() {
    let dump = |end: Vec<u8>| {
        let messages = [row(NLM_F_MULTI, 7), whole(NLMSG_NOOP, 0, 1, &[]), row(0, 8), end];
        assert_eq!(follow(Answer::to_dump(), &messages[..3]), (std::vec![7, 8], 0, None));
        let (rows, foreign, ending) = follow(Answer::to_dump(), &messages);
        assert_eq!((rows, foreign), (std::vec![7, 8], 0));
        ending.unwrap()
    };
    assert_eq!(dump(control(NLMSG_DONE, 0, 0)), Ending::Complete);
    assert_eq!(dump(control(NLMSG_DONE, NLM_F_DUMP_INTR, 0)), Ending::Interrupted);
    assert_eq!(dump(control(NLMSG_DONE, NLM_F_DUMP_INTR, -12)), Ending::Refused { errno: 12 });
    assert_eq!(dump(control(NLMSG_ERROR, 0, -1)), Ending::Refused { errno: 1 });
    assert_eq!(dump(control(NLMSG_OVERRUN, 0, 0)), Ending::Overrun);
    assert_eq!(dump(whole(NLMSG_ERROR, 0, 1, &[1])), Ending::Malformed);
}

#[test]
fn one_interrupted_row_interrupts_the_dump_and_a_lost_datagram_damages_it() {
    let messages = [row(NLM_F_DUMP_INTR, 7), row(0, 8), control(NLMSG_DONE, 0, 0)];
    assert_eq!(follow(Answer::to_dump(), &messages).2, Some(Ending::Interrupted));
    let mut answer = Answer::to_dump();
    answer.damage();
    assert_eq!(follow(answer, &messages), (std::vec![7, 8], 0, Some(Ending::Damaged)));
}

#[test]
fn what_comes_after_the_end_or_is_no_row_is_foreign() {
    let other = whole(16, NLM_F_MULTI, 1, &[1; 72]);
    let messages = [other, control(NLMSG_DONE, 0, 0), row(0, 8), control(NLMSG_DONE, 0, -5)];
    assert_eq!(follow(Answer::to_dump(), &messages), (std::vec![], 3, Some(Ending::Complete)));
}

#[test]
fn a_lookup_is_answered_by_one_row_or_an_error_but_not_by_an_acknowledgement() {
    let found = [control(NLMSG_ERROR, NLM_F_CAPPED, 0), row(0, 7)];
    assert_eq!(follow(Answer::to_lookup(), &found[..1]).2, None);
    assert_eq!(follow(Answer::to_lookup(), &found), (std::vec![7], 0, Some(Ending::Complete)));
    let gone = [control(NLMSG_ERROR, 0, -2)];
    assert_eq!(follow(Answer::to_lookup(), &gone).2, Some(Ending::Refused { errno: 2 }));
    assert_eq!(follow(Answer::to_lookup(), &[control(NLMSG_DONE, 0, 0)]).2, Some(Ending::Malformed));
}
