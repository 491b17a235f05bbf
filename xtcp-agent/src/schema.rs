//! `schema`: what rows are, for consumers: the `.proto` file itself, a JSON schema of jsonl, the columns. Owns nothing but
//! how they are printed: the contract is the only source.

use std::process::ExitCode;

use clap::{Args, Command, ValueEnum};
use serde_json::{Map, Value, json};

use crate::cli;
use crate::fields::{self, Field, Kind};

const ABOUT: &str = "Prints what rows are: the .proto file, a JSON schema, or the columns";

const LONG_ABOUT: &str = "Prints what rows are, each field with its meaning, unit and absence.

Examples:
  xtcp2-agent schema > xtcp_flat_record.proto            for protobufList, protoJson and protoText
  xtcp2-agent schema --format json                       for jsonl: JSON Schema, draft 2020-12
  xtcp2-agent schema --format columns                    names for --columns: number, name, type, meaning";

/// What is printed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The contract as it is
    Proto,
    /// A JSON schema of a line of jsonl
    Json,
    /// Number, name, type and meaning of each field, with tabs between them
    Columns,
}

/// What `schema` is told.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct SchemaOptions {
    /// Form of the schema
    #[arg(id = "schema-format", long = "format", value_name = "FORM", default_value = "proto")]
    pub format: Format,
}

/// The subcommand.
// The texts come last: augmenting takes the options' own doc comment for the command's.
pub fn command() -> Command {
    SchemaOptions::augment_args(Command::new("schema")).about(ABOUT).long_about(LONG_ABOUT)
}

/// `xtcp2-agent schema`.
pub fn run(options: &SchemaOptions) -> ExitCode {
    let text = match options.format {
        Format::Proto => xtcp_proto::FLAT_RECORD_PROTO.to_owned(),
        Format::Json => json_text(),
        Format::Columns => columns(),
    };
    cli::show(&text)
}

fn columns() -> String {
    let line = |field: &Field| {
        let kind = match &field.kind {
            Kind::U32 => "uint32",
            Kind::U64 => "uint64",
            Kind::I64 => "int64",
            Kind::Bool => "bool",
            Kind::Text if field.list => "repeated string",
            Kind::Text => "string",
            Kind::Bytes => "bytes",
            Kind::Enum(_) => "enum",
        };
        format!("{}\t{}\t{kind}\t{}\n", field.number, field.name, field.doc)
    };
    fields::all().iter().map(line).collect()
}

/// The JSON schema as it is printed.
pub fn json_text() -> String {
    format!("{:#}\n", json_schema())
}

/// The schema of a line of jsonl, which is a record in proto3's JSON.
fn json_schema() -> Value {
    let properties: Map<String, Value> =
        fields::all().iter().map(|field| (field.json_name.clone(), property(field))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "xtcp_flat_record.v1.XtcpFlatRecord",
        "description": "One TCP socket at one moment, as proto3 JSON. What is 0, false or empty is left out unless its \
                        field says otherwise; 64-bit numbers are strings; bytes are base64. A later producer may have \
                        more fields.",
        "type": "object",
        "properties": properties,
    })
}

fn property(field: &Field) -> Value {
    let mut property = match &field.kind {
        Kind::U32 => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
        Kind::U64 => json!({ "type": "string", "pattern": "^[0-9]{1,20}$" }),
        Kind::I64 => json!({ "type": "string", "pattern": "^-?[0-9]{1,19}$" }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Text => json!({ "type": "string" }),
        Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        // A number that a later producer knows has no name here.
        Kind::Enum(words) => {
            let names: Vec<&str> = words.iter().map(|(_, word)| word.as_str()).collect();
            json!({ "anyOf": [{ "enum": names }, { "type": "integer" }] })
        }
    };
    if field.list {
        property = json!({ "type": "array", "items": property });
    }
    if let Some(property) = property.as_object_mut() {
        property.insert("description".to_owned(), field.doc.as_str().into());
    }
    property
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use xtcp_proto::flat_record::v1::XtcpFlatRecord;

    use super::*;
    use crate::cli::tests::assert_golden;

    /// A record with every field set, by number and wire type as the contract has them.
    fn full() -> XtcpFlatRecord {
        let mut row = Vec::new();
        for field in fields::all() {
            let key = |wire_type| u64::from(field.number) << 3 | wire_type;
            match field.kind {
                Kind::Text | Kind::Bytes => {
                    prost::encoding::encode_varint(key(2), &mut row);
                    row.extend_from_slice(b"\x02ab");
                }
                Kind::U32 | Kind::U64 | Kind::I64 | Kind::Bool | Kind::Enum(_) => {
                    prost::encoding::encode_varint(key(0), &mut row);
                    row.push(1);
                }
            }
        }
        XtcpFlatRecord::decode(&row[..]).expect("a record")
    }

    #[test]
    fn the_json_schema_is_as_blessed() {
        assert_golden("jsonl.schema.json", &json_text());
    }

    #[test]
    fn a_line_of_jsonl_is_what_the_schema_says_and_says_nothing_else() {
        let mut strict = json_schema();
        strict["additionalProperties"] = false.into();
        jsonschema::draft202012::meta::validate(&strict).expect("a schema");
        let validator = jsonschema::validator_for(&strict).expect("a schema");
        let mut extreme = full();
        extreme.timestamp_ns = i64::MIN;
        extreme.netns_inode = u64::MAX;
        extreme.inet_diag_msg_uid = u32::MAX;
        for record in [full(), extreme, XtcpFlatRecord::default()] {
            let line = serde_json::to_value(&record).expect("JSON");
            let faults: Vec<String> = validator.iter_errors(&line).map(|error| error.to_string()).collect();
            assert!(faults.is_empty(), "{faults:?}");
        }
        let line = serde_json::to_value(full()).expect("JSON");
        assert_eq!(line.as_object().map(Map::len), Some(fields::all().len()));
        for (key, value) in
            [("pid", json!("1")), ("timestampNs", json!(1)), ("hostname", json!(7)), ("who", json!(1))]
        {
            let mut line = line.clone();
            line[key] = value;
            assert!(!validator.is_valid(&line), "{key}");
        }
    }

    #[test]
    fn the_contract_is_printed_as_it_is() {
        assert!(xtcp_proto::FLAT_RECORD_PROTO.contains("package xtcp_flat_record.v1;"));
        let pid = columns().lines().find(|line| line.contains("\tpid\t")).map(str::to_owned).expect("a line");
        assert!(pid.starts_with("3004\tpid\tuint32\tProcess that owns the socket"), "{pid}");
    }
}
