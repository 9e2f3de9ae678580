//! How a subcommand speaks to the running broker: JSON over HTTP with its admin listener.

use std::{error::Error, io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use http::{Method, Request, StatusCode, uri::Authority};
use http_body_util::{BodyExt as _, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::timeout;

use crate::config::{Config, ConfigError};

const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// The broker ends a connection of its admin listener after as long.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(600);
/// The longest answer is a page of dead letters with one of the largest packet.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Which broker is meant, and in what form the answer is wanted.
#[derive(Clone, Debug, clap::Args)]
pub struct AdminArgs {
    /// The admin address of the running broker, such as 127.0.0.1:9883.
    #[arg(long, global = true, value_name = "URL")]
    pub admin: Option<String>,
    /// The configuration file of the running broker, whose admin address is used.
    #[arg(long, short, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Why the broker did not do it.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The file given by `--config` is of no use.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration file that is named here sets `admin.enabled = false`.
    #[error("{0} switches the admin listener off: set admin.enabled, or name another address with --admin")]
    Disabled(String),
    /// What `--admin` gives, or the configuration, is no address.
    #[error(
        "--admin {0:?} is no address of an admin listener: write 127.0.0.1:9883 or http://127.0.0.1:9883"
    )]
    Address(String),
    /// No TCP connection.
    #[error(
        "no broker answers at {0}: start it with `causeway serve`, or name its admin address with --admin"
    )]
    NoBroker(Authority),
    /// The request or its answer did not get through; the text says why.
    #[error("the connection to the broker at {0} broke: {1}")]
    Broken(Authority, String),
    /// No whole answer within the time that an answer may take.
    #[error("the broker at {0} does not answer in time")]
    TimedOut(Authority),
    /// The broker answered with an error.
    #[error("{error}{}", help.as_ref().map(|help| format!("\n  help: {help}")).unwrap_or_default())]
    Refused {
        /// The broker's own words.
        error: String,
        /// What would be right, when the broker knows.
        help: Option<String>,
    },
    /// Some of several things were done; the text says how many were, and why the others were not.
    #[error("{0}")]
    Partly(String),
    /// A file of the command's own cannot be read or written; the text names it and says why.
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    /// What was given to the command is of no use; the text says why, and what would be right.
    #[error("{0}")]
    Usage(String),
    /// The answer is not the JSON that this version expects.
    #[error(
        "what answers at {0} is not a Causeway broker of this version: name its admin address with --admin"
    )]
    NotCauseway(Authority),
    /// The command's own runtime did not start.
    #[error("the command cannot run: {0}")]
    Runtime(#[from] std::io::Error),
}

/// What a request carries: nothing, some bytes, or a file as it is read.
pub type RequestBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// A client of one admin listener.
#[derive(Debug)]
pub struct AdminClient {
    authority: Authority,
    http: Client<HttpConnector, RequestBody>,
}

/// Runs a subcommand: prints what it gives, or says on standard error what went wrong. The exit code is 0
/// when it was done and 1 when it was not.
pub fn run(
    name: &str,
    admin: &AdminArgs,
    command: impl AsyncFnOnce(AdminClient) -> Result<String, AdminError>,
) -> ExitCode {
    let result = AdminClient::new(admin).and_then(|client| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(command(client))
    });
    // Whoever closed standard output does not want to know.
    match result {
        Ok(text) => {
            let text = text.trim_end();
            // A command that has written everything itself gives nothing.
            let _ = if text.is_empty() { Ok(()) } else { writeln!(std::io::stdout(), "{text}") };
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "causeway {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A body of these bytes.
pub fn body(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A part of a path or a value of a query, whatever is in it.
pub fn encoded(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

impl AdminClient {
    /// A client of the listener that the arguments name. Nothing is connected yet.
    ///
    /// # Errors
    /// When the arguments name none.
    pub fn new(args: &AdminArgs) -> Result<Self, AdminError> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIME_MAX));
        Ok(Self { authority: authority(args)?, http: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// Sends a request without a body, and gives the JSON that comes back; `null` when nothing does.
    ///
    /// # Errors
    /// When no broker answers, or it does not do what is asked.
    pub async fn ask(&self, method: Method, path: &str) -> Result<Value, AdminError> {
        self.ask_with(method, path, body("")).await
    }

    /// As [`AdminClient::ask`], with a body.
    ///
    /// # Errors
    /// As [`AdminClient::ask`].
    pub async fn ask_with(&self, method: Method, path: &str, body: RequestBody) -> Result<Value, AdminError> {
        let at = || self.authority.clone();
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.authority));
        let request = request.body(body).map_err(|error| AdminError::Broken(at(), error.to_string()))?;
        let (status, body) = timeout(ANSWER_TIME_MAX, self.exchange(request))
            .await
            .map_err(|_| AdminError::TimedOut(at()))??;
        if status == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        let json: Value = serde_json::from_slice(&body).map_err(|_| AdminError::NotCauseway(at()))?;
        if status.is_success() {
            return Ok(json);
        }
        let text = |key| json.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
        Err(match text("error") {
            Some(error) => AdminError::Refused { error, help: text("help") },
            None => AdminError::NotCauseway(at()),
        })
    }

    /// Reads an answer as a value that the broker of this version gives.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read<T: serde::de::DeserializeOwned>(&self, answer: Value) -> Result<T, AdminError> {
        serde_json::from_value(answer).map_err(|_| AdminError::NotCauseway(self.authority.clone()))
    }

    async fn exchange(&self, request: Request<RequestBody>) -> Result<(StatusCode, Bytes), AdminError> {
        let broken = |why: &dyn Error| AdminError::Broken(self.authority.clone(), innermost(why).to_string());
        let answer = self.http.request(request).await.map_err(|error| {
            if error.is_connect() { AdminError::NoBroker(self.authority.clone()) } else { broken(&error) }
        })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|error| broken(&*error))?.to_bytes()))
    }
}

