//! Whether a route takes a message that its topics match.
//!
//! The same message always gets the same judgement, within a bounded time: what an expression can make of a
//! message was judged when the configuration was read (`config::Expression`); how large the message may be is
//! judged here.
//!
//! Invariant: a judgement never asks for another try.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, ExecutionError, Value};
use serde::de::IgnoredAny;
use serde_json::Value as Json;

use super::captures::Captures;
use crate::codec::PublishProperties;
use crate::config::{Expression, FilterConfig, LOOPED_VALUES_MAX, OnFilterError, RouteConfig};
use crate::record::Message;

/// Characters of what is said about an error.
const WHY_LEN_MAX: usize = 200;

/// Whether a route takes a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It does.
    Pass,
    /// It does not: as far as the route is concerned, the message is done.
    Drop,
    /// The filter has no answer, in one line safe to print, and such messages become dead letters.
    Error(String),
}

/// The content filter of a route.
#[derive(Clone, Debug)]
pub struct Filter {
    config: Option<FilterConfig>,
    captures: Captures,
}

impl Filter {
    /// That of this route; without one it takes everything.
    pub fn new(route: &RouteConfig) -> Self {
        Self { config: route.filter.clone(), captures: Captures::new(route) }
    }

    /// Whether the route takes this message.
    pub fn judge(&self, message: &Message) -> Judgement {
        let Some(config) = &self.config else { return Judgement::Pass };
        match (self.evaluate(config, message), config.on_error) {
            (Ok(true), _) | (Err(_), OnFilterError::Pass) => Judgement::Pass,
            (Ok(false), _) | (Err(_), OnFilterError::Drop) => Judgement::Drop,
            (Err(why), OnFilterError::DeadLetter) => Judgement::Error(why),
        }
    }

    /// What the expression says of this message, whatever its errors lead to; `None` without one.
    pub fn ask(&self, message: &Message) -> Option<Result<bool, String>> {
        self.config.as_ref().map(|config| self.evaluate(config, message))
    }

    fn evaluate(&self, config: &FilterConfig, message: &Message) -> Result<bool, String> {
        let expression = &config.expression;
        let payload_len = message.payload().len() as u64;
        if expression.uses_payload() && payload_len > config.payload_max {
            let max = config.payload_max;
            return Err(format!("the payload has {payload_len} bytes, more than filter_payload_max ({max})"));
        }
        let subject = Subject { message, captures: &self.captures, payload: OnceLock::new() };
        if expression.has_loops() {
            subject.check_size()?;
        }
        let mut context = Context::with_env(Expression::functions());
        context.set_variable_resolver(&subject);
        // What others wrote meets here what anybody can send: should it panic, that costs the message, not the route.
        let resolve = || Value::resolve_val(expression.root(), &context).map_err(|error| describe(&error));
        let answer = catch_unwind(AssertUnwindSafe(resolve));
        let answer = answer.unwrap_or_else(|_| Err("the filter has panicked".to_owned())).map_err(|why| {
            match expression.uses_payload() && !subject.has_json() {
                true => format!("{why} (the payload is not JSON)"),
                false => why,
            }
        })?;
        let answer = answer.downcast_ref::<CelBool>().map(|answer| *answer.inner());
        answer.ok_or_else(|| "the filter gives something else than true or false".to_owned())
    }
}

/// A message as an expression sees it. The payload is parsed once, and only if it is asked for.
struct Subject<'m> {
    message: &'m Message,
    captures: &'m Captures,
    payload: OnceLock<(Box<dyn Val>, usize)>,
}

impl Subject<'_> {
    /// The payload in JSON, or null, and how many values it has.
    fn payload(&self) -> &(Box<dyn Val>, usize) {
        self.payload.get_or_init(|| {
            let mut count = 0;
            let json = serde_json::from_slice(self.message.payload()).unwrap_or(Json::Null);
            (value_of(json, &mut count), count)
        })
    }

    fn has_json(&self) -> bool {
        serde_json::from_slice::<IgnoredAny>(self.message.payload()).is_ok()
    }

    /// A loop makes a step for each value.
    fn check_size(&self) -> Result<(), String> {
        let levels = self.message.topic().split('/').count();
        let count = self.payload().1 + levels + self.properties().user_properties().count();
        if count > LOOPED_VALUES_MAX {
            return Err(format!(
                "the message has {count} values, more than a filter with a loop goes over ({LOOPED_VALUES_MAX})"
            ));
        }
        Ok(())
    }

    fn properties(&self) -> PublishProperties<'_> {
        PublishProperties::from_forwarded(self.message.properties())
    }

    fn user_properties(&self) -> CelMap<'_> {
        let mut map: HashMap<CelMapKey<'_>, Box<dyn Val + '_>> = HashMap::new();
        for (name, value) in self.properties().user_properties() {
            // The first of those with the same name.
            map.entry(name.into()).or_insert_with(|| Box::new(CelString::from(value)));
        }
        map.into()
    }
}

