//! `[targets.NAME]`: where messages go, and what may be expected there.

mod breaker;
mod headers;
mod retry;
mod signing;
mod status;
mod url;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, Uri};

use super::report::Wrong;
use super::section::Section;
use super::values::{self, TIMEOUT};
pub use breaker::BreakerConfig;
pub(super) use headers::header_name;
pub use retry::RetryConfig;
pub use signing::SigningKey;
pub use status::{StatusClass, StatusRules};

const CONCURRENCY: RangeInclusive<u32> = 1..=1024;
/// How often something may be tried.
const TIMES: RangeInclusive<u32> = 1..=1_000_000;

/// One of `[targets.NAME]`: a service that takes messages over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetConfig {
    /// Where messages are posted: `http` or `https`, with a host and without user, password or fragment.
    pub url: Uri,
    /// How long one attempt may take from the first byte of the request to the end of the answer.
    pub timeout: Duration,
    /// How long connecting, TLS included, may take.
    pub connect_timeout: Duration,
    /// Headers of every request. Each value is marked sensitive: `Debug` does not print it.
    pub headers: HeaderMap,
    /// Certificate authorities (PEM) to trust instead of those of the system.
    pub ca_file: Option<PathBuf>,
    /// Most requests in flight at once; 1 keeps the order of messages.
    pub concurrency: u32,
    /// When a message is tried again, and when it is given up.
    pub retry: RetryConfig,
    /// What each HTTP status means for a message.
    pub status: StatusRules,
    /// When the target counts as down.
    pub breaker: BreakerConfig,
    /// Keys that each request is signed with; none, and it is not signed.
    pub signing: Vec<SigningKey>,
}

impl TargetConfig {
    /// A target at this URL with every default.
    pub fn new(url: Uri) -> Self {
        Self {
            url,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            headers: HeaderMap::new(),
            ca_file: None,
            concurrency: 16,
            retry: RetryConfig::default(),
            status: StatusRules::default(),
            breaker: BreakerConfig::default(),
            signing: Vec::new(),
        }
    }
}

/// Reads each `[targets.NAME]`. A target that could not be read still has its name: routes may refer to it.
pub(super) fn read_targets(root: &mut Section<'_>) -> Vec<(String, Option<TargetConfig>)> {
    root.named_sections("targets", |name, section| {
        if let Err(wrong) = values::check_name(name.get_ref()) {
            section.report().add(name.span(), wrong.about(&format!("\"{}\"", name.get_ref().escape_debug())));
        }
        (name.get_ref().to_string(), read_target(section))
    })
}

/// `None` when there is no usable URL; that is reported.
fn read_target(section: &mut Section<'_>) -> Option<TargetConfig> {
    let url = section.require("url", "\"http://127.0.0.1:8080/events\"", url::parse);
    // The other keys are read in any case, for what is wrong with them.
    let default = TargetConfig::new(url.as_ref().map(|url| url.get_ref().clone()).unwrap_or_default());
    let target = TargetConfig {
        timeout: section.duration("timeout", TIMEOUT, default.timeout),
        connect_timeout: section.duration("connect_timeout", TIMEOUT, default.connect_timeout),
        headers: headers::read(section),
        ca_file: section.readable_file("ca_file"),
        concurrency: section.number("concurrency", CONCURRENCY, default.concurrency),
        retry: section.section("retry", RetryConfig::read),
        status: section.section("status", StatusRules::read),
        breaker: section.section("breaker", BreakerConfig::read),
        signing: section.optional_section("signing", SigningKey::read).unwrap_or_default(),
        url: default.url,
    };
    if target.ca_file.is_some() && target.url.scheme_str() == Some("http") {
        section.wrong(
            "ca_file",
            Wrong::new("is of no use: the url is http, without TLS").help("write https://"),
        );
    }
    url.is_some().then_some(target)
}
