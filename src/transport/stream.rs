//! A connection as a stream of bytes, whatever carries it.
//!
//! It owns no read buffer: the caller lends one for each read, so that an idle TCP connection costs its
//! socket and nothing else.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

/// How long a connection that is over waits for the other end to see it.
const LINGER: Duration = Duration::from_secs(1);

/// An accepted connection.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS over TCP; boxed, because its state is a kilobyte.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Makes a stream of an accepted connection; with `tls` after the handshake. Has no deadline of its own.
pub async fn handshake(tcp: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Stream> {
    match tls {
        None => Ok(Stream::Tcp(tcp)),
        Some(config) => Ok(Stream::Tls(Box::new(TlsAcceptor::from(config).accept(tcp).await?))),
    }
}

impl Stream {
    /// Reads what is there, at most `buffer.len()` bytes; 0 is the end of the stream. A TLS client that
    /// leaves without saying so gives [`io::ErrorKind::UnexpectedEof`].
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, &mut buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, &mut buffer),
        })?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes as much as the connection takes now, from all slices in one system call or TLS write. After
    /// the last write [`poll_flush`](Self::poll_flush) has to be driven to its end.
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
        }
    }

    /// Sends what TLS still holds; plain TCP holds nothing.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    /// Says that nothing more will be written, after everything written has been sent. May wait for a
    /// client that does not read: give it a deadline.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        })
        .await
    }

    /// Ends the connection so that the other end gets what was written last: it is told that there is no
    /// more, and what it still sends is thrown away until it ends its side too, or `LINGER` is over. With
    /// unread bytes a socket is reset, and a reset takes back what the other end has not read yet.
    pub async fn close(&mut self) {
        let goodbye = async {
            self.shutdown().await?;
            let mut unread = [0; 1024];
            while poll_fn(|cx| self.poll_read(cx, &mut unread)).await? > 0 {}
            io::Result::Ok(())
        };
        // Late or broken: either way the socket goes.
        let _ = timeout(LINGER, goodbye).await;
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
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
        (client, handshake(accepted, None).await.unwrap())
    }

    #[test]
    fn is_small() {
        assert!(size_of::<Stream>() <= 40, "{}", size_of::<Stream>());
    }

    #[tokio::test]
    async fn writes_several_slices_and_reads_into_a_lent_buffer() {
        let (mut client, mut stream) = pair().await;
        assert!(!stream.is_tls());

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
