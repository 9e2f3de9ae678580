//! An HTTP target that answers as it is told, and keeps what it was sent.

use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A request that came whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    pub key: String,
    pub body: String,
}

/// The target. It lives as long as the test process.
pub struct Target {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Target {
    /// `status` answers a request with a status line and a body.
    pub fn start(status: fn(&str) -> (&'static str, &'static str)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let shared = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let requests = Arc::clone(&shared);
                // It ends when its connection does.
                std::thread::spawn(move || drop(serve(&stream, &requests, status)));
            }
        });
        Self { address, requests }
    }

    /// Waits until so many requests have come, and gives them all.
    pub fn wait_for(&self, count: usize) -> Vec<Request> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let requests = self.requests.lock().unwrap().clone();
            if requests.len() >= count {
                return requests;
            }
            assert!(Instant::now() < deadline, "{} of {count} requests came", requests.len());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn serve(
    stream: &TcpStream,
    requests: &Mutex<Vec<Request>>,
    status: fn(&str) -> (&'static str, &'static str),
) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let request = read(&mut reader)?;
        let (line, body) = status(&request.path);
        requests.lock().unwrap().push(request);
        let answer = format!("HTTP/1.1 {line}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        (&*stream).write_all(answer.as_bytes())?;
    }
}

fn read(reader: &mut impl BufRead) -> io::Result<Request> {
    let (mut path, mut key, mut length, mut line) = (String::new(), String::new(), 0, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(rest) = line.strip_prefix("POST ") {
            path = rest.split(' ').next().unwrap().into();
        } else if let Some((name, value)) = line.split_once(':') {
            match name.to_ascii_lowercase().as_str() {
                "idempotency-key" => key = value.trim().into(),
                "content-length" => length = value.trim().parse().unwrap(),
                _ => {}
            }
        } else {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Request { path, key, body: String::from_utf8(body).unwrap() })
}
