//! Access tokens of OAuth 2: asked for when there is none, kept until shortly before they expire.
//!
//! Invariant: one request for a token at a time, whoever needs it; no message holds a secret or a token.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use oauth2::basic::{BasicClient, BasicErrorResponse, BasicTokenType};
use oauth2::{
    AuthType, ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse,
    RequestTokenError, Scope, TokenResponse, TokenUrl,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::exchange::{Deadline, Exchange};
use super::failure::Failure;
use super::redact::redact;
use super::tls::ClientError;
use crate::bridge::excerpt::excerpt;
use crate::config::OAuth2Config;

/// Most bytes of an answer with a token.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of what the token endpoint says that an error shows.
const SAID_MAX: usize = 200;
/// How long before its end a token is not used any more: requests take time, and clocks differ.
const MARGIN_MAX: Duration = Duration::from_secs(30);

/// The tokens of one target.
pub(super) struct Tokens {
    config: OAuth2Config,
    library: Library,
    exchange: Exchange,
    last: Mutex<Last>,
}

type Library = BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// How the last request for a token ended.
#[derive(Default)]
struct Last {
    token: Option<Token>,
    failed: Option<(Instant, Failure)>,
    /// Counts tokens.
    number: u64,
}

/// A token that may be used.
#[derive(Clone)]
pub(super) struct Token {
    /// Of which token the target said that it is not good (any more).
    number: u64,
    header: HeaderValue,
    good_until: Option<Instant>,
}

impl Tokens {
    /// Tokens that are asked for over these connections.
    pub(super) fn new(config: &OAuth2Config, exchange: Exchange) -> Result<Self, ClientError> {
        let url = TokenUrl::new(config.token_url.to_string());
        let url = url.map_err(|error| ClientError::TokenUrl(error.to_string()))?;
        let place = if config.secret_in_body { AuthType::RequestBody } else { AuthType::BasicAuth };
        let library = BasicClient::new(ClientId::new(config.client_id.clone()))
            .set_client_secret(ClientSecret::new(config.client_secret.expose().to_owned()))
            .set_auth_type(place)
            .set_token_uri(url);
        Ok(Self { config: config.clone(), library, exchange, last: Mutex::default() })
    }

    /// The token there is, or a new one when there is none or `refused` is the one there is. Whoever asks while one
    /// is asked for gets that one, or why there is none.
    pub(super) async fn token(&self, refused: Option<&Token>, deadline: Deadline) -> Result<Token, Failure> {
        let asked_at = Instant::now();
        let waited = deadline.end(self.last.lock()).await;
        let mut last = waited.map_err(|failure| Failure::Token(failure.to_string()))?;
        if let Some(token) = &last.token
            && token.good_until.is_none_or(|until| Instant::now() < until)
            && refused.is_none_or(|refused| refused.number != token.number)
        {
            return Ok(token.clone());
        }
        if let Some((at, failure)) = &last.failed
            && *at >= asked_at
        {
            return Err(failure.clone());
        }
        last.token = None;
        last.number += 1;
        match self.ask(last.number, deadline).await {
            Ok(token) => {
                last.failed = None;
                Ok(last.token.insert(token).clone())
            }
            Err(failure) => {
                last.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    async fn ask(&self, number: u64, deadline: Deadline) -> Result<Token, Failure> {
        let status = Arc::new(AtomicU16::new(0));
        let (exchange, seen) = (self.exchange.clone(), Arc::clone(&status));
        let send = move |request| send(exchange.clone(), request, Arc::clone(&seen), deadline);
        let mut request = self.library.exchange_client_credentials();
        for scope in &self.config.scopes {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        for (name, value) in &self.config.params {
            request = request.add_extra_param(name, value.expose());
        }
        let asked_at = Instant::now();
        // Named, because the compiler does not see through the library's own type that it is `Send`.
        let asking: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(request.request_async(&send));
        let answer = asking.await;
        let answer = answer.map_err(|error| self.failure(error, status.load(Ordering::Relaxed)))?;
        if *answer.token_type() != BasicTokenType::Bearer {
            return Err(self.said("gave a token that is not of type Bearer"));
        }
        let header = HeaderValue::try_from(format!("Bearer {}", answer.access_token().secret()));
        let mut header = header.map_err(|_| self.said("gave a token that no header can carry"))?;
        header.set_sensitive(true);
        let good_for = answer.expires_in().map(|life| life.saturating_sub((life / 10).min(MARGIN_MAX)));
        Ok(Token { number, header, good_until: good_for.and_then(|life| asked_at.checked_add(life)) })
    }

    fn failure(&self, error: RequestTokenError<Failure, BasicErrorResponse>, status: u16) -> Failure {
        match error {
            RequestTokenError::Request(failure) => Failure::Token(format!("{}: {failure}", self.place())),
            RequestTokenError::ServerResponse(said) => self.said(&format!("answered {status}, {said}")),
            // What it answered is not repeated: it may be a token that comes in the wrong form.
            RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
                self.said(&format!("answered {status}, without a token"))
            }
        }
    }

    fn said(&self, what: &str) -> Failure {
        let what = redact(what.as_bytes(), &[self.config.client_secret.expose().as_bytes()]);
        Failure::Token(format!("{} {}", self.place(), excerpt(&what, SAID_MAX)))
    }

    /// Without the query, which may hold a secret.
    fn place(&self) -> String {
        let url = &self.config.token_url;
        let at = url.authority().map_or("", |authority| authority.as_str());
        format!("{}://{at}{}", url.scheme_str().unwrap_or_default(), url.path())
    }
}

impl Token {
    /// The request with this token.
    pub(super) fn put_on(&self, mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
        request.headers_mut().insert(AUTHORIZATION, self.header.clone());
        request
    }

    /// What must not be shown.
    pub(super) fn secret(&self) -> &[u8] {
        self.header.as_bytes().strip_prefix(b"Bearer ").unwrap_or_default()
    }
}

/// One request of the library. What it borrows would have to outlive the library's own future, so it owns.
fn send(
    exchange: Exchange,
    request: HttpRequest,
    seen: Arc<AtomicU16>,
    deadline: Deadline,
) -> Pin<Box<dyn Future<Output = Result<HttpResponse, Failure>> + Send>> {
    Box::pin(async move {
        let mut request = request.map(|body| Full::new(Bytes::from(body)));
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let answer = exchange.send(request, ANSWER_BYTES_MAX, deadline).await?;
        seen.store(answer.status.as_u16(), Ordering::Relaxed);
        let mut response = Response::new(answer.body.to_vec());
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    })
}
