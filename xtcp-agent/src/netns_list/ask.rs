//! Asks a running agent over gRPC.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use xtcp_proto::netns::v1::netns_service_client::NetnsServiceClient;
use xtcp_proto::netns::v1::{ListRequest, Netns, NetnsChange, WatchRequest, WatchResponse};

/// An agent that is there answers within this time.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why the agent told nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("{address} is no address such as 127.0.0.1:8889: {source}")]
    Address { address: String, source: tonic::transport::Error },
    #[error("no agent answers at {address} ({why})")]
    Nobody { address: String, why: String },
    #[error("the agent at {address} does not tell: {} ({:?})", status.message(), status.code())]
    Refused { address: String, status: Box<Status> },
}

/// Where an agent with these settings is reached.
pub(super) fn address_of(listens: SocketAddr) -> String {
    let ip = match listens.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listens.port()).to_string()
}

/// A running agent.
pub(super) struct Agent {
    address: String,
    client: NetnsServiceClient<Channel>,
}

/// What it tells as it happens.
pub(super) struct Changes {
    address: String,
    stream: Streaming<WatchResponse>,
}

impl Agent {
    /// Connects.
    pub(super) async fn connect(address: &str) -> Result<Self, AskError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|source| AskError::Address { address: address.to_owned(), source })?;
        let channel = endpoint.connect_timeout(PATIENCE).tcp_nodelay(true).connect().await;
        let channel =
            channel.map_err(|error| AskError::Nobody { address: address.to_owned(), why: root(&error) })?;
        Ok(Self { address: address.to_owned(), client: NetnsServiceClient::new(channel) })
    }

    /// Every namespace.
    pub(super) async fn list(&mut self) -> Result<Vec<Netns>, AskError> {
        let asked = self.client.list(ListRequest {}).await;
        let mut stream = asked.map_err(|status| refused(&self.address, status))?.into_inner();
        let mut all = Vec::new();
        while let Some(answer) = stream.message().await.map_err(|status| refused(&self.address, status))? {
            all.extend(answer.netns);
        }
        Ok(all)
    }

    /// Every namespace, and what happens from here on.
    pub(super) async fn watch(&mut self) -> Result<Changes, AskError> {
        let asked = self.client.watch(WatchRequest {}).await;
        let stream = asked.map_err(|status| refused(&self.address, status))?.into_inner();
        Ok(Changes { address: self.address.clone(), stream })
    }
}

impl Changes {
    /// The next change; `None` when the agent has ended.
    pub(super) async fn next(&mut self) -> Result<Option<NetnsChange>, AskError> {
        loop {
            match self.stream.message().await {
                Ok(Some(WatchResponse { change: Some(change) })) => return Ok(Some(change)),
                Ok(Some(WatchResponse { change: None })) => {}
                Ok(None) => return Ok(None),
                // The connection broke: it was killed, or has left what was open.
                Err(status) if status.source().is_some() => return Ok(None),
                Err(status) => return Err(refused(&self.address, status)),
            }
        }
    }
}

fn refused(address: &str, status: Status) -> AskError {
    AskError::Refused { address: address.to_owned(), status: Box::new(status) }
}

/// The last of the causes: what the system said.
fn root(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_listens_everywhere_is_asked_on_loopback() {
        assert_eq!(address_of("0.0.0.0:8889".parse().unwrap()), "127.0.0.1:8889");
        assert_eq!(address_of("[::]:1".parse().unwrap()), "[::1]:1");
        assert_eq!(address_of("192.0.2.1:8889".parse().unwrap()), "192.0.2.1:8889");
    }
}
