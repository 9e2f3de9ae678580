//! The HTTP client of one target: one request in, one result out, and never an error that ends anything.
//!
//! It follows no redirect, decompresses nothing and keeps no cookies. The only thing it does twice is to
//! pick a connection: when a pooled one turns out to be closed before any byte was sent.
//!
//! Invariant: an attempt ends within the target's timeout, and an answer costs bounded memory.

mod connector;
mod failure;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Request,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, timeout_at};

pub use connector::ClientError;
pub use failure::Failure;

use connector::Connector;

use super::excerpt::{Secrets, excerpt};
use super::policy::status::Outcome;
use crate::config::TargetConfig;

/// Most bytes of an answer's body that are kept.
pub const EXCERPT_BYTES_MAX: usize = 4 * 1024;
/// Most bytes of an answer's body that are read to use its connection again.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of an answer's status line and headers.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// An HTTP date has 29 characters.
const RETRY_AFTER_LEN_MAX: usize = 64;
/// A longer one is not handed on.
const CONTENT_TYPE_LEN_MAX: usize = 1024;
/// Shorter than the keep-alive of common servers (5 s in Node.js), so that a connection is seldom closed
/// by the target while a request is on its way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// What one attempt brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptResult {
    /// The status, or why there is none.
    pub outcome: Outcome,
    /// The Retry-After of the answer, unparsed.
    pub retry_after: Option<String>,
    /// The beginning of the answer's body, safe to print.
    pub excerpt: String,
    /// The answer as it came, for whoever asked [`Client::post`] to keep it.
    pub reply: Option<Reply>,
    /// From the start of the attempt to the end of what was read of the answer.
    pub latency: Duration,
}

/// What a target answered, to be handed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The Content-Type of the answer, where it has one that is text.
    pub content_type: Option<String>,
    /// Its body, or as much of it as there was room for.
    pub body: Bytes,
    /// The body went on beyond what was asked for, or broke off.
    pub is_cut: bool,
}

/// The HTTP client of one target, with its pool of connections. Cloning shares the pool.
#[derive(Clone)]
pub struct Client {
    http: legacy::Client<Connector, Full<Bytes>>,
    timeout: Duration,
    /// What no excerpt may show.
    secrets: Arc<Secrets>,
}

impl Client {
    /// A client for this target. Reads certificate authorities from disk, so it blocks.
    pub fn new(config: &TargetConfig) -> Result<Self, ClientError> {
        let http = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(usize::try_from(config.concurrency).unwrap_or(usize::MAX))
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(Connector::new(config)?);
        Ok(Self { http, timeout: config.timeout, secrets: Arc::new(Secrets::of(&config.headers)) })
    }

    /// Sends one request and waits for its answer, at most for the target's timeout. With `reply_bytes_max` so
    /// much of the answer's body is kept for whoever wants to have it; without, an excerpt of it is all.
    ///
    /// The status decides as soon as it is there: an answer whose body breaks off or runs out of time is
    /// still an answer, since what it says of the message was said.
    pub async fn post(&self, request: Request<Full<Bytes>>, reply_bytes_max: Option<usize>) -> AttemptResult {
        let started = Instant::now();
        let deadline = started + self.timeout;
        let failed = |failure| AttemptResult::failed(failure, started.elapsed());
        let response = match timeout_at(deadline, self.http.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return failed(Failure::from_client(&error)),
            Err(_) => return failed(Failure::Timeout(self.timeout)),
        };
        let (head, body) = response.into_parts();
        let bytes_max = reply_bytes_max.unwrap_or(0).max(EXCERPT_BYTES_MAX);
        let (body, is_whole) = read_body(body, bytes_max, deadline).await;
        let reply = reply_bytes_max.map(|bytes_max| Reply {
            content_type: text_of(&head.headers, CONTENT_TYPE, CONTENT_TYPE_LEN_MAX),
            is_cut: !is_whole || body.len() > bytes_max,
            body: body.slice(..body.len().min(bytes_max)),
        });
        AttemptResult {
            outcome: Outcome::Status(head.status.as_u16()),
            retry_after: text_of(&head.headers, RETRY_AFTER, RETRY_AFTER_LEN_MAX),
            excerpt: excerpt(&self.secrets.redact(&body), EXCERPT_BYTES_MAX),
            reply,
            latency: started.elapsed(),
        }
    }
}

impl AttemptResult {
    /// An attempt that brought no answer.
    pub fn failed(failure: Failure, latency: Duration) -> Self {
        let outcome = Outcome::Failed(failure);
        Self { outcome, retry_after: None, excerpt: String::new(), reply: None, latency }
    }
}

/// A header that is printable and no longer than that.
fn text_of(headers: &HeaderMap, name: HeaderName, len_max: usize) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (value.len() <= len_max).then(|| value.to_owned())
}

/// The beginning of the body, and whether that is all of it. A body that goes on for too long, or for too
/// much time, is dropped half read, and its connection with it.
async fn read_body(mut body: Incoming, kept_max: usize, deadline: Instant) -> (Bytes, bool) {
    let mut kept = Vec::new();
    let mut read = 0;
    while !body.is_end_stream() {
        let frame = match timeout_at(deadline, body.frame()).await {
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

#[cfg(test)]
mod tests;
