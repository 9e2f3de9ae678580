//! Opens connections to a target: name lookup, TCP and TLS under one deadline, with errors that say
//! which of them failed.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Uri, uri::Scheme};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem, pem::PemObject},
};
use tokio::{net::TcpStream, time::timeout};
use tower_service::Service;

use super::failure::Failure;
use crate::config::TargetConfig;

/// Why a target's client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file cannot be read, or is no PEM.
    #[error("ca_file {}: {reason}", path.display())]
    CaFile {
        /// As in the configuration.
        path: PathBuf,
        /// From the system, or from the parser of PEM.
        reason: pem::Error,
    },
    /// The file can be read and has nothing to trust in it.
    #[error("ca_file {}: no certificate in it; it needs PEM blocks of type CERTIFICATE", path.display())]
    NoCertificate {
        /// As in the configuration.
        path: PathBuf,
    },
    /// A certificate that is not one.
    #[error("ca_file {}: {reason}", path.display())]
    BadCertificate {
        /// As in the configuration.
        path: PathBuf,
        /// From the TLS library.
        reason: rustls::Error,
    },
    /// The system has no certificate authorities, so no https target could ever be trusted.
    #[error("this system has no certificate authorities to trust; install them, or set ca_file")]
    NoSystemRoots,
    /// The TLS library refused its settings.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Opens connections to one target.
#[derive(Clone)]
pub(super) struct Connector {
    inner: HttpsConnector<HttpConnector>,
    timeout: Duration,
}

impl Connector {
    /// A connector for this target. Reads certificate authorities from disk, so it blocks.
    pub(super) fn new(config: &TargetConfig) -> Result<Self, ClientError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(config)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self { inner, timeout: config.connect_timeout })
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(context).map_err(|error| Failure::from_connector(error.as_ref()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let limit = self.timeout;
        let connecting = timeout(limit, self.inner.call(uri));
        Box::pin(async move {
            match connecting.await {
                Ok(connected) => connected.map_err(|error| Failure::from_connector(error.as_ref())),
                Err(_) => Err(Failure::ConnectTimeout(limit)),
            }
        })
    }
}

fn tls_config(config: &TargetConfig) -> Result<ClientConfig, ClientError> {
    let roots = match &config.ca_file {
        Some(path) => roots_of_file(path)?,
        None if config.url.scheme() == Some(&Scheme::HTTPS) => roots_of_system()?,
        // Plain HTTP trusts nobody, and redirects are not followed.
        None => RootCertStore::empty(),
    };
    // The provider is named, because a process-wide default may be absent.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn roots_of_file(path: &Path) -> Result<RootCertStore, ClientError> {
    let unreadable = |reason| ClientError::CaFile { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        let added = roots.add(certificate.map_err(unreadable)?);
        added.map_err(|reason| ClientError::BadCertificate { path: path.to_owned(), reason })?;
    }
    if roots.is_empty() {
        return Err(ClientError::NoCertificate { path: path.to_owned() });
    }
    Ok(roots)
}

fn roots_of_system() -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    // Systems carry single certificates that do not parse; the others are good.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(ClientError::NoSystemRoots) } else { Ok(roots) }
}
