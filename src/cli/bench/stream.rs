//! The bytes of one connection: TCP, or TLS over it.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::BenchError;

/// A connection's bytes.
#[derive(Debug)]
pub enum Stream {
    /// TCP without TLS.
    Plain(TcpStream),
    /// After the handshake. Boxed, because it is far larger than a socket.
    Tls(Box<TlsStream<TcpStream>>),
}

/// How to secure connections.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    server_name: ServerName<'static>,
}

/// Whom a TLS client trusts.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// The certificate authorities of the operating system.
    System,
    /// Those in a PEM file.
    File(&'a Path),
    /// Anyone.
    Anyone,
}

impl Tls {
    /// Settings for connections to `server_name`.
    ///
    /// # Errors
    /// When the name is neither a DNS name nor an address, or the certificates cannot be read.
    pub fn new(server_name: &str, trust: Trust<'_>) -> Result<Self, BenchError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let argument = |error: &dyn std::fmt::Display| BenchError::Argument(error.to_string());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| argument(&error))?;
        let config = match trust {
            Trust::Anyone => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TrustAnyone(provider)))
                .with_no_client_auth(),
            Trust::File(path) => builder.with_root_certificates(roots_in(path)?).with_no_client_auth(),
            Trust::System => builder.with_root_certificates(system_roots()).with_no_client_auth(),
        };
        let server_name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| BenchError::Argument(format!("{server_name} is not a name that TLS can verify")))?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), server_name })
    }
}

impl Stream {
    /// Connects to `address`, from the local address `from` if one is given.
    ///
    /// # Errors
    /// [`BenchError::Connect`] and [`BenchError::Tls`].
    pub async fn dial(
        address: SocketAddr,
        from: Option<IpAddr>,
        tls: Option<&Tls>,
    ) -> Result<Self, BenchError> {
        let connect = |source| BenchError::Connect { address, source };
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(connect)?;
        if let Some(from) = from {
            socket.bind(SocketAddr::new(from, 0)).map_err(connect)?;
        }
        let tcp = socket.connect(address).await.map_err(connect)?;
        tcp.set_nodelay(true).map_err(connect)?;
        let Some(tls) = tls else {
            return Ok(Self::Plain(tcp));
        };
        let secured = tls.connector.connect(tls.server_name.clone(), tcp).await;
        let secured = secured.map_err(|source| BenchError::Tls { address, source })?;
        Ok(Self::Tls(Box::new(secured)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

fn roots_in(path: &Path) -> Result<RootCertStore, BenchError> {
    let file = |reason: String| BenchError::File { path: path.to_owned(), reason };
    let pem = fs::read(path).map_err(|error| file(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| file(error.to_string()))?;
        roots.add(certificate).map_err(|error| file(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(file("holds no certificate in PEM form".to_owned()));
    }
    Ok(roots)
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Unreadable ones are skipped: a server whose issuer is missing then fails with a message that says so.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Accepts every certificate; only for `--insecure`.
#[derive(Debug)]
struct TrustAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
