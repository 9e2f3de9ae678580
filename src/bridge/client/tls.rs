//! TLS as the configuration of a target asks for it.

use std::hash::BuildHasher as _;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, version};

use crate::config::{TargetConfig, TargetTls, TlsVersion};

/// Why a target's client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file cannot be read, or is no PEM.
    #[error("tls.{key} {}: {reason}", path.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// As in the configuration.
        path: Box<Path>,
        /// From the system, or from the parser of PEM.
        reason: pem::Error,
    },
    /// The file can be read and has no certificate in it.
    #[error("tls.{key} {}: no certificate in it; it needs PEM blocks of type CERTIFICATE", path.display())]
    NoCertificate {
        /// The key that names it.
        key: &'static str,
        /// As in the configuration.
        path: Box<Path>,
    },
    /// A certificate that is not one, or that does not fit its key.
    #[error("tls.{key} {}: {reason}", path.display())]
    BadCertificate {
        /// The key that names it.
        key: &'static str,
        /// As in the configuration.
        path: Box<Path>,
        /// From the TLS library.
        reason: rustls::Error,
    },
    /// The system has no certificate authorities, so no https target could ever be trusted.
    #[error("this system has no certificate authorities to trust; install them, or set tls.ca_file")]
    NoSystemRoots,
    /// The TLS library refused its settings.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The address of the token endpoint is one for us and none for the library that asks it.
    #[error("auth.token_url: {0}")]
    TokenUrl(String),
}

/// The settings of every TLS connection for this target. Reads files, so it blocks.
pub(super) fn tls_config(config: &TargetConfig) -> Result<ClientConfig, ClientError> {
    let roots = match &config.tls.ca_file {
        Some(path) => roots_of_file(path)?,
        None if config.speaks_tls() => roots_of_system()?,
        // Plain HTTP trusts nobody, and redirects are not followed.
        None => RootCertStore::empty(),
    };
    // The provider is named, because a process-wide default may be absent.
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = match config.tls.min_version {
        TlsVersion::V1_2 => builder.with_safe_default_protocol_versions()?,
        TlsVersion::V1_3 => builder.with_protocol_versions(&[&version::TLS13])?,
    };
    let builder = builder.with_root_certificates(roots);
    let Some(identity) = &config.tls.identity else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates("certificate", &identity.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(|reason| ClientError::File {
        key: "key",
        path: identity.key.as_path().into(),
        reason,
    })?;
    let path = &identity.certificate;
    builder.with_client_auth_cert(chain, key).map_err(|reason| ClientError::BadCertificate {
        key: "certificate",
        path: path.as_path().into(),
        reason,
    })
}

/// Changes when one of the files does that are read for a target: their names may stay the same. Blocks on the
/// disk.
pub(in crate::bridge) fn files_hash(tls: &TargetTls) -> u64 {
    let identity = tls.identity.as_ref();
    let files = [
        tls.ca_file.as_ref(),
        identity.map(|identity| &identity.certificate),
        identity.map(|identity| &identity.key),
    ];
    // One that cannot be read is told of by whoever needs it.
    let read = files.map(|file| file.map(|path| std::fs::read(path).unwrap_or_default()));
    foldhash::fast::FixedState::default().hash_one(read)
}

fn roots_of_file(path: &Path) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca_file", path)? {
        let added = roots.add(certificate);
        let path = path.into();
        added.map_err(|reason| ClientError::BadCertificate { key: "ca_file", path, reason })?;
    }
    Ok(roots)
}

/// At least one.
fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let path = path.into();
    match read {
        Ok(certificates) if certificates.is_empty() => Err(ClientError::NoCertificate { key, path }),
        Ok(certificates) => Ok(certificates),
        Err(reason) => Err(ClientError::File { key, path, reason }),
    }
}

fn roots_of_system() -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    // Systems carry single certificates that do not parse; the others are good.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(ClientError::NoSystemRoots) } else { Ok(roots) }
}
