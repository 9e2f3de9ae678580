//! The TLS side of a listener: its certificate, and whether clients need one.
//!
//! Invariant: every load makes new ticket keys and a new session store. A client whose certificate the new
//! authorities do not accept would otherwise be let in by a ticket that the old ones gave it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::config::TlsConfig;

/// What is spoken inside TLS. A client that names protocols in the handshake, but not this one, is refused; one
/// that names none is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// MQTT itself.
    Mqtt,
    /// The HTTP request that begins a WebSocket connection.
    Http,
}

/// What new connections of a TLS listener are handled with; replaced by a reload.
#[derive(Debug)]
pub struct TlsSettings {
    files: TlsConfig,
    application: Application,
    config: ArcSwap<ServerConfig>,
}

/// Why TLS files were not taken over.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A PEM file holds nothing of the kind.
    #[error("{} holds no {wanted} in PEM form", path.display())]
    Nothing {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// Key and certificate are not a pair, or one of them is not understood.
    #[error("cannot use the certificate {} with the key {}: {source}", certificate.display(), key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
    /// An authority for client certificates is not usable.
    #[error("the client authorities in {} cannot be used: {source}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with the first bad one.
        source: rustls::Error,
    },
    /// The TLS library cannot be set up; not a matter of the files.
    #[error("TLS cannot be set up: {0}")]
    Library(rustls::Error),
}

impl TlsSettings {
    /// Reads the files.
    pub fn load(files: TlsConfig, application: Application) -> Result<Self, TlsError> {
        let config = ArcSwap::from(load(&files, application)?);
        Ok(Self { files, application, config })
    }

    /// Reads the files again for new connections. On any error the settings in force stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.config.store(load(&self.files, self.application)?);
        Ok(())
    }

    /// The file of the certificate.
    pub fn certificate(&self) -> &Path {
        &self.files.certificate
    }

    /// The settings in force.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

impl Application {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Mqtt => b"mqtt",
            Self::Http => b"http/1.1",
        }
    }
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// All certificates of a PEM file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match read {
        Ok(found) if Vec::is_empty(&found) => {
            Err(TlsError::Nothing { path: path.to_owned(), wanted: "certificate" })
        }
        Ok(found) => Ok(found),
        Err(source) => Err(TlsError::Unreadable { path: path.to_owned(), source }),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsError::Nothing { path: path.to_owned(), wanted: "private key" },
        source => TlsError::Unreadable { path: path.to_owned(), source },
    })
}

fn load(files: &TlsConfig, application: Application) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let chain = certificates(&files.certificate)?;
    let key = private_key(&files.key)?;
    let verifier = match &files.client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(path) => client_verifier(path, &provider)?,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Library)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|source| TlsError::Unusable {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            source,
        })?;
    config.alpn_protocols = vec![application.alpn().to_vec()];
    // A device comes back with one connection, so that the second ticket of the default is never used.
    config.send_tls13_tickets = 1;
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Library)?;
    Ok(Arc::new(config))
}

fn client_verifier(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let unusable = |source| TlsError::ClientCa { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        // One that is skipped would be found out when its devices stay away.
        roots.add(certificate).map_err(unusable)?;
    }
    WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider))
        .build()
        .map_err(|error| unusable(rustls::Error::General(error.to_string())))
}

