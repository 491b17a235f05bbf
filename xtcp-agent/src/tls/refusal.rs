//! Why a peer's certificate, or ours, was refused, in words that say what to do.

use std::error::Error;
use std::fmt;

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A server's certificate that is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(String);

impl Refusal {
    /// Names the certificate, what is wrong with it, and what may be done. `trusted` is how the authorities are called.
    pub(super) fn new(
        certificate: &CertificateDer<'_>,
        server: &ServerName<'_>,
        trusted: &str,
        now: UnixTime,
        error: &rustls::Error,
    ) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return Self(format!("{} shows a certificate that cannot be read: {error}", server.to_str()));
        };
        let named = format!("certificate {} of {}", subject(&certificate), server.to_str());
        let rustls::Error::InvalidCertificate(error) = error else {
            return Self(format!("{named} is refused: {error}"));
        };
        let validity = certificate.validity();
        Self(match error {
            CertificateError::UnknownIssuer => format!(
                "{named} is issued by {}, which is none of {trusted}: name the file of its authority with tls-ca",
                certificate.issuer()
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
                "{named} is for {}: use one of them in the address, or tls-server-name",
                names(&certificate)
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("{named} expired {}: renew it, or set this host's clock", validity.not_after)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => format!(
                "{named} is valid only from {} (it is {} s since the epoch): set this host's clock",
                validity.not_before,
                now.as_secs()
            ),
            CertificateError::BadSignature => format!(
                "{named} is not signed by the {} that is among {trusted}: name the file of its authority with tls-ca",
                certificate.issuer()
            ),
            other => format!("{named} is refused: {other}"),
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Refusal {}

/// What TLS knows to say of an error.
pub(super) fn within(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        return Some(refusal.to_string());
    }
    match error.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            other.0.downcast_ref::<Refusal>().map(ToString::to_string)
        }
        rustls::Error::AlertReceived(alert) => Some(answered(*alert)),
        rustls::Error::InvalidMessage(_) => {
            Some(format!("it does not answer in TLS ({error}): is TLS spoken on this port?"))
        }
        _ => None,
    }
}

/// What a server's alert says of us.
fn answered(alert: AlertDescription) -> String {
    let advice = match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "it wants a certificate of ours: name it with tls-cert and tls-key"
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnknownCA
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => {
            "it wants a certificate of ours that it trusts: name it with tls-cert and tls-key"
        }
        AlertDescription::CertificateExpired => "our certificate is expired: renew tls-cert",
        AlertDescription::HandshakeFailure => {
            "it found nothing that both sides can, or wants a certificate of ours (tls-cert, tls-key)"
        }
        AlertDescription::ProtocolVersion => "it speaks neither TLS 1.2 nor 1.3",
        AlertDescription::UnrecognisedName => "it has no certificate for this name: try tls-server-name",
        _ => "see the server's log",
    };
    format!("the server refuses with TLS alert {alert:?}: {advice}")
}

fn subject(certificate: &X509Certificate<'_>) -> String {
    let subject = certificate.subject().to_string();
    if subject.is_empty() { format!("for {}", names(certificate)) } else { format!("{subject:?}") }
}

/// The names that a certificate is for.
fn names(certificate: &X509Certificate<'_>) -> String {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return "no name at all".to_owned();
    };
    let names: Vec<String> = extension.value.general_names.iter().map(name).collect();
    names.join(", ")
}

fn name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => {
            if let Ok(v4) = <[u8; 4]>::try_from(*bytes) {
                std::net::Ipv4Addr::from(v4).to_string()
            } else if let Ok(v6) = <[u8; 16]>::try_from(*bytes) {
                std::net::Ipv6Addr::from(v6).to_string()
            } else {
                format!("{bytes:?}")
            }
        }
        other => other.to_string(),
    }
}
