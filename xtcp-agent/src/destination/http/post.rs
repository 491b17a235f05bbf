//! One request with a body, and its answer: what all destinations over HTTP share.

use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{CONTENT_ENCODING, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};

use crate::destination::options::{OptionInfo, Options};
use crate::destination::{Cause, Payload, SendError};
use crate::tls::{self, Tls};

pub(in crate::destination) const OPTIONS: &[OptionInfo] = &[
    OptionInfo::new("user", "NAME", "Name to log in with."),
    OptionInfo::new("password", "TEXT", "Password of user."),
    OptionInfo::new("password-file", "PATH", "File with the password."),
    OptionInfo::new("compression", "none|gzip|zstd, default none", "How bodies are compressed."),
    OptionInfo::new("connect-timeout", "DURATION, default 10s", "How long to wait for a connection."),
];

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer is read: what is more ends the connection.
const MOST_ANSWER: usize = 64 << 10;
/// How much of an answer a message shows.
const MOST_SHOWN: usize = 300;
/// The longest time that a server may ask us to stay away.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Who we say that we are.
#[derive(Clone)]
pub(in crate::destination) enum Credentials {
    /// Name and password, as HTTP has them.
    Basic(String, Option<String>),
    /// A bearer token.
    Bearer(String),
    /// Name and password, as ClickHouse has them.
    #[cfg(feature = "dest-clickhouse")]
    ClickHouse(String, String),
}

/// What the options say to every destination over HTTP.
pub(in crate::destination) struct Settings {
    tls: Option<Tls>,
    compression: Compression,
    credentials: Option<Credentials>,
    connect_timeout: Duration,
}

impl Settings {
    /// Reads the options.
    pub(in crate::destination) fn new(
        url: &Url,
        options: &Options,
        credentials: Option<Credentials>,
    ) -> Result<Self, String> {
        let tls = Tls::from_options(options)?;
        let secure = url.scheme() == "https";
        if tls.is_wanted() && !secure {
            return Err("options tls-… need https".to_owned());
        }
        let compressions =
            [("none", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)];
        let timeout =
            options.duration("connect-timeout", Duration::from_millis(1), Duration::from_secs(600))?;
        Ok(Self {
            tls: secure.then_some(tls),
            compression: options.one_of("compression", &compressions)?.unwrap_or(Compression::None),
            credentials,
            connect_timeout: timeout.unwrap_or(CONNECT_TIMEOUT),
        })
    }
}

/// Name and password, where there are any.
pub(in crate::destination) fn basic(options: &Options) -> Result<Option<Credentials>, String> {
    match (options.text("user"), options.secret("password")?) {
        (Some(user), password) => Ok(Some(Credentials::Basic(user.to_owned(), password))),
        (None, Some(_)) => Err("option password needs user beside it".to_owned()),
        (None, None) => Ok(None),
    }
}

/// Reads a URL of HTTP.
pub(in crate::destination) fn url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{:?} is neither http nor https", url.scheme()));
    }
    if !text.contains("://") || url.host_str().is_none_or(str::is_empty) {
        return Err("the host is missing".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("name and password belong into the options user and password".to_owned());
    }
    if url.port() == Some(0) {
        return Err("0 is no port: accepted: 1 to 65535".to_owned());
    }
    Ok(url)
}

/// What a server answered.
pub(in crate::destination) struct Answer {
    /// Its status.
    pub(in crate::destination) status: StatusCode,
    /// Its headers.
    pub(in crate::destination) headers: HeaderMap,
    /// Where it sends us.
    pub(in crate::destination) location: Option<String>,
    /// The beginning of its body, on one line.
    pub(in crate::destination) text: String,
}

/// Sends bodies over connections that it keeps.
pub(in crate::destination) struct Post {
    client: Client,
    method: Method,
    headers: HeaderMap,
    compression: Compression,
    credentials: Option<Credentials>,
    /// The body that was compressed last: it may come again.
    packed: Option<(Arc<str>, Bytes)>,
    /// When the server wants to hear of us again.
    not_before: Option<Instant>,
}

