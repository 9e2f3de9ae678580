//! The HTTP request that begins a WebSocket connection, and its answer.
//!
//! Whatever else is asked here is answered with what would be right, in words: a person with a browser, or a
//! developer whose client cannot connect, reads it.
//!
//! Invariant: 101 is answered only to a request for a path of ours that offers a protocol of ours, and that
//! comes from no page that may not connect. No extension is agreed on, compression included.

use std::{
    convert::Infallible,
    future::{poll_fn, ready},
    sync::OnceLock,
};

use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{
        ALLOW, CONNECTION, CONTENT_TYPE, ORIGIN, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tungstenite::{Error, error::ProtocolError, handshake::server::create_response_with_body};

use super::{origin, stream::WebSocket};
use crate::{
    config::WebSocketConfig,
    transport::{HandshakeError, stream::linger},
};

/// Most bytes of a request.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// The names of our protocol, the first one preferred [MQTT-6.0.0-4]. Clients of MQTT 3.1 ask for the second.
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Why a request did not become a WebSocket connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 404.
    #[error("there is nothing at this path: see \"paths\" in [listeners.websocket] of the configuration")]
    Path,
    /// 405.
    #[error("a WebSocket connection begins with GET")]
    Method,
    /// 505.
    #[error("a WebSocket connection begins with HTTP/1.1")]
    Version,
    /// 426: a person, or a client that was told to use HTTP.
    #[error(
        "MQTT over WebSocket is spoken here, and this is no request for it: let an MQTT client connect to this \
         address with ws:// in place of http:// (wss:// for https://)"
    )]
    NoUpgrade,
    /// 426.
    #[error("version 13 of the WebSocket protocol is spoken here (Sec-WebSocket-Version: 13)")]
    WebSocketVersion,
    /// 400.
    #[error("the request has no Sec-WebSocket-Key of 16 bytes in Base64")]
    Key,
    /// 403.
    #[error(
        "this web page may not connect: add its origin to \"origins\" in [listeners.websocket] of the \
         configuration"
    )]
    Origin,
    /// 400. [MQTT-6.0.0-3]
    #[error(
        "the client has to offer the subprotocol \"mqtt\" (Sec-WebSocket-Protocol: mqtt; in a browser: new \
         WebSocket(url, \"mqtt\"))"
    )]
    Protocol,
}

/// A request that was refused, as it is to be logged. The texts are the client's, at most 16 KiB of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRequest {
    /// Why, in words for those who can change it.
    pub why: Refusal,
    /// What was asked for.
    pub path: String,
    /// Which page it comes from; empty for what is no browser.
    pub origin: String,
}

/// Reads the request and answers it. Has no deadline of its own.
pub(in crate::transport) async fn accept<S>(
    io: S,
    config: &WebSocketConfig,
) -> Result<WebSocket<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let refused = OnceLock::new();
    let service = service_fn(|request| {
        let answer = judge(&request, config);
        // The only one: a refusal ends the connection, and after 101 no request is read.
        let _ = refused.set(answer.as_ref().err().map(|why| RefusedRequest::new(*why, &request)));
        ready(Ok::<_, Infallible>(answer.unwrap_or_else(Refusal::response)))
    });
    let mut http = http1::Builder::new();
    http.max_buf_size(REQUEST_BYTES_MAX).header_read_timeout(None);
    let mut http = http.serve_connection(TokioIo::new(io), service);
    let served = poll_fn(|cx| http.poll_without_shutdown(cx)).await;
    let parts = http.into_parts();
    let mut io = parts.io.into_inner();
    let error = match (served, refused.get()) {
        // A copy: the buffer is of hyper's size, even when nothing is in it.
        (Ok(()), Some(None)) => return Ok(WebSocket::new(io, parts.read_buf.to_vec())),
        (Ok(()), Some(Some(refused))) => HandshakeError::Refused(Box::new(refused.clone())),
        (Ok(()), None) => HandshakeError::NoRequest,
        (Err(error), _) => HandshakeError::Http(error),
    };
    linger(&mut io).await;
    Err(error)
}

fn judge<B>(request: &Request<B>, config: &WebSocketConfig) -> Result<Response<String>, Refusal> {
    if !config.paths.iter().any(|path| path == request.uri().path()) {
        return Err(Refusal::Path);
    }
    let mut response = create_response_with_body(request, String::new).map_err(|error| match error {
        Error::Protocol(ProtocolError::WrongHttpMethod) => Refusal::Method,
        Error::Protocol(ProtocolError::WrongHttpVersion) => Refusal::Version,
        Error::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader | ProtocolError::MissingUpgradeWebSocketHeader,
        ) => Refusal::NoUpgrade,
        Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => Refusal::WebSocketVersion,
        _ => Refusal::Key,
    })?;
    if !origin::is_allowed(request.headers(), &config.origins) {
        return Err(Refusal::Origin);
    }
    let protocol = protocol(request.headers()).ok_or(Refusal::Protocol)?;
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    Ok(response)
}

/// The first of our protocols that the client offers.
fn protocol(headers: &HeaderMap) -> Option<&'static str> {
    PROTOCOLS.into_iter().find(|ours| {
        let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|list| list.to_str().ok());
        lists.flat_map(|list| list.split(',')).any(|offered| offered.trim() == *ours)
    })
}

impl RefusedRequest {
    fn new<B>(why: Refusal, request: &Request<B>) -> Self {
        let origin = request.headers().get(ORIGIN).map(|origin| String::from_utf8_lossy(origin.as_bytes()));
        Self { why, path: request.uri().path().to_owned(), origin: origin.unwrap_or_default().into_owned() }
    }
}

impl Refusal {
    /// What it is answered with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::NoUpgrade | Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::Key | Self::Protocol => StatusCode::BAD_REQUEST,
            Self::Origin => StatusCode::FORBIDDEN,
        }
    }

    fn response(self) -> Response<String> {
        let mut response = Response::new(format!("{self}.\n"));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        match self.status() {
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("GET"));
            }
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade, close"));
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            _ => {}
        }
        response
    }
}
