//! TLS as a client, for whoever sends over a network. Owns the options `tls-…`, the files behind them and what a refused
//! certificate is told by; never opens a connection.
//!
//! Files are read each time that a configuration is made, so that a renewed certificate is taken with the next connection.

mod refusal;
mod verifier;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::destination::options::{OptionInfo, Options};
pub use refusal::Refusal;
use verifier::Verifier;

/// The options of a destination that can speak TLS.
pub const OPTIONS: &[OptionInfo] = &[
    OptionInfo::new(
        "tls-ca",
        "PATH",
        "PEM file of the authorities that the server's certificate may come from, instead of the system's.",
    ),
    OptionInfo::new(
        "tls-cert",
        "PATH",
        "PEM file of the certificate to show to the server, and of those between it and its authority.",
    ),
    OptionInfo::new("tls-key", "PATH", "PEM file of the private key of tls-cert."),
    OptionInfo::new(
        "tls-server-name",
        "NAME",
        "Name that the server's certificate must have, where it is not the address's.",
    ),
];

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{option}: cannot read {}: {source}", path.display())]
    Read {
        /// Which option names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is no PEM, or has not in it what it should have.
    #[error("{option}: {} {problem}", path.display())]
    Content {
        /// Which option names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate and key do not fit together, or one is of a kind that nobody takes.
    #[error("tls-cert {} with tls-key {}: {source}", cert.display(), key.display())]
    Identity {
        /// File of the certificate.
        cert: PathBuf,
        /// File of its key.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The system trusts nobody.
    #[error(
        "this system has no certificates of authorities ({0}): install them (ca-certificates) or name a file with tls-ca"
    )]
    NoRoots(String),
    /// The library refuses.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
    /// The library refuses the authorities.
    #[error("TLS cannot be set up: {0}")]
    Roots(#[from] rustls::server::VerifierBuilderError),
}

/// What the options `tls-…` say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    server_name: Option<ServerName<'static>>,
}

impl Tls {
    /// Reads the options, without the files that they name.
    pub fn from_options(options: &Options) -> Result<Self, String> {
        let identity = match (options.path("tls-cert"), options.path("tls-key")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err("option tls-cert needs tls-key beside it".to_owned()),
            (None, Some(_)) => return Err("option tls-key needs tls-cert beside it".to_owned()),
        };
        let server_name =
            match options.text("tls-server-name") {
                None => None,
                Some(name) => Some(ServerName::try_from(name.to_owned()).map_err(|_| {
                    format!("option tls-server-name={name}: neither a DNS name nor an address")
                })?),
            };
        Ok(Self { ca: options.path("tls-ca"), identity, server_name })
    }

    /// Whether any option was given: whoever gives one wants TLS.
    pub fn is_wanted(&self) -> bool {
        *self != Self::default()
    }

    /// Reads the files and gets a client ready.
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let (roots, trusted) = self.roots()?;
        let verifier = Verifier::new(roots, trusted, self.server_name.clone(), &provider)?;
        let builder = builder(provider)?.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let Some((cert, key)) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| broken("tls-key", key, error))?;
        builder
            .with_client_auth_cert(certificates("tls-cert", cert)?, private)
            .map_err(|source| TlsError::Identity { cert: cert.clone(), key: key.clone(), source })
    }

    /// The authorities to trust, and how to call them.
    fn roots(&self) -> Result<(RootCertStore, String), TlsError> {
        let mut roots = RootCertStore::empty();
        let Some(path) = &self.ca else {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let causes: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
                return Err(TlsError::NoRoots(causes.join(", ")));
            }
            return Ok((roots, "the system's authorities".to_owned()));
        };
        for certificate in certificates("tls-ca", path)? {
            roots.add(certificate).map_err(|error| TlsError::Content {
                option: "tls-ca",
                path: path.clone(),
                problem: format!("has a certificate that cannot be an authority: {error}"),
            })?;
        }
        Ok((roots, path.display().to_string()))
    }
}

/// A client for where no TLS is spoken, but a library wants to know how: it trusts nobody.
pub fn nobody() -> Result<ClientConfig, TlsError> {
    let builder = builder(Arc::new(ring::default_provider()))?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn builder(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?)
}

fn certificates(option: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| broken(option, path, error))?;
    if certificates.is_empty() {
        return Err(broken(option, path, pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn broken(option: &'static str, path: &Path, error: pem::Error) -> TlsError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => TlsError::Read { option, path, source },
        pem::Error::NoItemsFound => {
            let what = if option == "tls-key" { "private key" } else { "certificate" };
            TlsError::Content { option, path, problem: format!("has no {what} in PEM (-----BEGIN …-----)") }
        }
        other => TlsError::Content { option, path, problem: format!("is no PEM: {other}") },
    }
}

/// An error with all that stands behind it, once each, and what to do where TLS knows it.
pub fn explain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(refusal) = refusal::within(error) {
            // Whatever stands before only says that there is an error.
            return refusal;
        }
        let words = error.to_string();
        if !text.contains(&words) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&words);
        }
        next = behind(error);
    }
    text
}

/// What an error comes from. An error of [`io`] names not what it holds but what stands behind that.
fn behind<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return Some(inner);
    }
    error.source()
}

#[cfg(test)]
mod tests;