#[cfg(test)]
mod tests {
    use std::{fs, future::poll_fn, io, io::IoSlice, net::SocketAddr};

    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
    use rustls::{ClientConfig, pki_types::ServerName};
    use tempfile::TempDir;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };
    use tokio_rustls::{TlsConnector, client::TlsStream};

    use super::*;
    use crate::transport::{HandshakeError, Layers, Stream, dev_certs, handshake};

    /// A folder with development certificates.
    fn folder() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        dev_certs::ensure(folder.path()).unwrap();
        folder
    }

    fn files(folder: &TempDir) -> TlsConfig {
        let path = |name| folder.path().join(name);
        TlsConfig { certificate: path("server.pem"), key: path("server.key"), client_ca: None }
    }

    /// A client that trusts the authority in the folder; with a certificate that `signer` has signed.
    fn client(folder: &TempDir, signer: Option<&TempDir>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&folder.path().join("ca.pem")).unwrap());
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let Some(signer) = signer else { return builder.with_no_client_auth() };
        let read = |name| fs::read_to_string(signer.path().join(name)).unwrap();
        let issuer =
            Issuer::from_ca_cert_pem(&read("ca.pem"), KeyPair::from_pem(&read("ca.key")).unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
    }

    fn layers(settings: &TlsSettings) -> Layers {
        Layers { tls: Some(settings.current()), websocket: None }
    }

    /// Both ends of a handshake on loopback.
    async fn connect(
        settings: &TlsSettings,
        client: &Arc<ClientConfig>,
        name: &'static str,
    ) -> (io::Result<TlsStream<TcpStream>>, Result<Stream, HandshakeError>) {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let (name, layers) = (ServerName::try_from(name).unwrap(), layers(settings));
        tokio::join!(TlsConnector::from(Arc::clone(client)).connect(name, tcp), handshake(accepted, &layers),)
    }

    /// Sends a byte from the server, so that the client has read its ticket, too.
    async fn one_byte(client: &mut TlsStream<TcpStream>, server: &mut Stream) {
        poll_fn(|cx| server.poll_write_vectored(cx, &[IoSlice::new(b"!")])).await.unwrap();
        poll_fn(|cx| server.poll_flush(cx)).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'!');
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_authority_talks_to_every_local_name() {
        let folder = folder();
        let settings = TlsSettings::load(files(&folder), Application::Mqtt).unwrap();
        let mut config = client(&folder, None);
        config.alpn_protocols = vec![b"other".to_vec(), b"mqtt".to_vec()];
        let config = Arc::new(config);
        for name in ["localhost", "127.0.0.1", "::1"] {
            let (client, server) = connect(&settings, &config, name).await;
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            assert!(matches!(server, Stream::Tls(_)));
            assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"mqtt"[..]));

            client.write_all(b"hello").await.unwrap();
            let mut lent = [0; 16];
            assert_eq!(poll_fn(|cx| server.poll_read(cx, &mut lent)).await.unwrap(), 5);
            one_byte(&mut client, &mut server).await;

            server.shutdown().await.unwrap();
            assert_eq!(client.read(&mut lent).await.unwrap(), 0, "a clean end, with close_notify");
        }
    }

    #[tokio::test]
    async fn refuses_other_protocols_and_plain_text() {
        let folder = folder();
        let settings = TlsSettings::load(files(&folder), Application::Mqtt).unwrap();
        let mut other = client(&folder, None);
        other.alpn_protocols = vec![b"h2".to_vec()];
        let (client, server) = connect(&settings, &Arc::new(other), "localhost").await;
        assert!(client.is_err() && server.is_err());

        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let mut tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        tcp.write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00").await.unwrap();
        assert!(handshake(accepted, &layers(&settings)).await.is_err());
    }

    #[tokio::test]
    async fn a_reload_takes_the_new_certificate_and_a_bad_one_keeps_the_old() {
        let (folder, other) = (folder(), folder());
        let settings = TlsSettings::load(files(&folder), Application::Mqtt).unwrap();
        let (old, new) = (Arc::new(client(&folder, None)), Arc::new(client(&other, None)));
        for name in ["server.pem", "server.key"] {
            fs::copy(other.path().join(name), folder.path().join(name)).unwrap();
        }
        assert!(connect(&settings, &old, "localhost").await.0.is_ok());
        settings.reload().unwrap();
        assert!(connect(&settings, &old, "localhost").await.0.is_err());
        assert!(connect(&settings, &new, "localhost").await.0.is_ok());

        fs::write(folder.path().join("server.pem"), "").unwrap();
        assert!(settings.reload().is_err());
        assert!(connect(&settings, &new, "localhost").await.0.is_ok());
    }

    #[tokio::test]
    async fn a_client_certificate_is_needed_when_an_authority_is_named() {
        let folder = folder();
        let files = TlsConfig { client_ca: Some(folder.path().join("ca.pem")), ..files(&folder) };
        let settings = TlsSettings::load(files, Application::Mqtt).unwrap();
        let with = Arc::new(client(&folder, Some(&folder)));
        assert!(connect(&settings, &with, "localhost").await.1.is_ok());
        let without = Arc::new(client(&folder, None));
        assert!(connect(&settings, &without, "localhost").await.1.is_err());
        let stranger = Arc::new(client(&folder, Some(&self::folder())));
        assert!(connect(&settings, &stranger, "localhost").await.1.is_err());
    }

    #[tokio::test]
    async fn a_ticket_does_not_outlive_the_authority_of_the_client() {
        let (folder, authority) = (folder(), folder());
        let client_ca = folder.path().join("clients.pem");
        fs::copy(authority.path().join("ca.pem"), &client_ca).unwrap();
        let files = TlsConfig { client_ca: Some(client_ca.clone()), ..files(&folder) };
        let settings = TlsSettings::load(files, Application::Mqtt).unwrap();
        let config = Arc::new(client(&folder, Some(&authority)));

        for kind in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
            let (client, server) = connect(&settings, &config, "localhost").await;
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            one_byte(&mut client, &mut server).await;
            assert_eq!(client.get_ref().1.handshake_kind(), Some(kind));
        }
        fs::copy(folder.path().join("ca.pem"), &client_ca).unwrap();
        settings.reload().unwrap();
        assert!(connect(&settings, &config, "localhost").await.1.is_err());
    }

    #[test]
    fn says_which_file_is_wrong() {
        let (folder, other) = (folder(), folder());
        let good = files(&folder);
        let problem = |files| TlsSettings::load(files, Application::Mqtt).unwrap_err().to_string();
        let none = TlsConfig { certificate: "/nowhere/x.pem".into(), ..good.clone() };
        assert!(problem(none).starts_with("cannot read /nowhere/x.pem: "));
        let swapped = TlsConfig { certificate: good.key.clone(), ..good.clone() };
        assert!(problem(swapped).ends_with("server.key holds no certificate in PEM form"));
        let swapped = TlsConfig { key: good.certificate.clone(), ..good.clone() };
        assert!(problem(swapped).ends_with("server.pem holds no private key in PEM form"));
        let foreign = TlsConfig { key: files(&other).key, ..good.clone() };
        assert!(problem(foreign).contains("with the key"));
        let broken = folder.path().join("clients.pem");
        fs::write(&broken, "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n").unwrap();
        let broken = TlsConfig { client_ca: Some(broken), ..good };
        assert!(problem(broken).contains("clients.pem cannot be used: invalid peer certificate"));
    }
}
