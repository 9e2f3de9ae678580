//! Templates: text of the operator with places where something of a message stands.
//!
//! A template is compiled when the configuration is read, and knows where its text goes: what it fills in can
//! not leave that place. In a path every value is percent-encoded, in a header it has no control character, in JSON and HTML it is written as a value of them.
//!
//! Invariant: rendering ends, whatever the message holds, with text or with one line that says why not.

use std::fmt::{self, Write as _};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use minijinja::value::ValueKind;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value, escape_formatter,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::report::Wrong;
use crate::config::values;

/// Instructions of one rendering. A template over a list of a thousand needs about ten thousand.
const FUEL: u64 = 100_000;
/// Bytes of a template.
const SOURCE_LEN_MAX: usize = 64 << 10;
/// Bytes of what stands in the head of a request.
const HEAD_TEXT_LEN_MAX: usize = 8 << 10;
/// Bytes of any other text: a loop over a short payload can repeat a long topic.
const TEXT_LEN_MAX: usize = 16 << 20;
/// The one template in its environment; a name without extension.
const NAME: &str = "it";
/// Everything but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// What a template can name without a message.
const GLOBALS: [&str; 4] = ["range", "dict", "namespace", "loop"];

/// Every name that a template can use.
pub const VARIABLES: [&str; 20] = [
    "topic",
    "levels",
    "captures",
    "client_id",
    "user_name",
    "qos",
    "retain",
    "payload",
    "payload_text",
    "payload_base64",
    "properties",
    "content_type",
    "response_topic",
    "correlation_data_base64",
    "published_at",
    "published_at_ms",
    "id",
    "attempt",
    "route",
    "target",
];

/// A template that was compiled. Cloning counts a reference; two are equal when their text is.
#[derive(Clone)]
pub struct Template(Arc<Compiled>);

struct Compiled {
    source: String,
    place: Place,
    /// Its text, when nothing is filled in.
    constant: Option<String>,
    /// The names it uses, sorted.
    variables: Vec<String>,
    environment: Environment<'static>,
}

/// Where the text of a template goes, which says how values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The path of a URL, or any other part of one: percent-encoded, and never empty.
    Path,
    /// A value in the query of a URL, which is percent-encoded as a whole.
    Query,
    /// A header: without control characters.
    Header,
    /// A body in JSON: each value as JSON, text with its quotes.
    Json,
    /// A body in HTML or XML.
    Html,
    /// Any other body: as it is.
    Text,
}

impl Template {
    /// Compiles `source`. The message of the error continues the name of the key.
    pub(in crate::config) fn compile(source: &str, place: Place) -> Result<Self, Wrong> {
        if source.len() > SOURCE_LEN_MAX {
            return Err(Wrong::new(format!("is longer than {SOURCE_LEN_MAX} bytes")));
        }
        if ["${env:", "${file:"].iter().any(|reference| source.contains(reference)) {
            let help = "secrets belong into headers, auth, proxy or signing of the target";
            return Err(Wrong::new("cannot have references").help(help));
        }
        let mut environment = environment(place);
        let added = environment.add_template_owned(NAME, source.to_owned());
        added.map_err(|error| Wrong::new(format!("is not a template: {}", describe(&error))))?;
        let mut compiled =
            Compiled { source: source.to_owned(), place, constant: None, variables: Vec::new(), environment };
        compiled.check_names()?;
        compiled.check_calls()?;
        if !["{{", "{%", "{#"].iter().any(|open| source.contains(open)) {
            compiled.constant = Some(source.to_owned());
        }
        Ok(Self(Arc::new(compiled)))
    }

    /// Text in which nothing is filled in.
    pub(super) fn text(text: &'static str) -> Self {
        let constant = Some(text.to_owned());
        let environment = Environment::empty();
        Self(Arc::new(Compiled {
            source: text.to_owned(),
            place: Place::Header,
            constant,
            variables: Vec::new(),
            environment,
        }))
    }

    /// As it is in the configuration.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Its text, when there is nothing to fill in.
    pub fn constant(&self) -> Option<&str> {
        self.0.constant.as_deref()
    }

    /// Whether its text is JSON.
    pub fn is_json(&self) -> bool {
        self.0.place == Place::Json
    }

    /// The names of what it fills in.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.variables.iter().map(String::as_str)
    }

    /// The text with everything filled in from `context`, a map with the names in [`VARIABLES`].
    ///
    /// # Errors
    /// One line that says what cannot be filled in; the same for the same message, always.
    pub fn render(&self, context: Value) -> Result<String, String> {
        if let Some(constant) = &self.0.constant {
            return Ok(constant.clone());
        }
        let in_head = matches!(self.0.place, Place::Path | Place::Query | Place::Header);
        let len_max = if in_head { HEAD_TEXT_LEN_MAX } else { TEXT_LEN_MAX };
        let mut text = Text { bytes: Vec::new(), len_max, is_too_long: false };
        let render = || {
            let template = self.0.environment.get_template(NAME)?;
            template.render_captured_to(context, &mut text).map(drop)
        };
        // What others wrote meets here what anybody can send: should it panic, that costs the message, not the route.
        let rendered = catch_unwind(AssertUnwindSafe(render));
        let rendered = rendered.unwrap_or_else(|_| Err(refused("the template has panicked")));
        if text.is_too_long {
            return Err(format!("becomes longer than {len_max} bytes"));
        }
        rendered.map_err(|error| describe(&error))?;
        String::from_utf8(text.bytes).map_err(|error| error.to_string())
    }
}