impl Post {
    /// Gets ready; `headers` are those of every request.
    pub(in crate::destination) fn new(
        settings: &Settings,
        method: Method,
        headers: HeaderMap,
    ) -> Result<Self, Cause> {
        let tls = match &settings.tls {
            Some(tls) => tls.client()?,
            None => tls::nobody()?,
        };
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("xtcp2-agent/", env!("CARGO_PKG_VERSION")))
            // A body that was sent elsewhere than where the address says would surprise.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(settings.connect_timeout)
            .pool_max_idle_per_host(1)
            .build()
            .map_err(|error| Cause::from(tls::explain(&error)))?;
        Ok(Self {
            client,
            method,
            headers,
            compression: settings.compression,
            credentials: settings.credentials.clone(),
            packed: None,
            not_before: None,
        })
    }

    /// What a message calls the request.
    pub(in crate::destination) fn shown(&self, url: &Url) -> String {
        let mut url = url.clone();
        // What the operator did not write only makes the message long.
        url.set_query(None);
        format!("{} {url}", self.method)
    }

    /// Sends a payload and waits for the answer, whatever it is.
    pub(in crate::destination) async fn send(
        &mut self,
        url: Url,
        payload: &Payload,
    ) -> Result<Answer, SendError> {
        if let Some(left) = self.not_before.and_then(|time| time.checked_duration_since(Instant::now())) {
            let shown = self.shown(&url);
            let text =
                format!("{shown}: the server asked to be left alone for {} s more", left.as_secs() + 1);
            return Err(SendError::Retry(text.into()));
        }
        let body = self.pack(payload).await?;
        let mut request = self.client.request(self.method.clone(), url.clone()).headers(self.headers.clone());
        for name in ["xtcp-batch-id", "idempotency-key"] {
            request = request.header(name, &*payload.id);
        }
        request = request.header("xtcp-rows", payload.rows);
        match self.compression {
            Compression::None => {}
            Compression::Gzip => request = request.header(CONTENT_ENCODING, "gzip"),
            Compression::Zstd => request = request.header(CONTENT_ENCODING, "zstd"),
        }
        let shown = self.shown(&url);
        let answer = self.exchange(request.body(body), &shown).await?;
        self.not_before = retry_after(&answer).and_then(|pause| Instant::now().checked_add(pause));
        if answer.status.is_success() {
            self.packed = None;
        }
        Ok(answer)
    }

    /// Sends a request without a payload, for probes.
    pub(in crate::destination) async fn ask(
        &mut self,
        method: Method,
        url: Url,
        body: &'static str,
    ) -> Result<Answer, SendError> {
        let shown = format!("{method} {}", self.shown(&url).trim_start_matches(self.method.as_str()).trim());
        self.exchange(self.client.request(method, url).body(body), &shown).await
    }

    async fn exchange(&self, request: RequestBuilder, shown: &str) -> Result<Answer, SendError> {
        let request = match &self.credentials {
            None => request,
            Some(Credentials::Basic(user, password)) => request.basic_auth(user, password.as_ref()),
            Some(Credentials::Bearer(token)) => request.bearer_auth(token),
            #[cfg(feature = "dest-clickhouse")]
            Some(Credentials::ClickHouse(user, password)) => request
                .header("x-clickhouse-user", secret(user)?)
                .header("x-clickhouse-key", secret(password)?),
        };
        let failed = |error: reqwest::Error| SendError::Retry(format!("{shown}: {}", told(error)).into());
        let response = request.send().await.map_err(failed)?;
        Answer::read(response).await.map_err(failed)
    }

    async fn pack(&mut self, payload: &Payload) -> Result<Bytes, SendError> {
        if self.compression == Compression::None {
            return Ok(payload.bytes.clone());
        }
        if let Some((id, bytes)) = &self.packed
            && *id == payload.id
        {
            return Ok(bytes.clone());
        }
        let (bytes, compression) = (payload.bytes.clone(), self.compression);
        // It takes milliseconds, which the runtime's other tasks need not wait for.
        let packed = tokio::task::spawn_blocking(move || compress(compression, &bytes)).await;
        match packed {
            Ok(Ok(packed)) => {
                let packed = Bytes::from(packed);
                self.packed = Some((Arc::clone(&payload.id), packed.clone()));
                Ok(packed)
            }
            Ok(Err(error)) => Err(SendError::Drop(format!("the body cannot be compressed: {error}").into())),
            Err(error) => Err(SendError::Retry(format!("the body was not compressed: {error}").into())),
        }
    }
}

fn compress(compression: Compression, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(bytes.to_vec()),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        Compression::Zstd => zstd::bulk::compress(bytes, zstd::DEFAULT_COMPRESSION_LEVEL),
    }
}

#[cfg(feature = "dest-clickhouse")]
fn secret(text: &str) -> Result<reqwest::header::HeaderValue, SendError> {
    let mut value = reqwest::header::HeaderValue::try_from(text).map_err(|_| {
        SendError::Retry("user or password has a character that no header of HTTP has".into())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Seconds that the server wants to be left alone, bounded.
fn retry_after(answer: &Answer) -> Option<Duration> {
    if answer.status.is_success() {
        return None;
    }
    let seconds = answer.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// A failure without the words that say only that there was one.
fn told(error: reqwest::Error) -> String {
    let what = if error.is_connect() {
        "cannot connect: "
    } else if error.is_timeout() {
        "no answer in time: "
    } else {
        ""
    };
    let error = error.without_url();
    let mut deepest: &(dyn Error + 'static) = &error;
    while let Some(source) = deepest.source() {
        let wrapper = deepest.to_string();
        if !(wrapper.starts_with("error sending request") || wrapper.starts_with("client error")) {
            break;
        }
        deepest = source;
    }
    format!("{what}{}", tls::explain(deepest))
}

impl Answer {
    async fn read(mut response: Response) -> Result<Self, reqwest::Error> {
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        // Read to the end, so that the connection can be used again; but not for ever.
        while body.len() < MOST_ANSWER {
            let Some(chunk) = response.chunk().await? else { break };
            body.extend_from_slice(&chunk);
        }
        let location =
            headers.get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Ok(Self { status, headers, location, text: one_line(&body) })
    }
}

/// The beginning of a text, on one line, without what a terminal might obey.
fn one_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}
