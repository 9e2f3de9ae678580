//! A connection as a stream of bytes, whatever carries it.
//!
//! It owns no read buffer: the caller lends one for each read, so that an idle connection costs its socket and
//! what TLS or WebSocket have to remember.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

use super::websocket::{self, RefusedRequest, WebSocket};
use crate::config::WebSocketConfig;

/// How long a connection that is over waits for the other end to see it.
const LINGER: Duration = Duration::from_secs(1);

/// An accepted connection. All but TCP are boxed: a TCP connection does not pay for the state of the others.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
    /// WebSocket over TCP.
    WebSocket(Box<WebSocket<TcpStream>>),
    /// WebSocket over TLS.
    SecureWebSocket(Box<WebSocket<TlsStream<TcpStream>>>),
    /// What a test makes of it.
    #[cfg(test)]
    Simulated(Box<dyn Simulated>),
}

/// A connection that exists in a test only.
#[cfg(test)]
pub trait Simulated: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}

/// What a listener speaks before MQTT.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// For a TLS listener: the settings in force.
    pub tls: Option<Arc<ServerConfig>>,
    /// For a WebSocket listener: which requests it takes.
    pub websocket: Option<Arc<WebSocketConfig>>,
}

/// Why an accepted connection did not become a stream.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The handshake of TLS.
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    /// What came is not HTTP, or is too long, or the connection broke.
    #[error("no HTTP request could be read: {0}")]
    Http(hyper::Error),
    /// The connection has ended before there was a request.
    #[error("the client has left before its HTTP request")]
    NoRequest,
    /// The request was answered with an HTTP status that says no.
    #[error("the WebSocket request was refused: {}", .0.why)]
    Refused(Box<RefusedRequest>),
}

impl HandshakeError {
    /// Whether it is for somebody to mend: a client that cannot agree with us, and not one that has left.
    pub fn is_mismatch(&self) -> bool {
        match self {
            // What rustls does not like of the client, and alerts of a client that does not like our certificate.
            Self::Tls(error) => error.kind() == io::ErrorKind::InvalidData,
            Self::Http(error) => error.is_parse(),
            Self::NoRequest => false,
            Self::Refused(_) => true,
        }
    }
}

/// Why the broker ends a connection, for what carries it to say. TCP and TLS can say no more than that it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The client has said goodbye, or is gone. WebSocket: 1000.
    Done,
    /// The broker stops. WebSocket: 1001.
    GoingAway,
    /// The client may not stay; the reason was for MQTT to tell. WebSocket: 1008.
    Refused,
}

/// Makes a stream of an accepted connection, after the handshakes of its layers. Has no deadline of its own.
pub async fn handshake(tcp: TcpStream, layers: &Layers) -> Result<Stream, HandshakeError> {
    let Some(tls) = &layers.tls else {
        return match &layers.websocket {
            None => Ok(Stream::Tcp(tcp)),
            Some(config) => Ok(Stream::WebSocket(Box::new(websocket::accept(tcp, config).await?))),
        };
    };
    let tls = TlsAcceptor::from(Arc::clone(tls)).accept(tcp).await.map_err(HandshakeError::Tls)?;
    match &layers.websocket {
        None => Ok(Stream::Tls(Box::new(tls))),
        Some(config) => Ok(Stream::SecureWebSocket(Box::new(websocket::accept(tls, config).await?))),
    }
}

/// Does the same to whatever carries the connection.
macro_rules! each {
    ($stream:expr, $io:ident => $do:expr) => {
        match $stream {
            Self::Tcp($io) => $do,
            Self::Tls($io) => $do,
            Self::WebSocket($io) => $do,
            Self::SecureWebSocket($io) => $do,
            #[cfg(test)]
            Self::Simulated($io) => $do,
        }
    };
}

impl Stream {
    /// Reads what is there, at most `buffer.len()` bytes; 0 is the end of the stream. A TLS client that
    /// leaves without saying so gives [`io::ErrorKind::UnexpectedEof`], one that breaks a rule of WebSocket
    /// [`io::ErrorKind::InvalidData`].
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(each!(self, io => Pin::new(io).poll_read(cx, &mut buffer)))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes as much as the connection takes now, from all slices in one system call, TLS write or frame.
    /// After the last write [`poll_flush`](Self::poll_flush) has to be driven to its end. What was not taken
    /// has to come first in the next write: a frame may have been begun for it.
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write_vectored(cx, slices))
    }

    /// Sends what TLS and WebSocket still hold; plain TCP holds nothing.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    /// Says that nothing more will be written, after everything written has been sent. May wait for a
    /// client that does not read: give it a deadline.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| each!(self, io => Pin::new(io).poll_shutdown(cx))).await
    }

    /// Ends the connection so that the other end gets what was written last, and is told that there is no
    /// more. Takes a second at most.
    pub async fn close(&mut self, farewell: Farewell) {
        match self {
            Self::WebSocket(io) => io.set_farewell(farewell),
            Self::SecureWebSocket(io) => io.set_farewell(farewell),
            Self::Tcp(_) | Self::Tls(_) => {}
            #[cfg(test)]
            Self::Simulated(_) => {}
        }
        each!(self, io => linger(io).await);
    }

    /// Ends a connection whose client has left or was never let in: as [`close`](Self::close) where TLS or
    /// WebSocket have something to say. Plain TCP just ends.
    pub async fn leave(&mut self, farewell: Farewell) {
        if !self.is_plain() {
            self.close(farewell).await;
        }
    }

    /// Whether it is TCP and nothing else: what is written is not held back, and the end needs no words.
    pub fn is_plain(&self) -> bool {
        #[cfg(test)]
        if matches!(self, Self::Simulated(_)) {
            return true;
        }
        matches!(self, Self::Tcp(_))
    }
}

/// Says that there is no more, and throws away what the other end still sends until it ends its side too, or
/// `LINGER` is over. With unread bytes a socket is reset, and a reset takes back what the other end has not
/// read yet.
pub(super) async fn linger(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let goodbye = async {
        io.shutdown().await?;
        let mut unread = [0; 1024];
        while io.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // Late or broken: either way the socket goes.
    let _ = timeout(LINGER, goodbye).await;
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        (client, handshake(accepted, &Layers::default()).await.unwrap())
    }

    #[test]
    fn is_small() {
        assert!(size_of::<Stream>() <= 40, "{}", size_of::<Stream>());
    }

    #[tokio::test]
    async fn writes_several_slices_and_reads_into_a_lent_buffer() {
        let (mut client, mut stream) = pair().await;
        assert!(stream.is_plain());

        let slices = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")];
        assert_eq!(poll_fn(|cx| stream.poll_write_vectored(cx, &slices)).await.unwrap(), 7);
        poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
        let mut received = [0; 7];
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"one two");

        client.write_all(b"hello").await.unwrap();
        let mut lent = [0; 3];
        assert_eq!(poll_fn(|cx| stream.poll_read(cx, &mut lent)).await.unwrap(), 3);
        assert_eq!(&lent, b"hel");
        assert_eq!(poll_fn(|cx| stream.poll_read(cx, &mut lent)).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn both_ends_see_the_end() {
        let (mut client, mut stream) = pair().await;
        stream.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        drop(client);
        assert_eq!(poll_fn(|cx| stream.poll_read(cx, &mut [0; 8])).await.unwrap(), 0);
    }
}
