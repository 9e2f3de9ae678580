//! Where a target is.

use http::Uri;
use toml::de::DeValue;

use crate::config::report::Wrong;
use crate::config::values;

/// An absolute http or https URL, without user, password or fragment.
pub(super) fn parse(value: &DeValue<'_>) -> Result<Uri, Wrong> {
    let example = "write it like \"https://example.com:8443/events\"";
    let text = value.as_str().ok_or_else(|| values::unexpected("a URL in quotes", value).help(example))?;
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(values::unexpected("a URL with a scheme", value).help("put http:// or https:// in front"));
    };
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        let wrong = Wrong::new("must be an http or https URL").not(&format!("\"{}\"", scheme.escape_debug()));
        return Err(wrong.help(example));
    }
    if rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')) {
        let help = "use a header: headers = { authorization = \"${env:NAME}\" }";
        return Err(Wrong::new("must not hold a user name or password").help(help).secret());
    }
    if text.contains("${") {
        let help = "secrets belong into headers, auth, proxy or signing of the target";
        return Err(Wrong::new("cannot have references").help(help));
    }
    if rest.contains('#') {
        return Err(
            Wrong::new("must not have a fragment").help("leave out what follows the \"#\", and the \"#\"")
        );
    }
    let usable = |url: &Uri| {
        // What follows the host must be a port; one that is no number is kept as text, and never used.
        url.authority().is_some_and(|at| {
            !at.host().is_empty() && (at.as_str() == at.host() || at.port_u16().is_some_and(|port| port > 0))
        })
    };
    text.parse().ok().filter(usable).ok_or_else(|| values::unexpected("a URL", value).help(example))
}
