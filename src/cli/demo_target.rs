//! `causeway demo-target`: a small HTTP target to try the bridge against. It can fail for a while and
//! can refuse single messages, and prints what it gets.
//!
//! For demonstrations and tests: it keeps nothing, so its 200 promises nothing.

use std::{
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    routing::any,
};
use http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;

use crate::bridge::excerpt;

/// The largest message that MQTT allows.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Characters of a header or a body that fit on a line.
const SHOWN_LEN_MAX: usize = 100;

/// A small HTTP target to try the bridge against; it fails and rejects as told, and prints what it gets
#[derive(Clone, Debug, clap::Args)]
pub struct DemoTargetArgs {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Answer the first N requests with the status of --status.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub fail: u64,
    /// The status of the failures.
    #[arg(long, value_name = "STATUS", default_value = "503")]
    pub status: StatusCode,
    /// Answer every K-th request with 422, which no retry can change.
    #[arg(long, value_name = "K")]
    pub reject_every: Option<std::num::NonZeroU64>,
    /// The body of each answer, for routes that reply.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub answer: String,
}

/// Runs the target until Ctrl-C.
pub fn run(args: DemoTargetArgs) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("causeway demo-target: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: DemoTargetArgs) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let bound = TcpListener::bind(args.listen).await;
        let listener = bound.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {}: {error}", args.listen))
        })?;
        println!("Listening on http://{}/; stop with Ctrl-C.", listener.local_addr()?);
        let stopped = async {
            if tokio::signal::ctrl_c().await.is_err() {
                // Nothing catches the signal, so it ends the process by itself.
                std::future::pending::<()>().await;
            }
        };
        axum::serve(listener, router(args)).with_graceful_shutdown(stopped).await
    })
}

#[derive(Debug)]
struct Target {
    args: DemoTargetArgs,
    requests: AtomicU64,
}

fn router(args: DemoTargetArgs) -> Router {
    Router::new()
        .fallback(any(answer))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(Target { args, requests: AtomicU64::new(0) }))
}

async fn answer(State(target): State<Arc<Target>>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let number = target.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let status = target.args.status_of(number);
    // A reader that went away (`| head`) must not end the target.
    let _ = writeln!(io::stdout(), "{:.3} {}", jiff::Timestamp::now(), line(status, &headers, &body));
    (status, target.args.answer.clone())
}

impl DemoTargetArgs {
    /// The status for the request with this number, counted from 1.
    fn status_of(&self, number: u64) -> StatusCode {
        if number <= self.fail {
            self.status
        } else if self.reject_every.is_some_and(|every| number.is_multiple_of(every.get())) {
            StatusCode::UNPROCESSABLE_ENTITY
        } else {
            StatusCode::OK
        }
    }
}

/// What is printed of a request, after the time.
fn line(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> String {
    let shown = |name| {
        let value = headers.get(name).map_or(&b"-"[..], |value| value.as_bytes());
        excerpt(value, SHOWN_LEN_MAX)
    };
    format!(
        "{} topic={} key={} attempt={} bytes={} {}",
        status.as_u16(),
        shown("mqtt-topic"),
        shown("idempotency-key"),
        shown("x-delivery-attempt"),
        body.len(),
        excerpt(body, SHOWN_LEN_MAX),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use http::HeaderValue;

    use super::*;
    use crate::{
        bridge::{
            client::Client,
            policy::status::Outcome,
            request::{Delivery, Item, Shape},
        },
        codec::Qos,
        config::{RouteConfig, TargetConfig},
        record::{Lsn, Message, MessageParts, UnixMillis},
    };

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: DemoTargetArgs,
    }

    fn args(line: &str) -> DemoTargetArgs {
        Cli::try_parse_from(line.split_whitespace())
            .map(|cli| cli.args)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn statuses(args: &DemoTargetArgs, count: u64) -> Vec<u16> {
        (1..=count).map(|number| args.status_of(number).as_u16()).collect()
    }

    #[test]
    fn the_first_requests_fail_and_every_kth_is_rejected() {
        assert_eq!(statuses(&args("demo"), 2), [200, 200]);
        assert_eq!(statuses(&args("demo --fail 2"), 3), [503, 503, 200]);
        let both = args("demo --fail 3 --status 500 --reject-every 2");
        assert_eq!(statuses(&both, 7), [500, 500, 500, 422, 200, 422, 200]);
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        for line in ["demo --reject-every 0", "demo --status 99", "demo --status x", "demo --listen 8080"] {
            assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
    }

    #[test]
    fn a_request_is_one_line_whatever_is_in_it() {
        let mut headers = HeaderMap::new();
        headers.insert("mqtt-topic", HeaderValue::from_static("a/b"));
        headers.insert("idempotency-key", HeaderValue::from_bytes(b"\xff\tk").unwrap());
        let shown = line(StatusCode::OK, &headers, b"one\r\ntwo\x1b[2J");
        assert_eq!(shown, "200 topic=a/b key=\u{fffd}\\tk attempt=- bytes=12 one\\r\\ntwo\\u{1b}[2J");
    }

    #[tokio::test]
    async fn the_bridge_delivers_to_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/orders", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router(args("demo --fail 1"))).await });

        let config = TargetConfig::new(url.parse().unwrap());
        let (client, shape) =
            (Client::new(&config).unwrap(), Shape::new(&RouteConfig::new("r", "#", "t"), &config));
        let parts = MessageParts {
            qos: Qos::AtLeastOnce,
            retain: false,
            published_at: UnixMillis(0),
            expires_at: UnixMillis::NEVER,
            topic: "a/b",
            properties: &[],
            payload: b"",
            publisher: "p",
        };
        let message = Message::new(&parts, &mut Vec::new());
        for (attempt, status) in [(1, 503), (2, 200)] {
            let delivery = Delivery { store_id: 1, number: Some(Lsn(1)), attempt };
            let request = shape.build(&[Item { message: &message, delivery }], UnixMillis(1)).unwrap();
            let result = client.post(request, None).await;
            assert_eq!(result.outcome, Outcome::Status(status));
        }
    }
}
