//! One request and its answer, over connections that are used again.
//!
//! Invariant: an answer costs bounded memory, and is waited for until the deadline and no longer.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

use super::connector::Connector;
use super::failure::Failure;
use super::resolver::LookUp;
use super::tls::ClientError;
use crate::config::{HttpVersion, TargetConfig};

/// Most bytes of an answer's body that are read to use its connection again.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of an answer's status line and headers.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// Shorter than the keep-alive of common servers (5 s in Node.js), so that a connection is seldom closed
/// by the target while a request is on its way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// All requests to a target may share one connection of HTTP/2. One that is dead is found out, and replaced, within
/// twice this time.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// The connections of one target.
#[derive(Clone)]
pub(super) struct Exchange {
    http: legacy::Client<Connector, Full<Bytes>>,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The beginning of the body.
    pub(super) body: Bytes,
    /// That is all of it.
    pub(super) is_whole: bool,
}

/// When an attempt ends.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    pub(super) fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout, timeout }
    }

    /// What comes of this, unless it takes too long.
    pub(super) async fn end<F: Future>(self, doing: F) -> Result<F::Output, Failure> {
        timeout_at(self.at, doing).await.map_err(|_| Failure::Timeout(self.timeout))
    }
}

impl Exchange {
    /// Reads files, so it blocks.
    pub(super) fn new(
        config: &TargetConfig,
        version: HttpVersion,
        look_up: LookUp,
    ) -> Result<Self, ClientError> {
        let body_bytes_max = u32::try_from(BODY_BYTES_MAX).ok();
        let http = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(usize::try_from(config.concurrency).unwrap_or(usize::MAX))
            .http1_max_buf_size(HEAD_BYTES_MAX as usize)
            .http2_only(version == HttpVersion::Http2)
            .http2_max_header_list_size(HEAD_BYTES_MAX)
            .http2_initial_stream_window_size(body_bytes_max)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_INTERVAL)
            .build(Connector::new(config, version, look_up)?);
        Ok(Self { http })
    }

    /// Sends a request and keeps so much of the body of its answer.
    ///
    /// # Errors
    /// When no status came in time. After that there is an answer, whatever becomes of its body.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        kept_max: usize,
        deadline: Deadline,
    ) -> Result<Answer, Failure> {
        let response = deadline.end(self.http.request(request)).await?;
        let (head, body) = response.map_err(|error| Failure::from_client(&error))?.into_parts();
        let (body, is_whole) = read_body(body, kept_max, deadline).await;
        Ok(Answer { status: head.status, headers: head.headers, body, is_whole })
    }
}

impl Answer {
    /// A header that is printable and no longer than that.
    pub(super) fn text_of(&self, name: HeaderName, len_max: usize) -> Option<String> {
        let value = self.headers.get(name)?.to_str().ok()?;
        (value.len() <= len_max).then(|| value.to_owned())
    }
}

/// The beginning of the body, and whether that is all of it. A body that goes on for too long, or for too
/// much time, is dropped half read, and its connection with it.
async fn read_body(mut body: Incoming, kept_max: usize, deadline: Deadline) -> (Bytes, bool) {
    let mut kept = Vec::new();
    let mut read = 0;
    while !body.is_end_stream() {
        let frame = match deadline.end(body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            _ => return (kept.into(), false),
        };
        let Ok(data) = frame.into_data() else { continue };
        let wanted = data.len().min(kept_max.saturating_sub(kept.len()));
        kept.extend_from_slice(data.get(..wanted).unwrap_or_default());
        read += data.len();
        if read >= BODY_BYTES_MAX.max(kept_max) {
            break;
        }
    }
    (kept.into(), read <= kept_max && body.is_end_stream())
}
