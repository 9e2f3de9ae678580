//! What is done to dead letters: replayed or discarded, by number or all that a filter leaves.

use std::io::Write as _;

use http::Method;
use serde_json::json;

use super::{Filter, PATH};
use crate::admin::{Done, ReplayChanges};
use crate::cli::admin_client::{AdminClient, AdminError, body};
use crate::cli::show::count;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Selection {
    /// Their numbers.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with_all = ["all", "Filter"])]
    pub(super) ids: Vec<u64>,
    /// All of them, or all that the options below leave.
    #[arg(long)]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) filter: Filter,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    pub(super) selection: Selection,
    /// Dead letters in a second at most, such as 50/s.
    #[arg(long, value_name = "N/s", value_parser = rate, conflicts_with = "ids")]
    rate: Option<u32>,
    /// To this route, instead of the one each was for.
    #[arg(long, value_name = "ROUTE")]
    to: Option<String>,
    /// With this content type.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// With this user property, in place of all of its name. Can be given more than once.
    #[arg(long, value_name = "NAME=VALUE", value_parser = property)]
    set_property: Vec<(String, String)>,
    /// Without the user properties of this name. Can be given more than once.
    #[arg(long, value_name = "NAME")]
    remove_property: Vec<String>,
}

/// What is done to letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Replay {
        rate: Option<u32>,
        /// The body that says what is to be different.
        changes: String,
    },
    Discard,
}

/// Does something to the letters that were named, or to all that are meant.
pub(super) async fn change(
    client: &AdminClient,
    verb: &Verb,
    selection: &Selection,
    json: bool,
) -> Result<String, AdminError> {
    let done = if selection.all {
        change_all(client, verb, &selection.filter).await?
    } else {
        change_each(client, verb, &selection.ids).await?
    };
    let Done { done, left, why, .. } = done;
    if json {
        return Ok(format!("{:#}", json!({ "done": done, "left": left, "why": why })));
    }
    let text = format!("{} {}", verb.done(), count(done, "dead letter"));
    match why {
        None => Ok(text),
        Some(why) => Err(AdminError::Partly(format!("{text}; {left} could not be: {why}"))),
    }
}

async fn change_each(client: &AdminClient, verb: &Verb, ids: &[u64]) -> Result<Done, AdminError> {
    let mut done = Done::default();
    for id in ids {
        let asked = match verb {
            Verb::Replay { changes, .. } => {
                let path = format!("{PATH}/{id}/replay");
                client.ask_with(Method::POST, &path, body(changes.clone())).await
            }
            Verb::Discard => client.ask(Method::DELETE, &format!("{PATH}/{id}")).await,
        };
        match asked {
            Ok(_) => done.done += 1,
            Err(AdminError::Refused { error, .. }) => done.leave(error),
            Err(other) => return Err(other),
        }
    }
    Ok(done)
}

/// The broker does some of it for each request; in between it is said how far it is.
async fn change_all(client: &AdminClient, verb: &Verb, filter: &Filter) -> Result<Done, AdminError> {
    let (mut all, mut go_on) = (Done::default(), String::new());
    let rate = match verb {
        Verb::Replay { rate: Some(rate), .. } => format!("&rate={rate}"),
        _ => String::new(),
    };
    loop {
        let path = format!("{PATH}/{}-all?{go_on}{rate}{}", verb.name(), filter.query());
        let changes = if let Verb::Replay { changes, .. } = verb { changes.clone() } else { String::new() };
        let done: Done = client.read(client.ask_with(Method::POST, &path, body(changes)).await?)?;
        all.done += done.done;
        all.left += done.left;
        all.why = all.why.or(done.why);
        let Some(next) = done.next else { return Ok(all) };
        go_on = format!("after={next}&last={}", done.last);
        // Whoever closed standard error does not want to know.
        let _ = writeln!(
            std::io::stderr(),
            "{} {}, {} could not be; going on after {next} of {}",
            verb.done(),
            count(all.done, "dead letter"),
            all.left,
            done.last
        );
    }
}

impl Verb {
    pub(super) fn replay(args: &ReplayArgs) -> Result<Self, AdminError> {
        let changes = ReplayChanges {
            to: args.to.clone(),
            content_type: args.content_type.clone(),
            set_properties: args.set_property.clone(),
            remove_properties: args.remove_property.clone(),
        };
        let changes = if changes == ReplayChanges::default() {
            String::new()
        } else {
            serde_json::to_string(&changes).map_err(|error| AdminError::Usage(error.to_string()))?
        };
        Ok(Self::Replay { rate: args.rate, changes })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Replay { .. } => "replay",
            Self::Discard => "discard",
        }
    }

    fn done(&self) -> &'static str {
        match self {
            Self::Replay { .. } => "replayed",
            Self::Discard => "discarded",
        }
    }
}

fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok().filter(|rate| *rate > 0);
    number.ok_or_else(|| "write how many in a second, like 50/s".to_owned())
}

fn property(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    pair.ok_or_else(|| "write a name and a value, like tried=again".to_owned())
}