/// What is rendered, up to its end.
struct Text {
    bytes: Vec<u8>,
    len_max: usize,
    is_too_long: bool,
}

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_too_long |= self.bytes.len() + bytes.len() > self.len_max;
        if self.is_too_long {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        (self.source(), self.0.place) == (other.source(), other.0.place)
    }
}

impl Eq for Template {}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.source()).finish()
    }
}

impl Compiled {
    /// A name that no message has would fail for every one of them.
    fn check_names(&mut self) -> Result<(), Wrong> {
        let template = self.environment.get_template(NAME).map_err(|error| Wrong::new(describe(&error)))?;
        let names = template.undeclared_variables(false);
        self.variables = names.into_iter().filter(|name| !GLOBALS.contains(&name.as_str())).collect();
        self.variables.sort_unstable();
        match self.variables.iter().find(|name| !VARIABLES.contains(&name.as_str())) {
            None => Ok(()),
            Some(unknown) => {
                let shown = unknown.escape_debug();
                let wrong = Wrong::new(format!("uses \"{shown}\", which a message does not have"));
                Err(wrong.help(match values::nearest(unknown, VARIABLES.into_iter()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("there are: {}", VARIABLES.join(", ")),
                }))
            }
        }
    }

    /// Filters, tests and functions are looked up when they are called: a rendering without a message finds
    /// those that do not exist. What else fails then is the message's matter.
    fn check_calls(&self) -> Result<(), Wrong> {
        let mut environment = environment(Place::Text);
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        let rendered = environment.render_str(&self.source, ());
        let unknown = [ErrorKind::UnknownFilter, ErrorKind::UnknownTest, ErrorKind::UnknownFunction];
        match rendered {
            Err(error) if unknown.contains(&error.kind()) => {
                Err(Wrong::new(format!("is not a template: {}", describe(&error))))
            }
            _ => Ok(()),
        }
    }
}

fn environment(place: Place) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_auto_reload(false);
    environment.remove_global("debug");
    let escape = match place {
        Place::Json => AutoEscape::Json,
        Place::Html => AutoEscape::Html,
        Place::Path | Place::Query | Place::Header | Place::Text => AutoEscape::None,
    };
    environment.set_auto_escape_callback(move |_| escape.clone());
    match place {
        Place::Path => environment.set_formatter(put_in_path),
        Place::Query => environment.set_formatter(put_in_query),
        Place::Header => environment.set_formatter(put_in_header),
        Place::Html | Place::Text => environment.set_formatter(put_in_text),
        Place::Json => {}
    }
    environment
}

/// Whatever a value is marked as, and whatever it holds, it is one value in one place.
fn put_in_path(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let text = scalar(value)?;
    if text.is_empty() {
        return Err(refused("an empty value would change what the path leads to"));
    }
    write!(out, "{}", utf8_percent_encode(&text, ENCODED)).map_err(Error::from)
}

fn put_in_query(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    out.write_str(&scalar(value)?).map_err(Error::from)
}

fn put_in_header(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let text = scalar(value)?;
    if text.chars().any(char::is_control) {
        return Err(refused("a value has a control character, which a header cannot carry"));
    }
    out.write_str(&text).map_err(Error::from)
}

/// What JSON has a word for is written as there.
fn put_in_text(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Bool => out.write_str(if value.is_true() { "true" } else { "false" }).map_err(Error::from),
        ValueKind::None => out.write_str("null").map_err(Error::from),
        _ => escape_formatter(out, state, value),
    }
}

/// A single value as text.
fn scalar(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::String | ValueKind::Number => Ok(value.to_string()),
        ValueKind::Bool => Ok(if value.is_true() { "true" } else { "false" }.to_owned()),
        // What an `if` without an `else` leaves: any other one has failed before.
        ValueKind::Undefined => Ok(String::new()),
        kind => Err(refused(&format!("a value is {kind}, where text or a number belongs"))),
    }
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.to_owned())
}

/// In one line, without the name that the template has here.
fn describe(error: &Error) -> String {
    let line = error.line().filter(|line| *line > 1).map(|line| format!(" (its line {line})"));
    let what = match (error.kind(), error.detail()) {
        (ErrorKind::UndefinedError, _) => "something that is not in the message is filled in".to_owned(),
        (ErrorKind::OutOfFuel, _) => "it takes too many steps".to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    let mut shown = String::new();
    let characters = what.chars().filter(|character| !character.is_control()).take(200);
    characters.for_each(|character| shown.push(character));
    // Writing to a String does not fail.
    let _ = write!(shown, "{}", line.unwrap_or_default());
    shown
}
