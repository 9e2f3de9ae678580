//! Where a request goes: the URL of the target, with the path and the query of the route behind it.
//!
//! Invariant: scheme, host and port are the target's, whatever a message holds, and the path begins with the
//! target's.

use http::Uri;
use http::uri::PathAndQuery;
use minijinja::Value;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::{RequestConfig, Template, check_path};

/// The URLs of a route.
#[derive(Debug)]
pub(super) struct Address {
    /// That of the target; with the path and the query of the route if nothing is filled in there.
    uri: Uri,
    filled_in: Option<FilledIn>,
}

/// What is filled in.
#[derive(Debug)]
struct FilledIn {
    path: Option<Template>,
    query: Vec<(String, Template)>,
}

impl Address {
    pub(super) fn new(target: &Uri, request: &RequestConfig) -> Self {
        let filled_in = FilledIn { path: request.path.clone(), query: request.query.clone() };
        if request.path.is_none() && request.query.is_empty() {
            return Self { uri: target.clone(), filled_in: None };
        }
        let mut templates = filled_in.path.iter().chain(filled_in.query.iter().map(|(_, value)| value));
        let is_constant = templates.all(|template| template.constant().is_some());
        match filled_in.uri(target, &Value::UNDEFINED) {
            Ok(uri) if is_constant => Self { uri, filled_in: None },
            _ => Self { uri: target.clone(), filled_in: Some(filled_in) },
        }
    }

    /// Whether a message has a say in it.
    pub(super) fn is_filled_in(&self) -> bool {
        self.filled_in.is_some()
    }

    /// The URL of a request.
    ///
    /// # Errors
    /// Why the message has none.
    pub(super) fn uri(&self, view: Option<&Value>) -> Result<Uri, String> {
        match (&self.filled_in, view) {
            (Some(filled_in), Some(view)) => filled_in.uri(&self.uri, view),
            _ => Ok(self.uri.clone()),
        }
    }
}

impl FilledIn {
    fn uri(&self, target: &Uri, view: &Value) -> Result<Uri, String> {
        let mut text = target.path().to_owned();
        if let Some(template) = &self.path {
            let path = template.render(view.clone()).map_err(|why| format!("path: {why}"))?;
            check_path(&path).map_err(|why| format!("path: it {why}"))?;
            if text.ends_with('/') {
                text.pop();
            }
            text.push_str(&path);
        }
        let mut separator = '?';
        if let Some(query) = target.query() {
            text.push('?');
            text.push_str(query);
            separator = '&';
        }
        for (name, template) in &self.query {
            let value = template.render(view.clone()).map_err(|why| format!("query, {name}: {why}"))?;
            text.push(separator);
            text.extend(utf8_percent_encode(name, NON_ALPHANUMERIC));
            text.push('=');
            text.extend(utf8_percent_encode(&value, NON_ALPHANUMERIC));
            separator = '&';
        }
        let too_long = |_| "the URL is not one, or too long".to_owned();
        let path_and_query = PathAndQuery::try_from(text).map_err(too_long)?;
        let mut parts = target.clone().into_parts();
        parts.path_and_query = Some(path_and_query);
        Uri::from_parts(parts).map_err(|_| "the URL is not one".to_owned())
    }
}
