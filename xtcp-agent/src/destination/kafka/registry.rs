//! A schema registry is told what the rows look like: for people and tools, once. The messages themselves have no schema
//! id, and a registry that is not there stops nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::Cause;
use crate::tls::{self, Tls};

/// How long the registry may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A registry that speaks as Confluent's does.
pub(super) struct Registry {
    url: String,
    /// Whether it was told, or refused to be.
    asked: AtomicBool,
}

impl Registry {
    /// Takes `http[s]://HOST[:PORT][/PATH]`.
    pub(super) fn new(url: &str) -> Result<Self, String> {
        let wrong = |problem: &str| format!("option schema-registry={url}: {problem}");
        let parsed: reqwest::Url = url.parse().map_err(|error| wrong(&format!("{error}")))?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
            return Err(wrong("accepted: http[s]://HOST[:PORT]"));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err("option schema-registry: a user in the URL would be shown in logs".to_owned());
        }
        Ok(Self { url: url.trim_end_matches('/').to_owned(), asked: AtomicBool::new(false) })
    }

    /// Registers the schema the first time; a failure is one warning.
    pub(super) async fn register_once(&self, topic: &str) {
        if self.asked.swap(true, Ordering::Relaxed) {
            return;
        }
        match self.register(topic).await {
            Ok(answer) => tracing::info!(registry = self.url, topic, "schema registered: {answer}"),
            Err(error) => tracing::warn!(
                registry = self.url,
                topic,
                "the rows' schema is not registered, and will not be tried again; rows are sent all the same: {error}"
            ),
        }
    }

    async fn register(&self, topic: &str) -> Result<String, Cause> {
        let tls = if self.url.starts_with("https") { Tls::default().client()? } else { tls::nobody()? };
        let client = reqwest::Client::builder().timeout(PATIENCE).tls_backend_preconfigured(tls).build()?;
        let schema = serde_json::json!({ "schemaType": "PROTOBUF", "schema": xtcp_proto::FLAT_RECORD_PROTO });
        let mut url: reqwest::Url = self.url.parse()?;
        url.path_segments_mut().map_err(|()| "the URL takes no path")?.pop_if_empty().extend([
            "subjects",
            &format!("{topic}-value"),
            "versions",
        ]);
        let response = client
            .post(url)
            .header("content-type", "application/vnd.schemaregistry.v1+json")
            .body(schema.to_string())
            .send()
            .await
            .map_err(|error| tls::explain(&error))?;
        let status = response.status();
        let answer = response.text().await.map_err(|error| tls::explain(&error))?;
        let answer: String = answer.chars().take(300).collect();
        if status.is_success() { Ok(answer) } else { Err(format!("{status}: {answer}").into()) }
    }
}
