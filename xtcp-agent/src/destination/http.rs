//! `http://HOST[:PORT][/PATH]` and `https://…`: each payload is the body of one request, and an answer with 2xx
//! acknowledges it.

pub(super) mod post;

use std::fmt::Write as _;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};

use super::options::{OptionInfo, Options};
use super::scheme::Built;
use super::{Cause, Context, Destination, Opener, Payload, SendError};
use crate::tls;
use post::{Answer, Credentials, Post, Settings};

pub(super) const BUILT: Built =
    Built { parse: |rest, options| parse("http", rest, options), options: OPTIONS };

pub(super) const OPTIONS: &[&[OptionInfo]] = &[OWN, post::OPTIONS, tls::OPTIONS];

const OWN: &[OptionInfo] = &[
    OptionInfo::new("method", "POST|PUT, default POST", "Method of the requests."),
    OptionInfo::new("headers", "NAME: VALUE", "Headers of each request, one a line (%0A in an address)."),
    OptionInfo::new("headers-file", "PATH", "File with the lines of headers."),
    OptionInfo::new("token", "TEXT", "Bearer token."),
    OptionInfo::new("token-file", "PATH", "File with the bearer token."),
    OptionInfo::new(
        "max-payload",
        "SIZE",
        "Most bytes of one request's body, before its compression; larger batches are split.",
    ),
];

/// Least and most that `max-payload` may be.
const LEAST_PAYLOAD: u64 = 4 << 10;
const MOST_PAYLOAD: u64 = 1 << 30;

/// What an address says.
struct Http {
    url: Url,
    method: Method,
    headers: HeaderMap,
    settings: Settings,
    max_payload: Option<usize>,
}

pub(super) fn parse(scheme: &str, rest: &str, options: &Options) -> Result<Arc<dyn Opener>, String> {
    let url = post::url(&format!("{scheme}:{rest}"))?;
    let put = options.one_of("method", &[("POST", false), ("PUT", true)])?.unwrap_or(false);
    let credentials = match (post::basic(options)?, options.secret("token")?) {
        (Some(_), Some(_)) => return Err("options user and token exclude each other".to_owned()),
        (Some(basic), None) => Some(basic),
        (None, token) => token.map(Credentials::Bearer),
    };
    let max_payload = options.bytes("max-payload", LEAST_PAYLOAD, MOST_PAYLOAD)?;
    Ok(Arc::new(Http {
        settings: Settings::new(&url, options, credentials)?,
        url,
        method: if put { Method::PUT } else { Method::POST },
        headers: headers(options)?,
        max_payload: max_payload.and_then(|bytes| usize::try_from(bytes).ok()),
    }))
}

/// The headers that the options name.
fn headers(options: &Options) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let lines = options.secret("headers")?.unwrap_or_default();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // The value may be a secret: a message must not have it.
        let (name, value) = line.split_once(':').ok_or("a header has no colon: written NAME: VALUE")?;
        let problem = |what: &str| format!("header {:?}: {what}", name.trim());
        let parsed = HeaderName::try_from(name.trim()).map_err(|_| problem("is no name of a header"))?;
        let mut value = HeaderValue::try_from(value.trim())
            .map_err(|_| problem("its value has a character that no header has"))?;
        value.set_sensitive(true);
        headers.append(parsed, value);
    }
    Ok(headers)
}

impl Opener for Http {
    fn open(&self, context: &Context) -> Result<Box<dyn Destination>, Cause> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(context.format.content_type()));
        for (name, value) in [("xtcp-host", &*context.hostname), ("xtcp-topic", context.topic.as_str())] {
            // A name that no header can have is in the rows all the same.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        // What the operator says overrides.
        for name in self.headers.keys() {
            headers.remove(name);
        }
        headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        let post = Post::new(&self.settings, self.method.clone(), headers)?;
        Ok(Box::new(Sender { post, url: self.url.clone() }))
    }

    fn max_payload(&self) -> Option<usize> {
        self.max_payload
    }
}

struct Sender {
    post: Post,
    url: Url,
}

impl Sender {
    async fn deliver(&mut self, payload: &Payload) -> Result<(), SendError> {
        let answer = self.post.send(self.url.clone(), payload).await?;
        judge(&answer).map_err(|verdict| verdict.error(&self.post, &self.url, &answer))
    }

    async fn look(&mut self) -> Result<String, SendError> {
        let answer = self.post.ask(Method::OPTIONS, self.url.clone(), "").await?;
        match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                judge(&answer).map_err(|verdict| verdict.error(&self.post, &self.url, &answer))?;
            }
            _ => {}
        }
        let mut found = format!("answers {} to OPTIONS", answer.status);
        if self.url.scheme() == "https" {
            found.push_str(" over TLS");
        }
        Ok(found)
    }
}

impl Destination for Sender {
    fn send<'a>(&'a mut self, payload: &'a Payload) -> BoxFuture<'a, Result<(), SendError>> {
        self.deliver(payload).boxed()
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SendError>> {
        // A send that succeeded was acknowledged.
        std::future::ready(Ok(())).boxed()
    }

    fn probe(&mut self) -> BoxFuture<'_, Result<String, SendError>> {
        self.look().boxed()
    }
}

/// What an answer that is no acknowledgement means.
pub(super) enum Verdict {
    /// It may go another time.
    Retry(&'static str),
    /// This body never goes.
    Drop(&'static str),
}

impl Verdict {
    /// The same as an error, with all that is known.
    pub(super) fn error(&self, post: &Post, url: &Url, answer: &Answer) -> SendError {
        let (Self::Retry(advice) | Self::Drop(advice)) = self;
        let mut text = format!("{}: answered {}", post.shown(url), answer.status);
        if let Some(location) = &answer.location {
            let _ = write!(text, " to {location}");
        }
        if !answer.text.is_empty() {
            let _ = write!(text, " ({})", answer.text);
        }
        if !advice.is_empty() {
            let _ = write!(text, ": {advice}");
        }
        match self {
            Self::Retry(_) => SendError::Retry(text.into()),
            Self::Drop(_) => SendError::Drop(text.into()),
        }
    }
}

/// What an answer means by its status.
pub(super) fn judge(answer: &Answer) -> Result<(), Verdict> {
    let status = answer.status;
    Err(match status {
        _ if status.is_success() => return Ok(()),
        _ if status.is_redirection() => {
            Verdict::Retry("a redirection is not followed: write the address that it names")
        }
        StatusCode::UNAUTHORIZED => Verdict::Retry("check user and password, or token"),
        StatusCode::FORBIDDEN => Verdict::Retry("these credentials may not send here"),
        StatusCode::NOT_FOUND => Verdict::Retry("check the path of the address"),
        StatusCode::METHOD_NOT_ALLOWED => {
            Verdict::Retry("check the path of the address, and the option method")
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => Verdict::Retry("a proxy is in between"),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Verdict::Retry("")
        }
        StatusCode::PAYLOAD_TOO_LARGE => Verdict::Drop("lower max-payload"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Verdict::Drop("it does not take this format, or this compression")
        }
        _ if status.is_client_error() => Verdict::Drop(""),
        _ => Verdict::Retry(""),
    })
}

#[cfg(test)]
mod tests;
