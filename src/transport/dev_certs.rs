//! A certificate for trying TLS out on one machine, signed by an authority made for that.
//!
//! The authority is allowed to vouch for this machine's own names only, so that a browser or a device that
//! trusts it trusts nothing else with it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
};
use rustls::{
    CertificateError, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{ServerName, UnixTime},
};

use super::tls::{TlsError, certificates, provider};

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const SERVER: &str = "server.pem";
const SERVER_KEY: &str = "server.key";
const FILES: [&str; 4] = [CA, CA_KEY, SERVER, SERVER_KEY];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_DAYS: u32 = 20 * 365;
/// Some clients refuse a certificate that is valid for longer.
const SERVER_DAYS: u32 = 397;
/// A certificate with less than this left is renewed, so that it does not end while the broker runs.
const DAYS_LEFT_MIN: u32 = 30;

/// What [`ensure`] found or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DevCerts {
    /// There were none: an authority and a server certificate have been made.
    Created,
    /// They are there and good.
    Reused,
    /// The server certificate was old: the same authority has signed a new one.
    Renewed,
}

/// Why there is no development certificate.
#[derive(Debug, thiserror::Error)]
pub enum DevCertsError {
    /// Some of the files are there, some are not.
    #[error(
        "{} holds some of the files of a development certificate but not {missing}: put it back, or remove \
         ca.pem, ca.key, server.pem and server.key to have new ones made",
        folder.display()
    )]
    Incomplete {
        /// The folder.
        folder: PathBuf,
        /// The first file that is missing.
        missing: &'static str,
    },
    /// The files are there but do not fit together.
    #[error(
        "the development certificate {} is of no use: {source}. Remove ca.pem, ca.key, server.pem and \
         server.key beside it to have new ones made",
        path.display()
    )]
    Useless {
        /// The certificate.
        path: PathBuf,
        /// What a client would say about it.
        source: rustls::Error,
    },
    /// A file cannot be read as PEM.
    #[error(transparent)]
    Pem(#[from] TlsError),
    /// A file or the folder cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Making or signing a certificate failed.
    #[error("cannot make a development certificate: {0}")]
    Signing(#[from] rcgen::Error),
}

/// Sees to it that `folder` holds `server.pem` and `server.key` for localhost, 127.0.0.1 and ::1, signed
/// by the authority in `ca.pem`, which clients have to trust. Files that are there and good are kept.
pub fn ensure(folder: &Path) -> Result<DevCerts, DevCertsError> {
    let at_folder = |source| DevCertsError::File { path: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(at_folder)?;
    let lock = File::open(folder).map_err(at_folder)?;
    // Held while this function runs: two brokers that start at once make one authority.
    lock.lock().map_err(at_folder)?;
    let missing = FILES.into_iter().find(|name| !folder.join(name).exists());
    match missing {
        None => reuse_or_renew(folder),
        Some(_) if !FILES.into_iter().any(|name| folder.join(name).exists()) => create(folder),
        Some(missing) => Err(DevCertsError::Incomplete { folder: folder.to_owned(), missing }),
    }
}

fn create(folder: &Path) -> Result<DevCerts, DevCertsError> {
    let key = KeyPair::generate()?;
    let params = ca_params()?;
    let certificate = params.self_signed(&key)?;
    write(&folder.join(CA_KEY), &key.serialize_pem(), 0o600)?;
    write(&folder.join(CA), &certificate.pem(), 0o644)?;
    let server_key = KeyPair::generate()?;
    write(&folder.join(SERVER_KEY), &server_key.serialize_pem(), 0o600)?;
    write_server(folder, &server_key, &Issuer::new(params, key))?;
    Ok(DevCerts::Created)
}

fn reuse_or_renew(folder: &Path) -> Result<DevCerts, DevCertsError> {
    let path = folder.join(SERVER);
    match verify(folder, UnixTime::since_unix_epoch(now() + DAY * DAYS_LEFT_MIN))? {
        Ok(()) => return Ok(DevCerts::Reused),
        Err(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => {}
        Err(source) => return Err(DevCertsError::Useless { path, source }),
    }
    let read = |name| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(|source| DevCertsError::File { path, source })
    };
    let issuer = Issuer::from_ca_cert_pem(&read(CA)?, KeyPair::from_pem(&read(CA_KEY)?)?)?;
    // The key stays: one file is replaced in one step, and a crash leaves a pair.
    write_server(folder, &KeyPair::from_pem(&read(SERVER_KEY)?)?, &issuer)?;
    Ok(DevCerts::Renewed)
}

/// What a client that trusts the authority will say about the server's certificate at that time.
fn verify(folder: &Path, at: UnixTime) -> Result<Result<(), rustls::Error>, DevCertsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&folder.join(CA))?);
    let chain = certificates(&folder.join(SERVER))?;
    let (Some(server), Ok(localhost)) = (chain.first(), ServerName::try_from("localhost")) else {
        return Ok(Err(CertificateError::BadEncoding.into()));
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    Ok(match verifier {
        Ok(verifier) => verifier.verify_server_cert(server, &[], &localhost, &[], at).map(|_| ()),
        Err(_) => Err(CertificateError::UnknownIssuer.into()),
    })
}

