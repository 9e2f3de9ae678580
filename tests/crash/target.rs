//! An HTTP target that writes down what it was sent, refuses now and then, and now and then just hangs up.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// A request that came whole.
#[derive(Clone, Debug)]
pub struct Request {
    pub key: String,
    pub body: String,
    /// It was answered with 200.
    pub taken: bool,
}

/// The target. It lives as long as the test process.
pub struct HttpTarget {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl HttpTarget {
    pub fn start(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let shared = Arc::clone(&requests);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let (requests, rng) = (Arc::clone(&shared), StdRng::seed_from_u64(seed + number as u64));
                // It ends when its connection does.
                std::thread::spawn(move || drop(serve(&stream, &requests, rng)));
            }
        });
        Self { address, requests }
    }

    /// The configuration of a route to it.
    pub fn route(&self, filter: &str) -> String {
        let url = format!("http://{}/in", self.address);
        format!(
            "[targets.recorder]\nurl = \"{url}\"\n\
             [targets.recorder.retry]\nattempts = 1000\ninitial = \"5ms\"\nmax = \"20ms\"\n\
             [targets.recorder.breaker]\nfailures = 5\nprobe_interval = \"10ms\"\nprobe_interval_max = \"20ms\"\n\
             [[routes]]\nname = \"recorded\"\ntopics = [\"{filter}\"]\ntarget = \"recorder\"\n"
        )
    }

    /// Strikes out what it has taken.
    pub fn strike(&self, missing: &mut HashSet<&str>) {
        for request in self.requests.lock().unwrap().iter().filter(|request| request.taken) {
            missing.remove(request.body.as_str());
        }
    }

    /// Takes what came.
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn serve(stream: &TcpStream, requests: &Mutex<Vec<Request>>, mut rng: StdRng) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let (key, body) = read(&mut reader)?;
        let luck = rng.random_range(0..100);
        requests.lock().unwrap().push(Request { key, body, taken: luck >= 5 });
        let status = match luck {
            0..2 => return Ok(()),
            2..5 => "503 Service Unavailable",
            _ => "200 OK",
        };
        (&*stream).write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
    }
}

/// Idempotency key and body of the next request.
pub fn read(reader: &mut impl BufRead) -> io::Result<(String, String)> {
    let (mut key, mut length, mut line) = (String::new(), 0, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.split_once(':') else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "idempotency-key" => key = value.trim().into(),
            "content-length" => length = value.trim().parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((key, String::from_utf8(body).unwrap()))
}
