//! An HTTP target that goes wrong on purpose, at the socket: it hangs, resets, lies, floods, or speaks something else.
//!
//! It reads requests by hand and answers with bytes, so that it can stop anywhere. What is wrong can be changed while
//! it runs; requests that hang then go on hanging, as they would at a target that is restarted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Where in its answer something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The connection is there and nothing is read of it.
    Connection,
    /// The request is read and nothing is answered.
    Answer,
    /// The status is said, and not all headers are.
    Headers,
    /// The headers are said, and not all of the body is.
    Body,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: 200.
    None,
    /// This status.
    Status(u16),
    /// Exactly these bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// Nothing more comes.
    Hang(At),
    /// The connection is reset.
    Reset(At),
    /// The connection ends.
    End(At),
    /// A byte now and then, forever, from here on.
    Drip(At),
    /// This beginning, and then as many bytes as are taken.
    Flood(Vec<u8>),
}

/// A target with a fault.
pub struct Faulty {
    pub address: SocketAddr,
    fault: watch::Sender<Fault>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    bodies: Mutex<Vec<String>>,
    /// Floods that ended because nobody took any more.
    floods_ended: AtomicUsize,
}

impl Faulty {
    pub async fn new(fault: Fault) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), None, fault)
    }

    /// One that shows a certificate for 127.0.0.1 by an authority of its own, which it gives as PEM.
    pub async fn with_tls(fault: Fault) -> (Self, String) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        (Self::serve(listener, Some(acceptor), fault), authority.pem())
    }

    fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, fault: Fault) -> Self {
        let address = listener.local_addr().unwrap();
        let (fault, receiver) = watch::channel(fault);
        let shared = Arc::<Shared>::default();
        let task = tokio::spawn(accept(listener, tls, receiver, Arc::clone(&shared)));
        Self { address, fault, shared, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}/in", self.address)
    }

    /// From the next request on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Requests that were read.
    pub fn count(&self) -> usize {
        self.shared.bodies.lock().len()
    }

    /// Their bodies.
    pub fn bodies(&self) -> Vec<String> {
        self.shared.bodies.lock().clone()
    }

    pub fn floods_ended(&self) -> usize {
        self.shared.floods_ended.load(Ordering::SeqCst)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A port at which connections are neither made nor refused, because nobody accepts those there are.
pub struct Unaccepted {
    listener: TcpListener,
    _waiting: Vec<std::net::TcpStream>,
}

impl Unaccepted {
    pub async fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = move || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
        // One that takes long may only have been unlucky.
        let fill = move || std::iter::from_fn(|| connect().or_else(connect)).take(64).collect::<Vec<_>>();
        let waiting = tokio::task::spawn_blocking(fill).await.unwrap();
        assert!(waiting.len() < 64, "it accepts without end");
        Self { listener, _waiting: waiting }
    }

    pub fn url(&self) -> String {
        format!("http://{}/in", self.listener.local_addr().unwrap())
    }

    /// Accepts from now on, and does nothing wrong.
    pub fn accept(self) -> Faulty {
        Faulty::serve(self.listener, None, Fault::None)
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    fault: watch::Receiver<Fault>,
    shared: Arc<Shared>,
) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let (tls, fault, shared) = (tls.clone(), fault.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let at_once = fault.borrow().clone();
            match at_once {
                Fault::Hang(At::Connection) => std::future::pending().await,
                Fault::Reset(At::Connection) => reset(socket),
                Fault::End(At::Connection) => drop(socket),
                _ => match tls {
                    None => drop(requests(socket, fault, &shared).await),
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(socket).await {
                            let _ = requests(stream, fault, &shared).await;
                        }
                    }
                },
            }
        });
    }
}

fn reset(socket: TcpStream) {
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

/// What can be reset.
trait Stream: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Stream for tokio_rustls::server::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Reads requests and answers each as the fault says, until one ends the connection.
async fn requests(stream: impl Stream, fault: watch::Receiver<Fault>, shared: &Shared) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let body = read_request(&mut stream).await?;
        shared.bodies.lock().push(body);
        let fault = fault.borrow().clone();
        answer(stream.get_mut(), fault, shared).await?;
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

async fn answer(stream: &mut impl Stream, fault: Fault, shared: &Shared) -> io::Result<()> {
    let ended = || Err(io::ErrorKind::ConnectionAborted.into());
    match fault {
        Fault::None => stream.write_all(&with_status(200)).await,
        Fault::Status(status) => stream.write_all(&with_status(status)).await,
        Fault::Bytes(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
            ended()
        }
        Fault::Hang(at) => {
            stream.write_all(until(at)).await?;
            // Until the client has gone.
            while stream.read(&mut [0; 1024]).await? > 0 {}
            ended()
        }
        Fault::End(at) => {
            stream.write_all(until(at)).await?;
            stream.shutdown().await?;
            ended()
        }
        Fault::Reset(at) => {
            stream.write_all(until(at)).await?;
            stream.flush().await?;
            SockRef::from(stream.tcp()).set_linger(Some(Duration::ZERO))?;
            ended()
        }
        Fault::Drip(at) => {
            stream.write_all(until(at)).await?;
            loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Fault::Flood(start) => {
            stream.write_all(&start).await?;
            while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
            shared.floods_ended.fetch_add(1, Ordering::SeqCst);
            ended()
        }
    }
}

/// The beginning of an answer with 200, up to there.
fn until(at: At) -> &'static [u8] {
    match at {
        At::Connection | At::Answer => b"",
        At::Headers => b"HTTP/1.1 200 OK\r\nx-name: va",
        At::Body => b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\npart",
    }
}

fn with_status(status: u16) -> Vec<u8> {
    let length = if matches!(status, 100..=199 | 204 | 304) { "" } else { "content-length: 0\r\n" };
    format!("HTTP/1.1 {status} Whatever\r\n{length}\r\n").into_bytes()
}
