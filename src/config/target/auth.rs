//! `[targets.NAME.auth]`: how requests prove who sends them.

use base64::prelude::{BASE64_STANDARD, Engine};
use http::{HeaderName, HeaderValue, Uri, header};
use toml::{Spanned, de::DeValue};

use super::{headers, url};
use crate::config::report::Wrong;
use crate::config::secret::{self, Secret};
use crate::config::section::Section;
use crate::config::values;

/// What a request carries to prove who sends it.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum TargetAuth {
    /// Nothing.
    #[default]
    None,
    /// The same header each time. The value is marked sensitive: `Debug` does not print it.
    Header(HeaderName, HeaderValue),
    /// An access token of OAuth 2 that is asked for when it is needed.
    OAuth2(Box<OAuth2Config>),
}

/// The client credentials grant of OAuth 2 (RFC 6749, 4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth2Config {
    /// Where tokens are asked for.
    pub token_url: Uri,
    /// Who asks.
    pub client_id: String,
    /// Proves it.
    pub client_secret: Secret,
    /// Whether id and secret go into the body, and not into the Authorization header.
    pub secret_in_body: bool,
    /// What the token shall be good for.
    pub scopes: Vec<String>,
    /// More parameters of the request: `audience`, for example.
    pub params: Vec<(String, Secret)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    Basic,
    Bearer,
    ApiKey,
    OAuth2,
}

const KINDS: [(&str, Kind); 5] = [
    ("none", Kind::None),
    ("basic", Kind::Basic),
    ("bearer", Kind::Bearer),
    ("api_key", Kind::ApiKey),
    ("oauth2", Kind::OAuth2),
];
const SECRET_PLACES: [(&str, bool); 2] = [("header", false), ("body", true)];

impl TargetAuth {
    /// Reads the section. Keys of another kind than the one that is asked for are unknown here.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let kind = section.choice("kind", &KINDS);
        let read = match kind.unwrap_or(Kind::None) {
            Kind::None => None,
            Kind::Basic => read_basic(section),
            Kind::Bearer => read_bearer(section),
            Kind::ApiKey => read_api_key(section),
            Kind::OAuth2 => read_oauth2(section).map(|config| Self::OAuth2(Box::new(config))),
        };
        read.unwrap_or_default()
    }

    /// The header that it sets.
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::None => None,
            Self::Header(name, _) => Some(name),
            Self::OAuth2(_) => Some(&header::AUTHORIZATION),
        }
    }
}

fn read_basic(section: &mut Section<'_>) -> Option<TargetAuth> {
    let user = section.require("user", "\"a-name\"", user_name);
    let password = section.require("password", "\"${env:NAME}\"", Secret::parse);
    let login = format!("{}:{}", user?.get_ref(), password?.get_ref().expose());
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(login))).ok()?;
    value.set_sensitive(true);
    Some(TargetAuth::Header(header::AUTHORIZATION, value))
}

fn read_bearer(section: &mut Section<'_>) -> Option<TargetAuth> {
    let value = section.require("token", "\"${env:NAME}\"", |value| header(value, "Bearer "))?;
    Some(TargetAuth::Header(header::AUTHORIZATION, value.into_inner()))
}

fn read_api_key(section: &mut Section<'_>) -> Option<TargetAuth> {
    let name = |value: &DeValue<'_>| headers::header_name(&values::text(value)?);
    let name = section.require("header", "\"X-Api-Key\"", name);
    let value = section.require("key", "\"${env:NAME}\"", |value| header(value, ""));
    Some(TargetAuth::Header(name?.into_inner(), value?.into_inner()))
}

/// A header that proves something, and so is not empty.
fn header(value: &DeValue<'_>, prefix: &str) -> Result<HeaderValue, Wrong> {
    values::text(value)?;
    headers::header_value(value, prefix)
}

