//! The real binary, as a person and as an init system meet it: flags, exit codes, files, signals, messages.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A plain listener on a free port and nothing else.
const PLAIN: &str = "[[listeners]]\naddress = \"127.0.0.1:0\"\n[admin]\nenabled = false\n";

/// CONNECT of an MQTT 5.0 client with Clean Start, without user and password.
const CONNECT: &[u8] = b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02me";
const CONNACK: u8 = 0x20;

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn version_and_help_name_what_there_is() {
    let folder = TempDir::new().unwrap();
    let version = run(folder.path(), &["--version"]);
    assert_eq!(stdout(&version), format!("causeway {}\n", env!("CARGO_PKG_VERSION")));
    let help = run(folder.path(), &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for command in [
        "serve",
        "check",
        "passwd",
        "acl",
        "bench",
        "sessions",
        "routes",
        "explain",
        "reload",
        "dead-letters",
        "store",
        "demo-target",
    ] {
        assert!(stdout(&help).contains(&format!("\n  {command} ")), "{command} is not in\n{}", stdout(&help));
        let own = run(folder.path(), &[command, "--help"]);
        assert_eq!(own.status.code(), Some(0), "{command} --help");
    }
    for flag in ["--config", "--data", "--listen"] {
        assert!(stdout(&help).contains(flag), "{flag}");
    }
}

#[test]
fn an_unknown_flag_is_refused_and_nothing_is_made() {
    let folder = TempDir::new().unwrap();
    let output = run(folder.path(), &["--nonsense"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--nonsense"), "{}", stderr(&output));
    assert!(is_empty(folder.path()));
}

#[test]
fn check_tells_good_from_bad() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("good.toml"), PLAIN).unwrap();
    let good = run(folder.path(), &["check", "--config", "good.toml"]);
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    assert!(stdout(&good).starts_with("good.toml: ok"));

    fs::write(folder.path().join("bad.toml"), "[store]\npath = \"d\"\ncache_sise = \"1 MiB\"\n").unwrap();
    let bad = run(folder.path(), &["check", "--config", "bad.toml"]);
    assert_eq!(bad.status.code(), Some(2));
    let said = stderr(&bad);
    assert!(said.starts_with("bad.toml:3:1: unknown key \"cache_sise\""), "{said}");
    assert!(said.contains("did you mean \"cache_size\"?"), "{said}");
    let refused = run(folder.path(), &["serve", "--config", "bad.toml"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(!folder.path().join("d").exists(), "a refused configuration leaves no trace");
}

#[test]
fn the_documented_configurations_are_good() {
    let folder = TempDir::new().unwrap();
    for name in ["causeway.toml", "http-routes.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
        let output = run(folder.path(), &["check", "--config", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
    }
}

#[test]
fn no_plain_listener_needs_one_with_tls() {
    let folder = configured(PLAIN);
    let output = run(folder.path(), &["--config", "c.toml", "--listen", "none"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("needs a TLS listener"), "{}", stderr(&output));
}

#[test]
fn anonymous_default() {
    let folder = configured(PLAIN);
    // Nothing said: clients of this machine, without a user name.
    let broker = Broker::start(folder.path(), &["--config", "c.toml"]);
    let mut client = broker.connect().unwrap();
    client.write_all(CONNECT).unwrap();
    assert_eq!(packet(&mut client)[3], 0);
    drop(broker);
    fs::write(folder.path().join("empty.toml"), "").unwrap();
    let checked = stdout(&run(folder.path(), &["check", "--config", "empty.toml"]));
    assert!(checked.contains("127.0.0.1:1883") && !checked.contains("0.0.0.0"), "{checked}");
    // An address for others needs a word about who may come in.
    let output = run(folder.path(), &["--config", "c.toml", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("anonymous = true"), "{}", stderr(&output));
}

/// The exit code and what was said by a broker that does not start with this ACL or password file.
fn refused_start(key: &str, text: Option<&str>) -> String {
    let folder = configured(&format!("{PLAIN}[auth]\n{key} = \"rules\"\n"));
    if let Some(text) = text {
        fs::write(folder.path().join("rules"), text).unwrap();
    }
    let checked = run(folder.path(), &["check", "--config", "c.toml"]);
    assert_eq!(checked.status.code(), Some(2), "check knows what a start refuses");
    let output = run(folder.path(), &["--config", "c.toml"]);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}", output.status);
    assert!(!folder.path().join("data").exists(), "nothing was begun");
    stderr(&output)
}

/// Starts with good rules, puts others in their place and sends SIGHUP. Gives what the log says, and the codes of
/// a client that subscribes to `a` and `b`: the good rules allow `a`.
fn after_reload(text: Option<&str>) -> (String, Vec<u8>) {
    let folder = configured(&format!("{PLAIN}[auth]\nacl_file = \"rules\"\n"));
    let rules = folder.path().join("rules");
    fs::write(&rules, "topic read a\n").unwrap();
    let mut broker = Broker::start(folder.path(), &["--config", "c.toml"]);
    match text {
        Some(text) => fs::write(&rules, text).unwrap(),
        None => fs::remove_file(&rules).unwrap(),
    }
    broker.signal("-HUP");
    let mut said = String::new();
    let mut log = BufReader::new(broker.child.stderr.take().unwrap());
    while !said.contains("passwords and ACL") {
        assert!(log.read_line(&mut said).unwrap() > 0, "{said}");
    }
    let mut client = broker.connect().unwrap();
    client.write_all(CONNECT).unwrap();
    assert_eq!(packet(&mut client)[3], 0);
    client.write_all(b"\x82\x0b\x00\x01\x00\x00\x01a\x00\x00\x01b\x00").unwrap();
    (said, packet(&mut client)[5..].to_vec())
}

#[test]
fn acl_missing() {
    let said = refused_start("acl_file", None);
    assert!(said.contains("rules") && said.contains("No such file"), "{said}");
    let (said, codes) = after_reload(None);
    assert!(said.contains("stay as they were") && said.contains("rules"), "{said}");
    assert_eq!(codes, [0, 0x87]);
}

#[test]
fn acl_syntax_error() {
    let wrong = "topic read a\ntopic read b\ntopik read c\n";
    assert!(refused_start("acl_file", Some(wrong)).contains("rules:3"));
    let (said, codes) = after_reload(Some(wrong));
    assert!(said.contains("stay as they were") && said.contains("rules:3"), "{said}");
    assert_eq!(codes, [0, 0x87]);
}

#[test]
fn acl_empty_file() {
    // An empty file allows nothing; it is not taken for none.
    let (said, codes) = after_reload(Some(""));
    assert!(said.contains("were read again"), "{said}");
    assert_eq!(codes, [0x87, 0x87]);
    let (_, codes) = after_reload(Some("# topic read a\n\n"));
    assert_eq!(codes, [0x87, 0x87]);
}

#[test]
fn passwd_blank_line() {
    for without_hash in ["\nada:\n", "\nada\n", "\n:\n"] {
        let said = refused_start("password_file", Some(without_hash));
        assert!(said.contains("rules:2"), "{said}");
    }
    // Blank lines are no users: neither one without a name nor one without a password.
    let folder = configured(&format!("{PLAIN}[auth]\npassword_file = \"rules\"\n"));
    fs::write(folder.path().join("rules"), "\n \n\r\n# nobody\n").unwrap();
    let broker = Broker::start(folder.path(), &["--config", "c.toml"]);
    let nameless: [&[u8]; 3] = [
        CONNECT,
        b"\x10\x10\x00\x04MQTT\x05\x82\x00\x00\x00\x00\x01x\x00\x00",
        b"\x10\x12\x00\x04MQTT\x05\xc2\x00\x00\x00\x00\x01x\x00\x00\x00\x00",
    ];
    for connect in nameless {
        let mut client = broker.connect().unwrap();
        client.write_all(connect).unwrap();
        let connack = packet(&mut client);
        assert!(matches!(connack[3], 0x86 | 0x87), "{connack:x?}");
    }
}

#[test]
fn a_scram_verifier_is_written_and_read() {
    let folder = configured(&format!("{PLAIN}[auth]\npassword_file = \"passwords\"\n"));
    let path = folder.path();
    let passwd = |args: &[&str], password: &str| {
        let args = [&["passwd", "passwords", "me", "--stdin"], args].concat();
        let mut passwd = command(path, &args).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Who does not like its arguments does not read.
        let _ = writeln!(passwd.stdin.take().unwrap(), "{password}");
        passwd.wait_with_output().unwrap().status.code()
    };
    assert_eq!(passwd(&["--scram", "--iterations", "4095"], "harbour"), Some(2));
    assert_eq!(passwd(&["--iterations", "4096"], "harbour"), Some(2), "only verifiers have iterations");
    assert_eq!(passwd(&["--scram"], "bell\u{7}"), Some(1), "no client could send it");
    assert!(!path.join("passwords").exists());
    assert_eq!(passwd(&["--scram", "--iterations", "4096"], "harbour"), Some(0));
    let line = fs::read_to_string(path.join("passwords")).unwrap();
    assert!(line.starts_with("me:$scram-sha-256$i=4096$") && !line.contains("harbour"), "{line}");
    let broker = Broker::start(path, &["--config", "c.toml"]);
    let mut client = broker.connect().unwrap();
    client.write_all(b"\x10\x1b\x00\x04MQTT\x05\xc2\x00\x00\x00\x00\x01x\x00\x02me\x00\x07harbour").unwrap();
    assert_eq!(packet(&mut client)[3], 0);
}

#[test]
fn the_log_says_who_came_to_the_wrong_door() {
    let websocket = "[[listeners]]\naddress = \"127.0.0.1:0\"\nwebsocket = {}\n";
    let folder = configured(&format!("{PLAIN}{websocket}[auth]\npassword_file = \"users\"\n"));
    let users = folder.path().join("users");
    fs::write(&users, "# nobody\n").unwrap();
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).unwrap();
    let mut broker = Broker::start(folder.path(), &["--config", "c.toml"]);
    let mut log = BufReader::new(broker.child.stderr.take().unwrap());
    let (_, address) = broker.banner.split_once("ws://").unwrap();
    let websocket = address.split('/').next().unwrap().to_owned();
    let mqtt = broker.connect().unwrap().peer_addr().unwrap().to_string();
    let page = b"GET /mqtt HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Protocol: mqtt\r\nOrigin: https://a.example\r\n\r\n";
    let text_frame =
        [page.strip_suffix(b"Origin: https://a.example\r\n\r\n").unwrap(), b"\r\n\x81\x80\0\0\0\0"].concat();
    let doors: [(&str, &[u8], &[&str]); 6] = [
        (&mqtt, b"\x16\x03\x01\x02\x00\x01", &["the client speaks TLS"]),
        (&mqtt, b"GET / HTTP/1.1\r\n\r\n", &["the client speaks HTTP"]),
        (&mqtt, b"\x10\x11\x00\x04MQTT\x05\x82\x00\x00\x00\x00\x01x\x00\x01u", &["client_id=x user=u"]),
        (&websocket, page, &["status=403", "path=/mqtt", "origin=https://a.example", "\"origins\""]),
        (&websocket, &text_frame, &["a rule of TLS or WebSocket was broken", "this is a text frame"]),
        (&websocket, CONNECT, &["handshake failed", "no HTTP request could be read"]),
    ];
    for (address, bytes, said) in doors {
        // It stays until it was looked at: one that has left already is nothing to log.
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(bytes).unwrap();
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        assert!(said.iter().all(|said| line.contains(said)), "{line}");
    }
}

#[test]
fn an_address_in_use_is_named() {
    let folder = configured(PLAIN);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(folder.path(), &["--config", "c.toml", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("{address} is in use")), "{}", stderr(&output));
}

#[test]
fn a_second_broker_on_the_same_data_is_refused() {
    let folder = configured(PLAIN);
    let first = Broker::start(folder.path(), &["--config", "c.toml"]);
    let second = run(folder.path(), &["--config", "c.toml"]);
    assert_eq!(second.status.code(), Some(1));
    let said = stderr(&second);
    assert!(said.contains("is in use by another process") && said.contains("--data DIR"), "{said}");
    assert!(first.connect().is_ok(), "the first broker is not disturbed");
}

#[test]
fn sigterm_says_goodbye_and_ends_with_0() {
    let folder = configured(PLAIN);
    let broker = Broker::start(folder.path(), &["--config", "c.toml"]);
    let mut client = broker.connect().unwrap();
    client.write_all(CONNECT).unwrap();
    assert_eq!(packet(&mut client)[0], CONNACK);
    let told = Instant::now();
    let output = broker.terminate();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(told.elapsed() < Duration::from_secs(10), "limits.shutdown_timeout is 10 s");
    // DISCONNECT with Server shutting down.
    let goodbye = packet(&mut client);
    assert!(matches!(goodbye[..], [0xe0, _, 0x8b, ..]), "{goodbye:x?}");
}

#[test]
fn sigterm_says_goodbye_over_websocket_too() {
    let folder = configured(&format!("{PLAIN}[[listeners]]\naddress = \"127.0.0.1:0\"\nwebsocket = {{}}\n"));
    let broker = Broker::start(folder.path(), &["--config", "c.toml"]);
    let (_, address) = broker.banner.split_once("ws://").unwrap();
    let mut client = TcpStream::connect(address.split('/').next().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    // A mask of zeros changes nothing.
    let head = [0x82, 0x80 | CONNECT.len() as u8, 0, 0, 0, 0];
    client.write_all(&[request.as_bytes(), &head, CONNECT].concat()).unwrap();
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        received.extend(byte);
    }
    // A frame of less than 126 bytes has the head of an MQTT packet.
    assert_eq!(packet(&mut client)[2], CONNACK);
    assert_eq!(broker.terminate().status.code(), Some(0));
    client.read_to_end(&mut received).unwrap();
    // DISCONNECT with Server shutting down, and a Close frame with 1001.
    assert!(received.ends_with(&[0x82, 3, 0xe0, 1, 0x8b, 0x88, 2, 0x03, 0xe9]), "{received:x?}");
}

#[test]
fn it_listens_within_two_seconds_in_the_foreground_and_stays_after_sighup() {
    // Of three starts, for a machine that is busy with other things.
    let starts_in_time = |_| {
        let folder = configured(PLAIN);
        let since = Instant::now();
        let broker = Broker::start(folder.path(), &["--config", "c.toml"]);
        let mut client = broker.connect().unwrap();
        let in_time = since.elapsed() < Duration::from_secs(2);
        let sent = Command::new("kill").args(["-HUP", &broker.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        client.write_all(CONNECT).unwrap();
        assert_eq!(packet(&mut client)[0], CONNACK);
        // The process that was started is the one that listens.
        assert_eq!(broker.terminate().status.code(), Some(0));
        in_time
    };
    assert!((0..3).any(starts_in_time));
}

#[test]
fn a_client_that_says_nothing_does_not_hold_up_the_end() {
    let folder = configured(&format!("{PLAIN}[limits]\nshutdown_timeout = \"1s\"\n"));
    let broker = Broker::start(folder.path(), &["--config", "c.toml"]);
    let _silent = broker.connect().unwrap();
    let told = Instant::now();
    assert_eq!(broker.terminate().status.code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(8), "it took {:?}", told.elapsed());
}

#[test]
fn data_and_keys_are_for_their_owner_alone() {
    let tls = "[[listeners]]\naddress = \"127.0.0.1:0\"\n[listeners.tls]\n";
    let files = "certificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\n";
    let folder = configured(&format!("{tls}{files}{PLAIN}"));
    let broker = Broker::start(folder.path(), &["--config", "c.toml"]);
    assert_eq!(mode(&folder.path().join("data")), 0o700);
    assert_eq!(mode(&folder.path().join("data/causeway.redb")), 0o600);
    for key in ["certs/server.key", "certs/ca.key"] {
        assert_eq!(mode(&folder.path().join(key)), 0o600, "{key}");
    }
    drop(broker);
}

#[test]
fn whoever_says_that_it_listens_can_be_told_to_stop() {
    let folder = configured(PLAIN);
    let broker = Broker::start(folder.path(), &["--config", "c.toml"]);
    // At once: a signal that nobody handles yet would end the process without its shutdown.
    let output = broker.terminate();
    assert_eq!(output.status.code(), Some(0), "{:?}", output.status);
}

#[test]
fn secrets_are_not_logged() {
    const PASSWORD: &str = "correct-horse-battery";
    const TOKEN: &str = "Bearer-of-bad-news";
    let target = "[targets.t]\nurl = \"http://user:in-the-url@127.0.0.1:9/\"\n";
    let folder = configured(&format!(
        "{PLAIN}[auth]\npassword_file = \"passwords\"\n[log]\nlevel = \"trace\"\n\
         [targets.t]\nurl = \"http://127.0.0.1:9/\"\nheaders = {{ authorization = \"${{env:CAUSEWAY_TEST_TOKEN}}\" }}\n\
         [[routes]]\nname = \"r\"\ntopics = [\"#\"]\ntarget = \"t\"\n"
    ));
    let path = folder.path();
    let mut passwd =
        command(path, &["passwd", "passwords", "me", "--stdin"]).stdin(Stdio::piped()).spawn().unwrap();
    writeln!(passwd.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    assert!(passwd.wait().unwrap().success());
    assert_eq!(mode(&path.join("passwords")), 0o600);

    let mut serve = command(path, &["--config", "c.toml"]);
    let broker = Broker::spawn(serve.env("CAUSEWAY_TEST_TOKEN", TOKEN));
    for password in [PASSWORD, "wrong-horse"] {
        let mut client = broker.connect().unwrap();
        let mut body = b"\x00\x04MQTT\x05\xc2\x00\x3c\x00\x00\x02me\x00\x02me\x00".to_vec();
        body.push(password.len() as u8);
        body.extend_from_slice(password.as_bytes());
        client.write_all(&[&[0x10, body.len() as u8][..], &body].concat()).unwrap();
        let connack = packet(&mut client);
        assert_eq!((connack[0], connack[3] == 0), (CONNACK, password == PASSWORD), "{connack:x?}");
        // A QoS 0 message for the route, so that the header with the token is used.
        client.write_all(b"\x30\x05\x00\x01a\x00x").ok();
    }
    // A SCRAM exchange that fails: CONNECT with the first message, and a proof that proves nothing.
    let mut client = broker.connect().unwrap();
    let first = b"\x15\x00\x0dSCRAM-SHA-256\x16\x00\x0cn,,n=me,r=xy";
    let connect = [b"\x00\x04MQTT\x05\x02\x00\x00\x1f", &first[..], b"\x00\x01s"].concat();
    client.write_all(&[&[0x10, connect.len() as u8][..], &connect].concat()).unwrap();
    let challenge = packet(&mut client);
    assert_eq!(challenge[0], 0xF0, "{challenge:x?}");
    let proof = "cHJvb2Ygb2Ygbm90aGluZyB3aGF0c29ldmVyIGF0IGE=";
    let last = format!("c=biws,r={},p={proof}", nonce(&challenge));
    let data = [b"\x15\x00\x0dSCRAM-SHA-256\x16\x00", &[last.len() as u8][..], last.as_bytes()].concat();
    let auth = [&[0xF0, data.len() as u8 + 2, 0x18, data.len() as u8][..], &data].concat();
    client.write_all(&auth).unwrap();
    assert_eq!(packet(&mut client)[3], 0x87);

    let ended = broker.terminate();
    let said = format!("{}{}", stdout(&ended), stderr(&ended));
    assert!(said.contains("the password is wrong"), "{said}");
    for secret in [PASSWORD, "wrong-horse", TOKEN, "$argon2", proof] {
        assert!(!said.contains(secret), "{secret} is in the log:\n{said}");
    }

    // A password in the URL is a mistake, and the message about it does not repeat it.
    fs::write(path.join("url.toml"), format!("{PLAIN}{target}")).unwrap();
    let checked = run(path, &["check", "--config", "url.toml"]);
    let said = format!("{}{}", stdout(&checked), stderr(&checked));
    assert!(!said.contains("in-the-url"), "{said}");
}

/// A broker that runs; it is killed with the test.
struct Broker {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    banner: String,
    address: String,
}

impl Broker {
    fn start(folder: &Path, args: &[&str]) -> Self {
        Self::spawn(&mut command(folder, args))
    }

    /// Reads its banner up to the last line: then it listens.
    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (mut banner, mut address) = (String::new(), None);
        loop {
            let mut line = String::new();
            if stdout.read_line(&mut line).unwrap() == 0 {
                let output = child.wait_with_output().unwrap();
                panic!("the broker did not start:\n{banner}{}", stderr(&output));
            }
            banner.push_str(&line);
            let mut words = line.split_whitespace();
            if words.next() == Some("MQTT") {
                address = words.next().map(str::to_owned).filter(|word| word.contains(':')).or(address);
            }
            if line.contains("mosquitto_pub") {
                break;
            }
        }
        let address = address.unwrap_or_else(|| panic!("no address in\n{banner}"));
        Self { child, stdout, banner, address }
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Sends SIGTERM and waits for the end.
    fn terminate(mut self) -> Output {
        self.signal("-TERM");
        let (mut out, mut err) = (std::mem::take(&mut self.banner).into_bytes(), Vec::new());
        self.stdout.read_to_end(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_end(&mut err).unwrap();
        Output { status: self.child.wait().unwrap(), stdout: out, stderr: err }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    command.current_dir(folder).args(args).env_remove("RUST_LOG");
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

fn configured(config: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("c.toml"), config).unwrap();
    folder
}

/// One packet of at most 127 bytes.
fn packet(stream: &mut TcpStream) -> Vec<u8> {
    let mut packet = vec![0; 2];
    stream.read_exact(&mut packet).unwrap();
    packet.resize(2 + usize::from(packet[1]), 0);
    stream.read_exact(&mut packet[2..]).unwrap();
    packet
}

/// The nonce in a challenge of SCRAM.
fn nonce(challenge: &[u8]) -> String {
    let text = String::from_utf8_lossy(challenge);
    text.split("r=").nth(1).unwrap().split(',').next().unwrap().to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
