//! Whom a target's TLS trusts, and how it is known there.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, crypto::aws_lc_rs};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::{TlsIdentity, TlsVersion};

pub(super) type Issuer = CertifiedIssuer<'static, KeyPair>;

#[tokio::test]
async fn a_handshake_that_hangs_is_a_connect_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = authority();
    let folder = tempfile::tempdir().unwrap();
    let mut config = target(&format!("https://{}/", listener.local_addr().unwrap()));
    config.tls.ca_file = Some(folder.path().join("ca.pem"));
    config.connect_timeout = BRIEFLY;
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    // The kernel accepts for the listener, and nobody ever answers the ClientHello.
    assert_eq!(failure(post(&config).await), Failure::ConnectTimeout(BRIEFLY));
}

pub(super) fn authority() -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key for this name.
fn issue(authority: &Issuer, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    (CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, authority).unwrap(), key)
}

/// What a server needs that shows a certificate for 127.0.0.1 by this authority, and wants one of the client if
/// there is an authority for those.
pub(super) fn server_config(
    authority: &Issuer,
    clients: Option<&Issuer>,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let (certificate, key) = issue(authority, "127.0.0.1");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(versions).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = key.serialize_der().try_into().unwrap();
    builder.with_single_cert(vec![certificate.der().clone()], key).unwrap()
}

/// An HTTPS server for one connection.
async fn serve_tls(config: ServerConfig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(socket).await {
            read_request(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    });
    address
}

async fn serve_plainly(authority: &Issuer) -> SocketAddr {
    serve_tls(server_config(authority, None, &[&TLS12, &TLS13])).await
}

pub(super) fn trusting(address: SocketAddr, ca_file: &Path, authority: &Issuer) -> TargetConfig {
    std::fs::write(ca_file, authority.pem()).unwrap();
    let mut config = target(&format!("https://{address}/"));
    config.tls.ca_file = Some(ca_file.to_owned());
    config
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_target_that_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (servers, clients) = (authority(), authority());
    let server = || serve_tls(server_config(&servers, Some(&clients), &[&TLS13]));
    let mut config = trusting(server().await, &folder.path().join("ca.pem"), &servers);
    let failure = failure(post(&config).await);
    assert!(failure.to_string().to_lowercase().contains("certificate"), "{failure}");

    let (certificate, key) = issue(&clients, "causeway");
    let (certificate_file, key_file) = (folder.path().join("client.pem"), folder.path().join("client.key"));
    std::fs::write(&certificate_file, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    config.tls.identity = Some(TlsIdentity { certificate: certificate_file.clone(), key: key_file.clone() });
    config.url = format!("https://{}/", server().await).parse().unwrap();
    assert_eq!(post(&config).await.outcome, Outcome::Status(202));

    std::fs::write(&key_file, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(
        matches!(Client::new(&config), Err(ClientError::BadCertificate { key: "certificate", .. })),
        "a key that does not fit is found out at the start"
    );
    std::fs::write(&key_file, "no key").unwrap();
    assert!(matches!(Client::new(&config), Err(ClientError::File { key: "key", .. })));
    std::fs::remove_file(&certificate_file).unwrap();
    assert!(matches!(Client::new(&config), Err(ClientError::File { key: "certificate", .. })));
}

#[tokio::test]
async fn an_older_version_than_is_wanted_is_not_spoken() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    let server = || serve_tls(server_config(&authority, None, &[&TLS12]));
    let mut config = trusting(server().await, &folder.path().join("ca.pem"), &authority);
    assert_eq!(post(&config).await.outcome, Outcome::Status(202));
    config.tls.min_version = TlsVersion::V1_3;
    config.url = format!("https://{}/", server().await).parse().unwrap();
    assert_eq!(failure(post(&config).await).kind(), "tls");
}

#[tokio::test]
async fn a_handshake_that_hangs_ends_with_the_whole_attempt_at_the_latest() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = trusting(listener.local_addr().unwrap(), &folder.path().join("ca.pem"), &authority());
    config.timeout = BRIEFLY;
    assert_eq!(failure(post(&config).await), Failure::Timeout(BRIEFLY));
}

#[tokio::test]
async fn a_private_authority_is_trusted_through_ca_file() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    let address = serve_plainly(&authority).await;
    let config = trusting(address, &folder.path().join("ca.pem"), &authority);
    assert_eq!(post(&config).await.outcome, Outcome::Status(202));
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let address = serve_plainly(&authority()).await;
    let config = trusting(address, &folder.path().join("ca.pem"), &authority());
    let failure = failure(post(&config).await);
    assert_eq!(failure.kind(), "tls", "{failure}");
    assert!(failure.to_string().contains("certificate"), "{failure}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    let mut config = trusting(serve_plainly(&authority).await, &folder.path().join("ca.pem"), &authority);
    let port = config.url.port_u16().unwrap();
    config.url = format!("https://localhost:{port}/").parse().unwrap();
    assert_eq!(failure(post(&config).await).kind(), "tls");
}

#[tokio::test]
async fn a_ca_file_without_a_certificate_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let mut config = target("https://127.0.0.1/");
    config.tls.ca_file = Some(file.clone());
    assert!(matches!(Client::new(&config), Err(ClientError::File { key: "ca_file", .. })), "no such file");
    std::fs::write(&file, "not PEM").unwrap();
    assert!(matches!(Client::new(&config), Err(ClientError::NoCertificate { .. })));
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let error = Client::new(&config).err().unwrap();
    assert!(matches!(error, ClientError::BadCertificate { .. }), "{error}");
    assert!(error.to_string().contains("ca.pem"), "{error}");
}
