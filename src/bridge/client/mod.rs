//! The HTTP client of one target: one request in, one result out, and never an error that ends anything.
//!
//! It follows no redirect, decompresses nothing and keeps no cookies. What it does twice is to pick a connection,
//! when a pooled one turns out to be closed before any byte was sent, and to send a request with a new access token
//! when the target says that the old one is not good any more.
//!
//! Invariant: an attempt ends within the target's timeout, and an answer costs bounded memory.

mod compress;
mod connector;
mod exchange;
mod failure;
mod redact;
mod resolver;
mod tls;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;

pub use failure::Failure;
pub use tls::ClientError;
pub(in crate::bridge) use tls::files_hash;

use compress::compress;
use exchange::{Answer, Deadline, Exchange};
use redact::{redact, secrets_of};
use resolver::{LookUp, look_up_by_system};
use tokens::{Token, Tokens};

use super::excerpt::excerpt;
use super::policy::status::Outcome;
use crate::config::{Compress, HttpVersion, TargetAuth, TargetConfig};

/// Most bytes of an answer's body that are kept.
pub const EXCERPT_BYTES_MAX: usize = 4 * 1024;
/// What is read beyond that, so that a secret at its end is seen whole and masked.
const SECRET_LEN_MAX: usize = 4 * 1024;
/// An HTTP date has 29 characters.
const RETRY_AFTER_LEN_MAX: usize = 64;
/// A longer one is not handed on.
const CONTENT_TYPE_LEN_MAX: usize = 1024;

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
    exchange: Exchange,
    timeout: Duration,
    compress: Compress,
    /// What each request has to carry.
    auth: HeaderMap,
    tokens: Option<Arc<Tokens>>,
    /// What is masked in an excerpt.
    secrets: Arc<[Box<[u8]>]>,
}

impl Client {
    /// A client for this target. Reads certificate authorities from disk, so it blocks.
    pub fn new(config: &TargetConfig) -> Result<Self, ClientError> {
        Self::looking_up(config, Arc::new(look_up_by_system))
    }

    /// As [`Client::new`], with another way to look names up.
    fn looking_up(config: &TargetConfig, look_up: LookUp) -> Result<Self, ClientError> {
        let mut auth = HeaderMap::new();
        let mut tokens = None;
        match &config.auth {
            TargetAuth::None => {}
            TargetAuth::Header(name, value) => drop(auth.insert(name, value.clone())),
            TargetAuth::OAuth2(oauth2) => {
                // The target may speak a version that the token endpoint does not.
                let exchange = Exchange::new(config, HttpVersion::Auto, Arc::clone(&look_up))?;
                tokens = Some(Arc::new(Tokens::new(oauth2, exchange)?));
            }
        }
        Ok(Self {
            exchange: Exchange::new(config, config.http_version, look_up)?,
            timeout: config.timeout,
            compress: config.compress,
            secrets: secrets_of(&config.headers).into_iter().chain(secrets_of(&auth)).collect(),
            auth,
            tokens,
        })
    }

    /// Sends one request and waits for its answer, at most for the target's timeout. With `reply_bytes_max` so
    /// much of the answer's body is kept for whoever wants to have it; without, an excerpt of it is all.
    ///
    /// The status decides as soon as it is there: an answer whose body breaks off or runs out of time is
    /// still an answer, since what it says of the message was said.
    pub async fn post(&self, request: Request<Full<Bytes>>, reply_bytes_max: Option<usize>) -> AttemptResult {
        let started = Instant::now();
        let kept_max = reply_bytes_max.unwrap_or(0).max(EXCERPT_BYTES_MAX + SECRET_LEN_MAX);
        let (answer, token) = match self.answer(request, kept_max).await {
            Ok(answered) => answered,
            Err(failure) => return AttemptResult::failed(failure, started.elapsed()),
        };
        let reply = reply_bytes_max.map(|bytes_max| Reply {
            content_type: answer.text_of(CONTENT_TYPE, CONTENT_TYPE_LEN_MAX),
            is_cut: !answer.is_whole || answer.body.len() > bytes_max,
            body: answer.body.slice(..answer.body.len().min(bytes_max)),
        });
        AttemptResult {
            outcome: Outcome::Status(answer.status.as_u16()),
            retry_after: answer.text_of(RETRY_AFTER, RETRY_AFTER_LEN_MAX),
            excerpt: self.excerpt(&answer.body, token.as_ref()),
            reply,
            latency: started.elapsed(),
        }
    }

    /// The answer, and the token that it was asked for with.
    async fn answer(
        &self,
        request: Request<Full<Bytes>>,
        kept_max: usize,
    ) -> Result<(Answer, Option<Token>), Failure> {
        let deadline = Deadline::after(self.timeout);
        let mut request = match self.compress {
            Compress::None => request,
            // Boxed, as tokens are: a future is as large as its largest branch, and there is one for each attempt.
            rule => Box::pin(compress(request, rule)).await,
        };
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        request.headers_mut().extend(self.auth.clone());
        match &self.tokens {
            None => Ok((self.exchange.send(request, kept_max, deadline).await?, None)),
            Some(tokens) => Box::pin(self.answer_with_token(tokens, request, kept_max, deadline)).await,
        }
    }

    /// Sends the request once more with a new token when the target does not take the one there is.
    async fn answer_with_token(
        &self,
        tokens: &Tokens,
        request: Request<Full<Bytes>>,
        kept_max: usize,
        deadline: Deadline,
    ) -> Result<(Answer, Option<Token>), Failure> {
        let token = tokens.token(None, deadline).await?;
        let answer = self.exchange.send(token.put_on(request.clone()), kept_max, deadline).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok((answer, Some(token)));
        }
        let token = tokens.token(Some(&token), deadline).await?;
        Ok((self.exchange.send(token.put_on(request), kept_max, deadline).await?, Some(token)))
    }

    fn excerpt(&self, body: &[u8], token: Option<&Token>) -> String {
        let body = redact(body, &self.secrets);
        let body = match token {
            Some(token) => redact(&body, &[token.secret()]).into_owned().into(),
            None => body,
        };
        excerpt(&body, EXCERPT_BYTES_MAX)
    }
}

impl AttemptResult {
    /// An attempt that brought no answer.
    pub fn failed(failure: Failure, latency: Duration) -> Self {
        let outcome = Outcome::Failed(failure);
        Self { outcome, retry_after: None, excerpt: String::new(), reply: None, latency }
    }
}

#[cfg(test)]
mod tests;
