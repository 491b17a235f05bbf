//! Certificates for servers and clients, from an authority that the test makes.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tempfile::TempDir;

/// An authority; its files are gone with it.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

/// Files of a certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one that is called `name`.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("written");
        Self { issuer, dir }
    }

    /// Its own certificate's file.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate that is called `name` and is for these hosts, names or addresses.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> Identity {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |extension: &str, text: String| {
            let path = self.dir.path().join(format!("{name}.{extension}"));
            fs::write(&path, text).expect("written");
            path
        };
        Identity { cert: file("crt", certificate.pem()), key: file("key", key.serialize_pem()) }
    }

    /// Options of a destination that trusts this authority, and shows `identity`.
    pub fn options(&self, identity: Option<&Identity>) -> String {
        let ca = format!("tls-ca={}", shown(&self.ca()));
        match identity {
            None => ca,
            Some(Identity { cert, key }) => format!("{ca}&tls-cert={}&tls-key={}", shown(cert), shown(key)),
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
