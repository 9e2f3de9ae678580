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
use http::{HeaderMap, Request, Response, header::RETRY_AFTER};
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
    /// From the start of the attempt to the end of what was read of the answer.
    pub latency: Duration,
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

    /// Sends one request and waits for its answer, at most for the target's timeout.
    ///
    /// The status decides as soon as it is there: an answer whose body breaks off or runs out of time is
    /// still an answer, since what it says of the message was said.
    pub async fn post(&self, request: Request<Full<Bytes>>) -> AttemptResult {
        let started = Instant::now();
        let deadline = started + self.timeout;
        let failed = |failure| AttemptResult {
            outcome: Outcome::Failed(failure),
            retry_after: None,
            excerpt: String::new(),
            latency: started.elapsed(),
        };
        let response = match timeout_at(deadline, self.http.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return failed(Failure::from_client(&error)),
            Err(_) => return failed(Failure::Timeout(self.timeout)),
        };
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let excerpt = read_excerpt(response, deadline, &self.secrets).await;
        AttemptResult { outcome: Outcome::Status(status), retry_after, excerpt, latency: started.elapsed() }
    }
}

fn retry_after(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    (value.len() <= RETRY_AFTER_LEN_MAX).then(|| value.to_owned())
}

/// The beginning of the body. A body that goes on for too long, or for too much time, is dropped half
/// read, and its connection with it.
async fn read_excerpt(response: Response<Incoming>, deadline: Instant, secrets: &Secrets) -> String {
    let mut body = response.into_body();
    let mut kept = Vec::new();
    let mut read = 0;
    while read < BODY_BYTES_MAX && !body.is_end_stream() {
        let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await else {
            break;
        };
        let Ok(data) = frame.into_data() else { continue };
        let wanted = data.len().min(EXCERPT_BYTES_MAX.saturating_sub(kept.len()));
        kept.extend_from_slice(data.get(..wanted).unwrap_or_default());
        read += data.len();
    }
    excerpt(&secrets.redact(&kept), EXCERPT_BYTES_MAX)
}

#[cfg(test)]
mod tests;
