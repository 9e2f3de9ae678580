//! Bodies of requests, compressed.
//!
//! Invariant: the same body is compressed to the same bytes, so that all attempts at a message are alike.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Request, header::CONTENT_ENCODING};
use http_body_util::{BodyExt, Full};
use tokio::task::spawn_blocking;

use crate::config::Compress;

/// Larger bodies take so long that others on the same thread would notice.
const AT_ONCE_MAX: usize = 32 * 1024;

/// The request with its body compressed, where the rule says so. One that says how it is encoded stays as it is.
pub(super) async fn compress(request: Request<Full<Bytes>>, rule: Compress) -> Request<Full<Bytes>> {
    let Compress::Gzip(size_min) = rule else { return request };
    if request.headers().contains_key(CONTENT_ENCODING) {
        return request;
    }
    let (mut head, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(never) => match never {},
    };
    if body.is_empty() || (body.len() as u64) < size_min {
        return Request::from_parts(head, Full::new(body));
    }
    let compressed = if body.len() <= AT_ONCE_MAX {
        gzip(&body)
    } else {
        let body = body.clone();
        spawn_blocking(move || gzip(&body)).await.ok().flatten()
    };
    let Some(compressed) = compressed else { return Request::from_parts(head, Full::new(body)) };
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Request::from_parts(head, Full::new(compressed.into()))
}

/// Without a time and a name in its header, which would tell attempts apart.
fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    async fn body_of(request: Request<Full<Bytes>>) -> Bytes {
        request.into_body().collect().await.unwrap().to_bytes()
    }

    fn request(body: &[u8]) -> Request<Full<Bytes>> {
        Request::new(Full::new(Bytes::copy_from_slice(body)))
    }

    #[tokio::test]
    async fn what_is_compressed_is_the_same_each_time_and_what_it_was() {
        for size in [1000, AT_ONCE_MAX + 1] {
            let body = b"0123456789".repeat(size / 10 + 1);
            let compressed = compress(request(&body), Compress::Gzip(1000)).await;
            assert_eq!(compressed.headers()[CONTENT_ENCODING], "gzip");
            let compressed = body_of(compressed).await;
            assert!(compressed.len() < body.len() / 10);
            let mut original = Vec::new();
            GzDecoder::new(&compressed[..]).read_to_end(&mut original).unwrap();
            assert!(original == body);
            assert_eq!(compressed, body_of(compress(request(&body), Compress::Gzip(0)).await).await);
        }
    }

    #[tokio::test]
    async fn what_is_small_empty_or_encoded_stays_as_it_is() {
        let mut encoded = request(&[b'x'; 1000]);
        encoded.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("br"));
        let kept = compress(encoded, Compress::Gzip(1)).await;
        assert_eq!(kept.headers()[CONTENT_ENCODING], "br");
        for (body, rule) in
            [(&b"x"[..], Compress::Gzip(2)), (b"", Compress::Gzip(0)), (&[b'x'; 5000], Compress::None)]
        {
            let kept = compress(request(body), rule).await;
            assert!(!kept.headers().contains_key(CONTENT_ENCODING));
            assert_eq!(body_of(kept).await, body);
        }
    }
}