/// By --admin, else by the configuration file, else the default.
fn authority(args: &AdminArgs) -> Result<Authority, AdminError> {
    if let Some(url) = &args.admin {
        return parse_url(url).ok_or_else(|| AdminError::Address(url.clone()));
    }
    let config = args.config.as_deref().map_or_else(|| Ok(Config::default()), Config::load)?;
    if !config.admin.enabled {
        let file = args.config.as_ref().map(|path| path.display().to_string());
        return Err(AdminError::Disabled(file.unwrap_or_default()));
    }
    let address = config.admin.address.to_string();
    address.parse().map_err(|_| AdminError::Address(address))
}

/// `http://127.0.0.1:9883`, with a slash at the end, or without the scheme.
fn parse_url(url: &str) -> Option<Authority> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let authority: Authority = rest.strip_suffix('/').unwrap_or(rest).parse().ok()?;
    // A password does not belong into a list of processes, and nobody here asks for one.
    (!authority.as_str().contains('@')).then_some(authority)
}

fn innermost<'a>(mut error: &'a (dyn Error + 'a)) -> &'a (dyn Error + 'a) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

#[cfg(test)]
impl AdminClient {
    /// A client of this address, for the tests of the subcommands.
    pub(super) fn to(address: &str) -> Self {
        Self::new(&AdminArgs { admin: Some(address.to_owned()), config: None, json: false }).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(admin: Option<&str>, config: Option<PathBuf>) -> AdminArgs {
        AdminArgs { admin: admin.map(Into::into), config, json: false }
    }

    #[test]
    fn the_address_comes_from_the_argument_the_file_or_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        std::fs::write(&file, "[admin]\naddress = \"[::1]:7\"").unwrap();
        let found = |admin, config| authority(&args(admin, config)).unwrap().to_string();
        assert_eq!(found(None, None), "127.0.0.1:9883");
        assert_eq!(found(None, Some(file.clone())), "[::1]:7");
        for url in ["http://localhost:8/", "http://localhost:8", "localhost:8"] {
            assert_eq!(found(Some(url), Some(file.clone())), "localhost:8");
        }
        std::fs::write(&file, "[admin]\nenabled = false").unwrap();
        assert!(matches!(authority(&args(None, Some(file))), Err(AdminError::Disabled(_))));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in ["", "https://localhost:8", "/x", "http://a b", "user:secret@localhost:8", "localhost:8/x"]
        {
            let refused = authority(&args(Some(url), None));
            assert!(matches!(refused, Err(AdminError::Address(_))), "{url}: {refused:?}");
        }
    }

    #[tokio::test]
    async fn a_broker_that_does_not_run_is_said_to() {
        // Bound for a moment to find a port that is free.
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let client = AdminClient::to(&free.to_string());
        let error = client.ask(Method::GET, "/healthz").await.unwrap_err();
        let expected = format!(
            "no broker answers at {free}: start it with `causeway serve`, or name its admin address with --admin"
        );
        assert_eq!(error.to_string(), expected);
    }

    #[tokio::test]
    async fn refusals_show_their_help_and_strangers_are_told_apart() {
        let router = axum::Router::new()
            .route(
                "/refused",
                axum::routing::get((StatusCode::NOT_FOUND, r#"{"error":"none","help":"look"}"#)),
            )
            .route("/stranger", axum::routing::get("<html>"))
            .route("/empty", axum::routing::get(StatusCode::NO_CONTENT));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = AdminClient::to(&address);
        let error = async |path| client.ask(Method::GET, path).await.unwrap_err().to_string();
        assert_eq!(error("/refused").await, "none\n  help: look");
        assert!(error("/stranger").await.contains("is not a Causeway broker"));
        assert_eq!(client.ask(Method::GET, "/empty").await.unwrap(), Value::Null);
    }
}
