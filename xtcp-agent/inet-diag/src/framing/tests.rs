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
            Body::Done { status: -105 },
            Body::Done { status: 0 }
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
    let Body::Error { errno: 2, request: Some(request) } = bodies[0] else { panic!("{:?}", bodies[0]) };
    assert_eq!((request.seq, request.kind, request.len), (41, SOCK_DIAG_BY_FAMILY, 72));
    assert_eq!(bodies[1], Body::Error { errno: 0, request: None });
    assert_eq!(bodies[2], Body::Malformed);
}

#[test]
fn the_smallest_errno_does_not_overflow() {
    let datagram = whole(NLMSG_ERROR, 0, 1, &i32::MIN.to_ne_bytes());
    let body = Messages::new(&datagram).next().unwrap().unwrap().body;
    assert_eq!(body, Body::Error { errno: i32::MAX, request: None });
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
