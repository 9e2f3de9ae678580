//! Where a route's dead letters go beside the store: a topic, a second target, a file.

use std::path::PathBuf;

use http::HeaderName;
use toml::{Spanned, de::DeValue};

use super::RouteConfig;
use super::request::RequestConfig;
use super::template::{Place, Template};
use crate::config::report::Wrong;
use crate::config::section::Section;
use crate::config::{files, values};

/// Where they are published when only a target is named.
pub const TOPIC: &str = "$dead";
/// What the route to a second target has behind the name of the first.
const SUFFIX: &str = ".dead";
/// User properties of what is published that can always be headers.
const PROPERTIES: [&str; 6] = [
    "dead-letter-reason",
    "dead-letter-route",
    "dead-letter-target",
    "dead-letter-key",
    "dead-letter-attempts",
    "dead-letter-status",
];
/// First levels of topics that mean something else.
const TAKEN: [&str; 3] = ["$SYS", "$share", "$queue"];

/// `dead_letter_topic`, `dead_letter_sink` and `dead_letter_file`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkConfig {
    /// Each is published to `<topic>/<route>/<topic of the message>`. One level, beginning with `$`.
    pub topic: Option<String>,
    /// The name of a target that gets them, as what a route takes from that topic.
    pub target: Option<String>,
    /// A file that each is appended to, as a line of an export.
    pub file: Option<PathBuf>,
}

impl SinkConfig {
    pub(super) fn read(section: &mut Section<'_>) -> (Self, Option<Spanned<String>>) {
        let topic = section.take("dead_letter_topic", topic).map(Spanned::into_inner);
        let target = section.take("dead_letter_sink", values::text);
        let file = section.take("dead_letter_file", values::path).map(Spanned::into_inner);
        if let Some(file) = &file {
            let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty());
            section.check_file("dead_letter_file", folder.unwrap_or(".".as_ref()), files::check_folder);
        }
        let name = target.as_ref().map(|target| target.get_ref().clone());
        let topic = topic.or_else(|| name.as_ref().map(|_| TOPIC.to_owned()));
        (Self { topic, target: name, file }, target)
    }
}

/// The routes with those that second targets ask for: each takes what its route publishes of its dead letters.
pub(super) fn with_sinks(routes: Vec<RouteConfig>) -> Vec<RouteConfig> {
    let sinks: Vec<_> = routes.iter().filter_map(sink_of).collect();
    routes.into_iter().chain(sinks).collect()
}

fn sink_of(route: &RouteConfig) -> Option<RouteConfig> {
    let SinkConfig { topic, target, .. } = &route.dead_letters;
    let (name, topic) = (format!("{}{SUFFIX}", route.name), topic.as_deref().unwrap_or(TOPIC));
    let sink = RouteConfig::new(&name, &format!("{topic}/{}/#", route.name), target.as_deref()?);
    let request = RequestConfig { headers: headers(), ..sink.request };
    Some(RouteConfig { queue: route.queue, request, ..sink })
}

/// What went wrong stands in user properties, which a second target gets as headers of the same names.
fn headers() -> Vec<(HeaderName, Template)> {
    let header = |name: &'static str| {
        let template = Template::compile(&format!("{{{{ properties['{name}'] or '' }}}}"), Place::Header);
        Some((HeaderName::from_static(name), template.ok()?))
    };
    PROPERTIES.into_iter().filter_map(header).collect()
}

/// A route's own name must not be that of another's second target. `names` are those before it, and `sinks` those of
/// routes with a second target, itself included.
pub(super) fn check_name(
    section: &Section<'_>,
    name: &str,
    names: &[Spanned<String>],
    sinks: &[Spanned<String>],
) {
    let is = |text: &str, other: &Spanned<String>| other.get_ref() == text;
    let of_other = name.strip_suffix(SUFFIX).filter(|first| sinks.iter().any(|sink| is(first, sink)));
    let own = format!("{name}{SUFFIX}");
    let has_sink = sinks.iter().any(|sink| is(name, sink));
    let taken = match of_other {
        Some(first) => format!("\"{name}\" is the route to the second target of route \"{first}\""),
        None if has_sink && names.iter().any(|other| is(&own, other)) => {
            format!("\"{own}\", the route to its second target, is the name of another route")
        }
        None => return,
    };
    section.wrong("name", Wrong::new(taken).help("give it another name"));
}

fn topic(value: &DeValue<'_>) -> Result<String, Wrong> {
    let text = values::text(value)?;
    let is_level = text.len() > 1 && text.starts_with('$') && !text.contains(['/', '+', '#', '\0']);
    if is_level && !TAKEN.contains(&text.as_str()) {
        return Ok(text);
    }
    let wrong = values::unexpected("one level that begins with $, and is not $SYS, $share or $queue", value);
    Err(wrong
        .help("write \"$dead\": no client can publish there, and no wildcard at the beginning matches it"))
}
