//! What is wrong with a broker's certificate: librdkafka says only that it was refused, so it is looked at once more.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::heard::Heard;
use crate::tls::{self, Tls};

/// What OpenSSL says of a certificate that it refuses.
pub(super) const REFUSED: &str = "certificate verify failed";

/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Puts the name of each refused certificate into what was heard of its broker.
pub(super) async fn look_again(tls: &Tls, heard: &Heard) {
    for (broker, complaint) in heard.complaints() {
        if !complaint.text.contains(REFUSED) {
            continue;
        }
        if let Ok(Some(found)) = tokio::time::timeout(PATIENCE, refusal(tls, &broker)).await {
            // An option that librdkafka has not.
            let found = found.replace(", or tls-server-name", "");
            heard.amend(&broker, &complaint, format!("{REFUSED}: {found}"));
        }
    }
}

/// Why a handshake with a broker fails; nothing when it does not, or when there is no peer any more.
async fn refusal(tls: &Tls, broker: &str) -> Option<String> {
    let (host, _) = broker.rsplit_once(':')?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()?;
    let connector = TlsConnector::from(Arc::new(tls.client().ok()?));
    let stream = TcpStream::connect(broker).await.ok()?;
    connector.connect(name, stream).await.err().map(|error| tls::explain(&error))
}
