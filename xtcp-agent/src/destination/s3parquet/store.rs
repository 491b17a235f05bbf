//! The client of a bucket: who we are there, and how it is reached.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::client::{HttpClient, HttpConnector};
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::super::Cause;
use super::super::options::Options;
use super::address::Place;
use crate::tls::{self, Tls};

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a server may say nothing.
const READ_PATIENCE: Duration = Duration::from_secs(30);

/// Who we are, and whom we trust.
#[derive(Clone)]
pub(super) struct Access {
    /// Access key, its secret and a session token; `None`: what the environment or the instance has.
    keys: Option<(String, String, Option<String>)>,
    tls: Tls,
}

impl Access {
    pub(super) fn read(options: &Options) -> Result<Self, String> {
        let (secret, token) = (options.secret("secret-key")?, options.secret("token")?);
        let keys = match (options.text("access-key"), secret) {
            (Some(key), Some(secret)) => Some((key.to_owned(), secret, token)),
            (None, None) if token.is_none() => None,
            (Some(_), None) => return Err("option access-key needs secret-key or secret-key-file".to_owned()),
            (None, _) => return Err("option secret-key or token needs access-key".to_owned()),
        };
        Ok(Self { keys, tls: Tls::from_options(options)? })
    }
}

/// A client of the bucket; it connects with its first request.
pub(super) fn connect(place: &Place, access: &Access) -> Result<Arc<dyn ObjectStore>, Cause> {
    let builder = match &access.keys {
        // Half of what the environment says does not belong to these keys.
        Some((key, secret, token)) => {
            let builder = AmazonS3Builder::new().with_access_key_id(key).with_secret_access_key(secret);
            match token {
                Some(token) => builder.with_token(token),
                None => builder,
            }
        }
        None => AmazonS3Builder::from_env(),
    };
    let mut builder = builder
        .with_bucket_name(&place.bucket)
        .with_virtual_hosted_style_request(!place.path_style)
        .with_http_connector(Connector(client(place, access)?))
        // One send is one attempt: whoever sends tries again.
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
    if let Some(region) = &place.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &place.endpoint {
        let endpoint = if place.path_style { endpoint.clone() } else { with_bucket(endpoint, &place.bucket) };
        builder = builder.with_allow_http(endpoint.starts_with("http:")).with_endpoint(endpoint);
    }
    Ok(Arc::new(builder.build()?))
}

/// `https://BUCKET.HOST`.
fn with_bucket(endpoint: &str, bucket: &str) -> String {
    match endpoint.split_once("://") {
        Some((scheme, host)) => format!("{scheme}://{bucket}.{host}"),
        None => endpoint.to_owned(),
    }
}

fn client(place: &Place, access: &Access) -> Result<reqwest::Client, Cause> {
    let plain = place.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http:"));
    let tls = if plain && !access.tls.is_wanted() { tls::nobody()? } else { access.tls.client()? };
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_PATIENCE)
        .read_timeout(READ_PATIENCE)
        .build()?)
}

/// Gives the store our client, which trusts whom the options name.
#[derive(Clone)]
struct Connector(reqwest::Client);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}