impl VariableResolver for Subject<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let message = self.message;
        let head = message.head();
        Some(match variable {
            "payload" => CowVal::Borrowed(self.payload().0.as_ref()),
            "payload_text" => match std::str::from_utf8(message.payload()) {
                Ok(text) => string(text),
                Err(_) => CowVal::owned(CelNull),
            },
            "payload_size" => CowVal::owned(CelInt::from(message.payload().len() as i64)),
            "topic" => string(message.topic()),
            "levels" => strings(message.topic().split('/')),
            "captures" => strings(self.captures.of(message).into_iter()),
            "client_id" => string(message.publisher()),
            "user_name" => string(message.user_name().unwrap_or_default()),
            "qos" => CowVal::owned(CelInt::from(head.qos as i64)),
            "retain" => CowVal::owned(CelBool::from(head.retain)),
            "published_at_ms" => CowVal::owned(CelInt::from(head.published_at.0 as i64)),
            "content_type" => string(self.properties().content_type().unwrap_or_default()),
            "properties" => CowVal::owned(self.user_properties()),
            _ => return None,
        })
    }
}

fn string<'b>(text: &'b str) -> CowVal<'b, 'b> {
    CowVal::owned(CelString::from(text))
}

fn strings<'b>(texts: impl Iterator<Item = &'b str>) -> CowVal<'b, 'b> {
    let list: Vec<Box<dyn Val + 'b>> = texts.map(|text| Box::new(CelString::from(text)) as _).collect();
    CowVal::owned(CelList::from(list))
}

/// Nested no deeper than serde_json reads. Counts the values.
fn value_of(json: Json, count: &mut usize) -> Box<dyn Val> {
    *count += 1;
    match json {
        Json::Null => Box::new(CelNull),
        Json::Bool(flag) => Box::new(CelBool::from(flag)),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Box::new(CelInt::from(number)),
            (None, Some(number)) => Box::new(CelUInt::from(number)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Json::String(text) => Box::new(CelString::from(text)),
        Json::Array(list) => {
            let list: Vec<_> = list.into_iter().map(|value| value_of(value, count)).collect();
            Box::new(CelList::from(list))
        }
        Json::Object(map) => {
            let entries =
                map.into_iter().map(|(name, value)| (CelMapKey::from(name), value_of(value, count)));
            Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()))
        }
    }
}

/// Values of the message are not repeated, only what they are: they can be secret, and large.
fn describe(error: &ExecutionError) -> String {
    let of = |value: &Value| value.type_of();
    let mut shown = Beginning(String::new());
    // An error says that there is no more room, which is no matter.
    let _ = match error {
        ExecutionError::NoSuchKey(name) => write!(shown, "there is no {name}"),
        ExecutionError::ValuesNotComparable(left, right) => {
            write!(shown, "a {} cannot be compared with a {}", of(left), of(right))
        }
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            write!(shown, "there is no {operator} for a {} and a {}", of(left), of(right))
        }
        ExecutionError::Overflow(operator, ..) => write!(shown, "the result of {operator} is too large"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            shown.write_str("a division by zero")
        }
        ExecutionError::IndexOutOfBounds(_) => shown.write_str("an index is out of bounds"),
        ExecutionError::UnsupportedIndex(index, value) => {
            write!(shown, "a {} is no index of a {}", of(index), of(value))
        }
        ExecutionError::UnsupportedTargetType { target } => write!(shown, "not with a {}", of(target)),
        ExecutionError::UnsupportedKeyType(value) => write!(shown, "a {} is no key", of(value)),
        ExecutionError::NotSupportedAsMethod { method, target } => {
            write!(shown, "there is no {method}() of a {}", of(target))
        }
        ExecutionError::NoSuchOverload(call) => {
            // An operator is called "_>_", and what leads into a value "_._".
            let name = call.function().trim_matches('_');
            let types = call.argument_types().join(" and ");
            match (name, call.argument_types()) {
                ("." | "[", [into, ..]) => write!(shown, "a {into} has nothing in it to ask for"),
                _ => write!(shown, "there is no {name} for {types}"),
            }
        }
        ExecutionError::DuplicateKey(_) => shown.write_str("a map has a key twice"),
        ExecutionError::FunctionError { function, .. } => write!(shown, "{function}() has failed"),
        // Types and names only.
        other => write!(shown, "{other}"),
    };
    shown.0
}

/// Takes so many characters, and none that could rewrite a line.
struct Beginning(String);

impl Write for Beginning {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = WHY_LEN_MAX.saturating_sub(self.0.len());
        self.0.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(room));
        if self.0.len() >= WHY_LEN_MAX { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
