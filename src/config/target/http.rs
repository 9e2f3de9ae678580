//! How a target's requests go over the wire: the version of HTTP, and whether bodies are compressed.

use crate::config::section::Section;

/// The version of HTTP that is spoken with a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// Over TLS the one that the target prefers, 1.1 otherwise.
    #[default]
    Auto,
    /// 1.1.
    Http1,
    /// 2: over TLS the target has to agree, otherwise it has to know.
    Http2,
}

const VERSIONS: [(&str, HttpVersion); 3] =
    [("auto", HttpVersion::Auto), ("1.1", HttpVersion::Http1), ("2", HttpVersion::Http2)];

impl HttpVersion {
    /// Reads the key.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        section.choice("http_version", &VERSIONS).unwrap_or_default()
    }
}

/// Which bodies are sent compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compress {
    /// None.
    #[default]
    None,
    /// With gzip, those of at least so many bytes.
    Gzip(u64),
}

impl Compress {
    /// Where compressing begins to make a body smaller by more than its headers are.
    pub const SIZE_MIN: u64 = 1024;

    /// Reads the keys.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let size_min = section.bytes("compress_min", 0..=u64::MAX, Self::SIZE_MIN);
        let known = [("none", Self::None), ("gzip", Self::Gzip(size_min))];
        section.choice("compress", &known).unwrap_or_default()
    }
}
