use prost::Message;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;

use super::*;

#[test]
fn the_table_is_the_contracts_list_of_fields() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/golden/xtcp_flat_record.txt");
    let golden = std::fs::read_to_string(golden).expect("the contract's golden file");
    let names: Vec<&str> = golden.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(all().iter().map(|field| field.name.as_str()).collect::<Vec<_>>(), names);
    assert!(names.len() > 156);
    for (at, field) in all().iter().enumerate() {
        assert_eq!(place(field.number), Some(at), "{}", field.name);
        assert!(!field.doc.is_empty(), "{} has no comment", field.name);
    }
    assert_eq!((place(0), place(2), place(4), place(u32::MAX)), (None, Some(1), None, None));
    let name = |number| place(number).and_then(|at| all().get(at)).map(|field| field.name.as_str());
    assert_eq!(name(FAMILY), Some("inet_diag_msg_family"));
    assert_eq!(name(SOURCE), Some("inet_diag_msg_socket_source"));
    assert_eq!(name(DESTINATION), Some("inet_diag_msg_socket_destination"));
}

#[test]
fn a_view_tells_what_a_row_holds_and_forgets_the_row_before() {
    let full = XtcpFlatRecord {
        timestamp_ns: -5,
        hostname: "h".to_owned(),
        pod_labels: vec!["a=b".to_owned(), String::new()],
        skv6only: Some(false),
        ..Default::default()
    }
    .encode_to_vec();
    let mut view = RowView::default();
    view.read(&full).expect("a row");
    let set: Vec<_> = view.set().map(|(field, value)| (field.number, value.clone())).collect();
    assert_eq!(
        set,
        [
            (10, Value::Number(5_u64.wrapping_neg())),
            (20, Value::Bytes(b"h")),
            (3023, Value::List(vec![b"a=b", b""])),
            (3101, Value::Number(0)),
        ]
    );
    view.read(&[]).expect("an empty row");
    assert_eq!(view.set().count(), 0);
    assert_eq!(*view.get(3101), Value::Absent);
}

#[test]
fn what_is_no_message_is_an_error_and_no_panic() {
    let row = XtcpFlatRecord { hostname: "host".to_owned(), ..Default::default() }.encode_to_vec();
    let mut view = RowView::default();
    for end in 1..row.len() {
        view.read(&row[..end]).expect_err("cut");
    }
    // Fields of other wire types and of later contracts are passed over.
    let later = [&[0x0d, 1, 2, 3, 4][..], &[0xfa, 0xff, 0xff, 0xff, 0x0f, 1, 7], &row].concat();
    view.read(&later).expect("a later row");
    assert_eq!(view.get(20).bytes(), b"host");
}
