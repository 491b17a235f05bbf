//! `clickhouse:http[s]://HOST[:PORT]`: each payload is one INSERT over ClickHouse's HTTP interface, in the format
//! `ProtobufList`, whose bytes are those of protobufList.

mod verdict;

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};

use super::http::Verdict;
use super::http::post::{self, Answer, Credentials, Post, Settings};
use super::options::{OptionInfo, Options};
use super::scheme::Built;
use super::{Cause, Context, Destination, Opener, Payload, SendError};
use crate::marshaller::Marshaller;
use crate::tls;

pub(super) const BUILT: Built = Built { parse, options: &[OWN, post::OPTIONS, tls::OPTIONS] };

const OWN: &[OptionInfo] = &[
    OptionInfo::new("database", "NAME, default default", "Database of the table."),
    OptionInfo::new("table", "NAME", "Table to insert into; the topic where it is not given."),
    OptionInfo::new(
        "format-schema",
        "FILE:MESSAGE, default xtcp_flat_record.proto:XtcpFlatRecord",
        "Schema of the rows, among the server's format schemas.",
    ),
    OptionInfo::new(
        "async-insert",
        "true|false, default true",
        "Let the server gather the inserts of many hosts; it acknowledges when they are written.",
    ),
];

const SCHEMA: &str = "xtcp_flat_record.proto:XtcpFlatRecord";

/// What an address says.
struct ClickHouse {
    url: Url,
    database: String,
    table: Option<String>,
    schema: String,
    gathered: bool,
    settings: Settings,
}

fn parse(rest: &str, options: &Options) -> Result<Arc<dyn Opener>, String> {
    let url = post::url(rest)?;
    if url.query().is_some() {
        return Err("nothing may stand behind a question mark: what it would say are options".to_owned());
    }
    let text = |name: &str, default: &str| options.text(name).unwrap_or(default).to_owned();
    let credentials = match (options.text("user"), options.secret("password")?) {
        (None, None) => None,
        (user, password) => {
            Some(Credentials::ClickHouse(user.unwrap_or("default").to_owned(), password.unwrap_or_default()))
        }
    };
    let schema = text("format-schema", SCHEMA);
    if schema.contains('\'') || schema.contains('\\') || !schema.contains(':') {
        return Err(format!("option format-schema={schema}: written FILE:MESSAGE"));
    }
    Ok(Arc::new(ClickHouse {
        settings: Settings::new(&url, options, credentials)?,
        url,
        database: text("database", "default"),
        table: options.text("table").map(str::to_owned),
        schema,
        gathered: options.switch("async-insert")?.unwrap_or(true),
    }))
}

impl Opener for ClickHouse {
    fn open(&self, context: &Context) -> Result<Box<dyn Destination>, Cause> {
        let table = self.table.as_ref().unwrap_or(&context.topic);
        let place = format!("{}.{}", quoted(&self.database), quoted(table));
        let query = format!(
            "INSERT INTO {place} SETTINGS format_schema='{}', async_insert={}, wait_for_async_insert=1 FORMAT ProtobufList",
            self.schema,
            u8::from(self.gathered),
        );
        let post = Post::new(&self.settings, Method::POST, HeaderMap::new())?;
        Ok(Box::new(Inserter { post, url: self.url.clone(), place, query }))
    }

    fn takes(&self, format: &dyn Marshaller) -> Result<(), String> {
        if format.name() == "protobufList" {
            return Ok(());
        }
        // The JSON of proto3 has other names than the columns, CSV has addresses as people write them.
        Err("protobufList, which ClickHouse reads as ProtobufList".to_owned())
    }
}

/// A name as ClickHouse quotes it.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

struct Inserter {
    post: Post,
    url: Url,
    place: String,
    query: String,
}

impl Inserter {
    async fn insert(&mut self, payload: &Payload) -> Result<(), SendError> {
        let mut url = self.url.clone();
        url.query_pairs_mut()
            .append_pair("query", &self.query)
            // The same block once only, where the table's engine looks at it.
            .append_pair("insert_deduplication_token", &payload.id)
            // An error while it writes is an error of the answer, not a line in its body.
            .append_pair("wait_end_of_query", "1");
        let answer = self.post.send(url, payload).await?;
        self.judge(&answer)
    }

    async fn look(&mut self) -> Result<String, SendError> {
        let version = self.query("SELECT version()").await?;
        let query = format!("EXISTS TABLE {}", self.place);
        match self.query(&query).await?.as_str() {
            "1" => Ok(format!("ClickHouse {version} with table {}", self.place)),
            _ => Err(SendError::Retry(
                format!(
                    "{}: ClickHouse {version} has no table {}: make it (deploy/clickhouse/xtcp.sql)",
                    self.post.shown(&self.url),
                    self.place
                )
                .into(),
            )),
        }
    }

    async fn query(&mut self, query: &str) -> Result<String, SendError> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("query", query);
        let answer = self.post.ask(Method::POST, url, "").await?;
        self.judge(&answer)?;
        Ok(answer.text)
    }

    fn judge(&self, answer: &Answer) -> Result<(), SendError> {
        verdict::of(answer).map_err(|verdict: Verdict| verdict.error(&self.post, &self.url, answer))
    }
}

impl Destination for Inserter {
    fn send<'a>(&'a mut self, payload: &'a Payload) -> BoxFuture<'a, Result<(), SendError>> {
        self.insert(payload).boxed()
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SendError>> {
        // A send that succeeded was acknowledged.
        std::future::ready(Ok(())).boxed()
    }

    fn probe(&mut self) -> BoxFuture<'_, Result<String, SendError>> {
        self.look().boxed()
    }
}

#[cfg(test)]
mod tests;