fn read_oauth2(section: &mut Section<'_>) -> Option<OAuth2Config> {
    let token_url = section.require("token_url", "\"https://login.example/oauth2/token\"", url::parse);
    let client_id =
        section.require("client_id", "\"causeway\"", |value| secret::resolve(&values::text(value)?));
    let client_secret = section.require("client_secret", "\"${env:NAME}\"", Secret::parse);
    let place = section.choice("secret_in", &SECRET_PLACES);
    let scopes = section.list("scopes", scope).into_iter().map(Spanned::into_inner).collect();
    let params = read_params(section);
    Some(OAuth2Config {
        token_url: token_url?.into_inner(),
        client_id: client_id?.into_inner(),
        client_secret: client_secret?.into_inner(),
        secret_in_body: place.unwrap_or_default(),
        scopes,
        params,
    })
}

fn read_params(section: &mut Section<'_>) -> Vec<(String, Secret)> {
    let own = ["grant_type", "client_id", "client_secret", "scope"];
    let mut params = Vec::new();
    for (name, value) in section.entries("params") {
        if own.contains(&&**name.get_ref()) {
            let wrong = Wrong::new(format!("has \"{}\", which has a key of its own", name.get_ref()));
            section.wrong_at("params", name.span(), wrong.help("leave it out here"));
            continue;
        }
        match Secret::parse(value.get_ref()) {
            Ok(value) => params.push((name.get_ref().to_string(), value)),
            Err(wrong) => section.wrong_at("params", value.span(), wrong.about(name.get_ref())),
        }
    }
    params
}

fn scope(value: &DeValue<'_>) -> Result<String, Wrong> {
    let scope = values::text(value)?;
    if scope.contains(char::is_whitespace) {
        let help = "write each scope as an element of its own: scopes = [\"read\", \"write\"]";
        return Err(values::unexpected("a scope", value).help(help));
    }
    Ok(scope)
}

/// A user name of Basic ends at the first colon (RFC 7617).
fn user_name(value: &DeValue<'_>) -> Result<String, Wrong> {
    let name = secret::resolve(&values::text(value)?)?;
    if name.contains(':') { Err(values::unexpected("a user name without \":\"", value)) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn auth(text: &str) -> TargetAuth {
        let text = format!("[targets.a]\nurl = \"https://h\"\n[targets.a.auth]\n{text}");
        let mut config = Config::parse(&text, "a.toml").unwrap_or_else(|error| panic!("{error}"));
        config.targets.remove("a").unwrap().auth
    }

    #[test]
    fn logins_that_never_change_are_a_header() {
        assert_eq!(auth(""), TargetAuth::None);
        assert_eq!(auth("kind = \"none\""), TargetAuth::None);
        for (text, name, value) in [
            (
                "kind = \"basic\"\nuser = \"Aladdin\"\npassword = \"open sesame\"",
                "authorization",
                "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            ),
            ("kind = \"bearer\"\ntoken = \"hunter2\"", "authorization", "Bearer hunter2"),
            ("kind = \"api_key\"\nheader = \"X-Api-Key\"\nkey = \"hunter2\"", "x-api-key", "hunter2"),
        ] {
            let TargetAuth::Header(header, found) = auth(text) else { panic!("{text}") };
            assert_eq!((header.as_str(), found.to_str().unwrap()), (name, value));
            assert!(found.is_sensitive(), "{text}");
        }
    }

    #[test]
    fn a_token_can_be_asked_for() {
        let text = "kind = \"oauth2\"\ntoken_url = \"https://l/t\"\nclient_id = \"c\"\nclient_secret = \"hunter2\"\n\
                    scopes = [\"a\", \"b\"]\nparams = { audience = \"x y\" }\nsecret_in = \"body\"";
        let TargetAuth::OAuth2(oauth2) = auth(text) else { panic!() };
        assert_eq!((oauth2.token_url.host(), oauth2.client_secret.expose()), (Some("l"), "hunter2"));
        assert_eq!((oauth2.scopes.len(), oauth2.secret_in_body), (2, true));
        assert_eq!((oauth2.params[0].0.as_str(), oauth2.params[0].1.expose()), ("audience", "x y"));
        assert!(!format!("{oauth2:?}").contains("hunter2"));
    }
}
