//! What an answer of ClickHouse means: by the number of its exception, which says more than the status.

use crate::destination::http::post::Answer;
use crate::destination::http::{Verdict, judge};

/// Whether rows were inserted, else whether they ever can be.
pub(super) fn of(answer: &Answer) -> Result<(), Verdict> {
    let Some(code) = code(answer) else { return judge(answer) };
    Err(match code {
        // The bytes are not what the format says, or one of them is more than the server ever takes:
        // CANNOT_PARSE_TEXT, CANNOT_PARSE_…, ATTEMPT_TO_READ_AFTER_EOF, CANNOT_READ_ALL_DATA, CANNOT_PARSE_NUMBER,
        // INCORRECT_DATA, TOO_LARGE_STRING_SIZE, UNKNOWN_PROTOBUF_FORMAT.
        6 | 26 | 27 | 32 | 33 | 38 | 41 | 72 | 117 | 131 | 444 => {
            Verdict::Drop("these rows cannot be read there")
        }
        60 => Verdict::Retry("make the table (deploy/clickhouse/xtcp.sql), or name it with table"),
        81 => Verdict::Retry("make the database, or name it with database"),
        16 | 47 => Verdict::Retry("the table lacks a column (deploy/clickhouse/xtcp.sql has all)"),
        192 | 193 | 194 | 516 => Verdict::Retry("check user and password"),
        164 | 497 => Verdict::Retry("grant the user INSERT on the table"),
        // FILE_DOESNT_EXIST, CANNOT_PARSE_PROTOBUF_SCHEMA, BAD_ARGUMENTS: the schema, as far as an INSERT has arguments.
        107 | 434 | 36 => Verdict::Retry(
            "put xtcp_flat_record.proto among the server's format schemas, or name it with format-schema",
        ),
        252 => Verdict::Retry(
            "the table has too many parts: fewer, larger inserts (async-insert=true) let it merge",
        ),
        _ => Verdict::Retry(""),
    })
}

/// The number of the exception, where there was one.
fn code(answer: &Answer) -> Option<u32> {
    let header = answer.headers.get("x-clickhouse-exception-code").and_then(|value| value.to_str().ok());
    let text = || {
        let rest = answer.text.strip_prefix("Code: ")?;
        rest.split_once('.').map(|(code, _)| code)
    };
    header.or_else(text)?.trim().parse().ok()
}