fn ca_params() -> Result<CertificateParams, DevCertsError> {
    let mut params = params(CA_DAYS, "Causeway development authority", Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(Ipv4Addr::LOCALHOST.octets(), 8)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(Ipv6Addr::LOCALHOST.octets(), 128)),
        ],
        excluded_subtrees: Vec::new(),
    });
    Ok(params)
}

fn write_server(folder: &Path, key: &KeyPair, issuer: &Issuer<'_, KeyPair>) -> Result<(), DevCertsError> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let mut params = params(SERVER_DAYS, "Causeway development server", names)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(key, issuer)?;
    write(&folder.join(SERVER), &certificate.pem(), 0o644)
}

/// Valid since yesterday, because clocks differ.
fn params(days: u32, name: &str, names: Vec<String>) -> Result<CertificateParams, DevCertsError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(1970, 1, 1) + (now() - DAY);
    params.not_after = params.not_before + DAY * days;
    Ok(params)
}

fn now() -> Duration {
    // A clock before the second day of 1970 would make every certificate useless anyway.
    Duration::from_secs(UnixTime::now().as_secs().max(DAY.as_secs()))
}

/// Writes or replaces a file in one step; nobody could have opened it before with wider rights.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), DevCertsError> {
    let failed = |source| DevCertsError::File { path: path.to_owned(), source };
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new);
    file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, path))
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn texts(folder: &Path) -> [String; 4] {
        FILES.map(|name| fs::read_to_string(folder.join(name)).unwrap())
    }

    fn issuer(folder: &Path) -> Issuer<'static, KeyPair> {
        let [ca, key, ..] = texts(folder);
        Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&key).unwrap()).unwrap()
    }

    #[test]
    fn makes_them_once_and_keeps_them() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("certs");
        assert_eq!(ensure(&folder).unwrap(), DevCerts::Created);
        let made = texts(&folder);
        assert_eq!(ensure(&folder).unwrap(), DevCerts::Reused);
        assert_eq!(texts(&folder), made);
        for key in [CA_KEY, SERVER_KEY] {
            assert_eq!(fs::metadata(folder.join(key)).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn half_of_them_is_an_error_that_names_the_missing_file() {
        let folder = tempfile::tempdir().unwrap();
        ensure(folder.path()).unwrap();
        fs::remove_file(folder.path().join(CA_KEY)).unwrap();
        let before = fs::read(folder.path().join(SERVER)).unwrap();
        let error = ensure(folder.path()).unwrap_err();
        assert!(matches!(error, DevCertsError::Incomplete { missing: CA_KEY, .. }), "{error}");
        assert_eq!(fs::read(folder.path().join(SERVER)).unwrap(), before);
    }

    #[test]
    fn renews_an_old_certificate_under_the_same_authority() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        ensure(folder).unwrap();
        let [ca, ca_key, _, server_key] = texts(folder);
        let old = params(DAYS_LEFT_MIN, "old", vec!["localhost".to_owned()]).unwrap();
        let key = KeyPair::from_pem(&server_key).unwrap();
        let old = old.signed_by(&key, &issuer(folder)).unwrap().pem();
        fs::write(folder.join(SERVER), &old).unwrap();

        assert_eq!(ensure(folder).unwrap(), DevCerts::Renewed);
        let [same_ca, same_ca_key, new, same_key] = texts(folder);
        assert_eq!((same_ca, same_ca_key, same_key), (ca, ca_key, server_key));
        assert_ne!(new, old);
        assert_eq!(ensure(folder).unwrap(), DevCerts::Reused);
    }

    #[test]
    fn a_certificate_of_another_authority_is_an_error() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        ensure(folder.path()).unwrap();
        ensure(other.path()).unwrap();
        fs::copy(other.path().join(SERVER), folder.path().join(SERVER)).unwrap();
        let error = ensure(folder.path()).unwrap_err();
        assert!(matches!(error, DevCertsError::Useless { .. }), "{error}");
    }

    #[test]
    fn the_authority_cannot_vouch_for_other_machines() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        ensure(folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "bank.example".to_owned()];
        let forged = params(90, "forged", names).unwrap().signed_by(&key, &issuer(folder)).unwrap();
        fs::write(folder.join(SERVER), forged.pem()).unwrap();
        assert!(matches!(ensure(folder), Err(DevCertsError::Useless { .. })));
    }
}
