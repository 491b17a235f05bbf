use reqwest::StatusCode;

use super::*;
use crate::destination;
use crate::marshaller;

fn answered(status: u16, code: Option<&str>, text: &str) -> Answer {
    let mut headers = HeaderMap::new();
    if let Some(code) = code {
        headers.insert("x-clickhouse-exception-code", code.parse().expect("a value"));
    }
    Answer {
        status: StatusCode::from_u16(status).expect("a status"),
        headers,
        location: None,
        text: text.to_owned(),
    }
}

#[test]
fn an_exception_tells_whether_to_try_again() {
    let verdict = |status, code, text| match verdict::of(&answered(status, code, text)) {
        Ok(()) => "inserted",
        Err(Verdict::Retry(_)) => "again",
        Err(Verdict::Drop(_)) => "never",
    };
    assert_eq!(verdict(200, None, ""), "inserted");
    assert_eq!(verdict(200, Some("241"), ""), "again");
    assert_eq!(verdict(404, Some("60"), "Code: 60. DB::Exception: …(UNKNOWN_TABLE)"), "again");
    assert_eq!(verdict(400, None, "Code: 117. DB::Exception: …(INCORRECT_DATA)"), "never");
    assert_eq!(verdict(500, Some("252"), "Code: 252. DB::Exception: …(TOO_MANY_PARTS)"), "again");
    assert_eq!(verdict(403, Some("516"), "Code: 516. DB::Exception: …(AUTHENTICATION_FAILED)"), "again");
    assert_eq!(verdict(500, Some("33"), "Code: 33. DB::Exception: …(CANNOT_READ_ALL_DATA)"), "never");
    assert_eq!(verdict(502, None, "<html>"), "again");
    assert_eq!(verdict(413, None, ""), "never");
}

#[test]
fn names_are_quoted_so_that_they_stay_names() {
    assert_eq!(quoted("xtcp"), "`xtcp`");
    assert_eq!(quoted("a`b\\c"), "`a\\`b\\\\c`");
}

#[test]
fn malformed_addresses_say_what_is_wrong() {
    for (address, problem) in [
        ("clickhouse:", "relative URL without a base"),
        ("clickhouse:tcp://host:9000", "\"tcp\" is neither http nor https"),
        ("clickhouse:http://host:8123/?database=a", "nothing may stand behind a question mark"),
        ("clickhouse:http://host:8123#format-schema=a'b:c", "written FILE:MESSAGE"),
        ("clickhouse:http://host:8123#async-insert=1", "accepted: true, false"),
    ] {
        let message = destination::parse(address, &[]).expect_err(address).to_string();
        assert!(message.contains(problem), "{address}: {message}");
    }
}

#[test]
fn only_the_format_that_the_table_can_read_is_taken() {
    let address = destination::parse("clickhouse:http://host:8123", &[]).expect("an address");
    assert_eq!(address.opener().takes(marshaller::parse("protobufList").expect("known")), Ok(()));
    assert!(address.opener().takes(marshaller::parse("jsonl").expect("known")).is_err());
}
