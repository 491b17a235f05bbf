use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ClientConnection, ServerConfig, ServerConnection};
use tempfile::TempDir;

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// A server that is called `name` for a subject and is for `dns`.
    fn server(&self, name: &str, dns: &str, expired: bool) -> ServerConfig {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([dns.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        if expired {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
            params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a server")
    }

    fn write(&self, dir: &TempDir) -> String {
        let path = dir.path().join("ca.pem");
        fs::write(&path, self.0.pem()).expect("written");
        path.display().to_string()
    }
}

fn tls(options: &str) -> Tls {
    Tls::from_options(&Options::parse(options).expect(options)).expect(options)
}

/// Lets both shake hands in memory, and tells why the client does not want to.
fn shake(client: &Tls, name: &'static str, server: ServerConfig) -> Result<(), String> {
    let config = Arc::new(client.client().expect("a client"));
    let mut client =
        ClientConnection::new(config, ServerName::try_from(name).expect("a name")).expect("a connection");
    let mut server = ServerConnection::new(Arc::new(server)).expect("a connection");
    while client.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("written");
        }
        server.read_tls(&mut wire.as_slice()).expect("read");
        server.process_new_packets().expect("the server has nothing to refuse");
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("written");
        }
        client.read_tls(&mut wire.as_slice()).expect("read");
        client.process_new_packets().map_err(|error| explain(&io::Error::other(error)))?;
    }
    Ok(())
}

#[test]
fn a_refused_certificate_is_named_with_what_is_wrong_and_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let ours = Authority::new("Our authority");
    let trusting = tls(&format!("tls-ca={}", ours.write(&dir)));
    shake(&trusting, "broker.test", ours.server("Broker", "broker.test", false)).expect("trusted");

    let other = Authority::new("Somebody else");
    let ca = dir.path().join("ca.pem").display().to_string();
    assert_eq!(
        shake(&trusting, "broker.test", other.server("Broker", "broker.test", false)),
        Err(format!(
            "certificate \"CN=Broker\" of broker.test is issued by CN=Somebody else, which is none of {ca}: name the \
             file of its authority with tls-ca"
        ))
    );
    assert_eq!(
        shake(&trusting, "broker.test", ours.server("Broker", "elsewhere.test", false)),
        Err("certificate \"CN=Broker\" of broker.test is for elsewhere.test: use one of them in the address, or \
             tls-server-name"
            .to_owned())
    );
    let named = tls(&format!("tls-ca={ca}&tls-server-name=elsewhere.test"));
    shake(&named, "broker.test", ours.server("Broker", "elsewhere.test", false)).expect("another name");
    let expired = shake(&trusting, "broker.test", ours.server("Broker", "broker.test", true));
    let expired = expired.expect_err("expired");
    assert!(expired.starts_with("certificate \"CN=Broker\" of broker.test expired Jan  1 "), "{expired}");
    assert!(expired.ends_with(": renew it, or set this host's clock"), "{expired}");
}

#[test]
fn an_error_of_a_file_names_the_option_the_file_and_what_it_lacks() {
    let dir = tempfile::tempdir().expect("a folder");
    let problem = |options: &str| tls(options).client().expect_err(options).to_string();
    assert_eq!(
        problem("tls-ca=/nowhere/ca.pem"),
        "tls-ca: cannot read /nowhere/ca.pem: No such file or directory (os error 2)"
    );
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let rubbish = write("rubbish", "no certificate\n");
    assert_eq!(
        problem(&format!("tls-ca={rubbish}")),
        format!("tls-ca: {rubbish} has no certificate in PEM (-----BEGIN …-----)")
    );
    let ca = Authority::new("Our authority").write(&dir);
    assert_eq!(
        problem(&format!("tls-ca={ca}&tls-cert={ca}&tls-key={ca}")),
        format!("tls-key: {ca} has no private key in PEM (-----BEGIN …-----)")
    );
    let key = write("key.pem", &KeyPair::generate().expect("a key").serialize_pem());
    let mismatch = problem(&format!("tls-ca={ca}&tls-cert={ca}&tls-key={key}"));
    assert!(mismatch.starts_with(&format!("tls-cert {ca} with tls-key {key}: ")), "{mismatch}");
    let broken = write("broken.pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    let broken = problem(&format!("tls-ca={broken}"));
    assert!(broken.contains("broken.pem is no PEM: "), "{broken}");
    assert!(!Path::new("/nowhere").exists());
}

#[test]
fn options_that_need_each_other_say_so() {
    let problem = |options| Tls::from_options(&Options::parse(options).expect(options)).expect_err(options);
    assert_eq!(problem("tls-cert=a"), "option tls-cert needs tls-key beside it");
    assert_eq!(problem("tls-key=a"), "option tls-key needs tls-cert beside it");
    assert_eq!(
        problem("tls-server-name=a b"),
        "option tls-server-name=a b: neither a DNS name nor an address"
    );
    assert!(!Tls::default().is_wanted());
    assert!(tls("tls-ca=a").is_wanted());
}

#[test]
fn an_explanation_says_each_thing_once_and_reads_alerts() {
    let refused = io::Error::from_raw_os_error(111);
    let text = explain(&io::Error::other(refused));
    assert_eq!(text, "Connection refused (os error 111)");
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
    assert_eq!(
        explain(&io::Error::other(io::Error::other(alert))),
        "the server refuses with TLS alert CertificateRequired: it wants a certificate of ours: name it with tls-cert \
         and tls-key"
    );
}
