//! `[targets.NAME]`: where messages go, and what may be expected there.

mod addresses;
mod auth;
mod breaker;
mod concurrency;
mod headers;
mod http;
mod knative;
mod proxy;
mod rate;
mod retry;
mod signing;
mod status;
mod tls;
mod url;

use std::ops::RangeInclusive;
use std::time::Duration;

use ::http::uri::Scheme;
use ::http::{HeaderMap, Uri};
use toml::Spanned;

use super::report::Wrong;
use super::section::Section;
use super::values::{self, TIMEOUT};
pub use addresses::{Addresses, RefusedAddress, Said};
pub use auth::{OAuth2Config, TargetAuth};
pub use breaker::BreakerConfig;
pub(super) use headers::header_name;
pub use http::{Compress, HttpVersion};
pub use proxy::{Login, ProxyConfig, ProxyKind};
pub use rate::RateConfig;
pub use retry::{Backoff, Counted, Jitter, RetryConfig};
pub use signing::SigningKey;
pub use status::{StatusClass, StatusRules};
pub use tls::{TargetTls, TlsIdentity, TlsVersion};

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
    /// What each request carries to prove who sends it.
    pub auth: TargetAuth,
    /// Whom TLS trusts, and how it shows who we are.
    pub tls: TargetTls,
    /// Networks off the internet that its name may lead to.
    pub addresses: Addresses,
    /// Who makes its connections; without it, we do.
    pub proxy: Option<ProxyConfig>,
    /// The version of HTTP.
    pub http_version: HttpVersion,
    /// Which bodies are sent compressed.
    pub compress: Compress,
    /// Most requests in flight at once. For the order of messages see [`RouteConfig::order`](super::RouteConfig).
    pub concurrency: u32,
    /// How few they may become when the answers of the target decide; `None` when they do not.
    pub concurrency_min: Option<u32>,
    /// Most requests over time.
    pub rate: Option<RateConfig>,
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
            auth: TargetAuth::None,
            tls: TargetTls::default(),
            addresses: Addresses::default(),
            proxy: None,
            http_version: HttpVersion::Auto,
            compress: Compress::None,
            concurrency: 16,
            concurrency_min: None,
            rate: None,
            retry: RetryConfig::default(),
            status: StatusRules::default(),
            breaker: BreakerConfig::default(),
            signing: Vec::new(),
        }
    }
}

impl TargetConfig {
    /// Where tokens for it are asked for.
    pub fn token_url(&self) -> Option<&Uri> {
        match &self.auth {
            TargetAuth::OAuth2(oauth2) => Some(&oauth2.token_url),
            _ => None,
        }
    }

    /// Whether any connection for it is one of TLS.
    pub fn speaks_tls(&self) -> bool {
        let is_https = |url: &Uri| url.scheme() == Some(&Scheme::HTTPS);
        let proxy = self.proxy.as_ref().map(|proxy| &proxy.uri);
        is_https(&self.url) || self.token_url().is_some_and(is_https) || proxy.is_some_and(is_https)
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
    let (concurrency, concurrency_min) = concurrency::read(section, default.concurrency);
    let target = TargetConfig {
        timeout: section.duration("timeout", TIMEOUT, default.timeout),
        connect_timeout: section.duration("connect_timeout", TIMEOUT, default.connect_timeout),
        headers: headers::read(section),
        auth: section.section("auth", TargetAuth::read),
        tls: section.section("tls", TargetTls::read),
        addresses: Addresses::read(section),
        proxy: section.take("proxy", proxy::parse).map(Spanned::into_inner),
        http_version: HttpVersion::read(section),
        compress: Compress::read(section),
        concurrency,
        concurrency_min,
        rate: RateConfig::read(section),
        retry: knative::read_retry(section),
        status: section.section("status", StatusRules::read),
        breaker: section.section("breaker", BreakerConfig::read),
        signing: section.optional_section("signing", SigningKey::read).unwrap_or_default(),
        url: default.url,
    };
    check_target(section, &target);
    url.is_some().then_some(target)
}

/// What is wrong with keys that are good one by one.
fn check_target(section: &Section<'_>, target: &TargetConfig) {
    if target.tls != TargetTls::default() && !target.speaks_tls() {
        let wrong = Wrong::new("is of no use: the url is http, without TLS");
        section.wrong("tls", wrong.help("write https://"));
    }
    if let Some(header) = target.auth.header().filter(|header| target.headers.contains_key(*header)) {
        let wrong = Wrong::new(format!("has \"{header}\", which auth sets"));
        section.wrong("headers", wrong.help("leave it out, or leave auth out"));
    }
    let connects_to = [
        ("url", Some(&target.url)),
        ("auth", target.token_url()),
        ("proxy", target.proxy.as_ref().map(|proxy| &proxy.uri)),
    ];
    for (key, url) in connects_to {
        let host = url.and_then(Uri::host).unwrap_or_default();
        if let Err(refused) = target.addresses.judge_host(host) {
            let wrong = Wrong::new(format!("leads to {refused}"));
            let wrong = wrong.help(format!("if it is meant to, add {}", refused.remedy()));
            section.wrong(key, if key == "proxy" { wrong.secret() } else { wrong });
        }
    }
}
