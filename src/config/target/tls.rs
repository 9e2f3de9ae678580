//! `[targets.NAME.tls]`: whom a target's TLS trusts, and how it is known there.

use std::path::PathBuf;

use crate::config::report::Wrong;
use crate::config::section::Section;

/// How TLS is spoken with a target. The files are in PEM form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetTls {
    /// Certificate authorities to trust instead of those of the system.
    pub ca_file: Option<PathBuf>,
    /// What is shown to a target that asks for a certificate.
    pub identity: Option<TlsIdentity>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// A certificate of ours and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIdentity {
    /// The certificate chain, our own certificate first.
    pub certificate: PathBuf,
    /// The private key of the first certificate.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    V1_2,
    /// RFC 8446.
    V1_3,
}

const VERSIONS: [(&str, TlsVersion); 2] = [("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];

impl TargetTls {
    /// Reads the section.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let (certificate, key) = (section.readable_file("certificate"), section.readable_file("key"));
        match (&certificate, &key) {
            (Some(_), None) => {
                section.wrong("certificate", Wrong::new("has no key").help("add key = \"client.key\""));
            }
            (None, Some(_)) => {
                let help = "add certificate = \"client.pem\"";
                section.wrong("key", Wrong::new("has no certificate").help(help));
            }
            _ => {}
        }
        let version = section.choice("min_version", &VERSIONS);
        Self {
            ca_file: section.readable_file("ca_file"),
            identity: certificate.zip(key).map(|(certificate, key)| TlsIdentity { certificate, key }),
            min_version: version.unwrap_or_default(),
        }
    }
}
