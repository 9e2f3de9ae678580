//! `causeway dead-letters`: the messages that the running broker has given up, and what becomes of them.

mod change;
mod shown;
#[cfg(test)]
mod tests;
mod transfer;

use std::path::PathBuf;
use std::process::ExitCode;

use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin_client::{self, AdminArgs, AdminClient, AdminError, encoded};
use change::{Selection, Verb, change};
use shown::{show_list, show_one};

const PATH: &str = "/api/v1/dead-letters";

/// List, show, replay, discard, export and import the messages that the running broker has given up.
#[derive(Clone, Debug, clap::Args)]
pub struct DeadLettersArgs {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum DeadLettersCommand {
    /// List dead letters, the oldest first.
    List {
        /// Dead letters to show at most.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Begin after the dead letter with this number.
        #[arg(long, value_name = "ID", default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        filter: Filter,
    },
    /// Show one dead letter, with every attempt.
    Show {
        /// Its number.
        id: u64,
    },
    /// Deliver dead letters after all: each goes back to the queue of the one it was for.
    Replay(change::ReplayArgs),
    /// Throw dead letters away.
    Discard(Selection),
    /// Write dead letters as NDJSON: one JSON object in a line, with everything that is known of a letter.
    Export {
        /// A new file, instead of standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        filter: Filter,
    },
    /// File dead letters that were exported. Those that are there already are left out.
    Import {
        /// The file; `-` for standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Which letters are meant.
#[derive(Clone, Debug, Default, clap::Args)]
struct Filter {
    /// Only those of this route.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Only those of routes to this target.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Only those of this client's session.
    #[arg(long, value_name = "CLIENT_ID")]
    client: Option<String>,
    /// Only those of messages that this client has published.
    #[arg(long, value_name = "CLIENT_ID")]
    publisher: Option<String>,
    /// Only those with this reason, such as max_age or rejected.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only those whose topics match this topic filter.
    #[arg(long, value_name = "FILTER")]
    topic: Option<String>,
    /// Only those that were given up since then: 2h, 3d, or 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only those that were given up before then.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Only those whose last attempt was answered so: 422, 4xx or 500-599.
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
}

/// A part of the list, as the broker gives it.
#[derive(Debug, Deserialize)]
struct Page {
    dead_letters: Vec<Value>,
    next: Option<u64>,
}

/// Runs the command: 0 when it was done, 1 when it was not.
pub fn run(args: DeadLettersArgs) -> ExitCode {
    let DeadLettersArgs { admin, command } = args;
    let json = admin.json;
    admin_client::run("dead-letters", &admin, async move |client| match command {
        DeadLettersCommand::List { limit, after, filter } => list(&client, limit, after, &filter, json).await,
        DeadLettersCommand::Show { id } => show(&client, id, json).await,
        DeadLettersCommand::Replay(args) => {
            change(&client, &Verb::replay(&args)?, &args.selection, json).await
        }
        DeadLettersCommand::Discard(selection) => change(&client, &Verb::Discard, &selection, json).await,
        DeadLettersCommand::Export { out, filter } => {
            transfer::export(&client, out.as_deref(), &filter, json).await
        }
        DeadLettersCommand::Import { file } => transfer::import(&client, &file, json).await,
    })
}

async fn list(
    client: &AdminClient,
    limit: usize,
    after: u64,
    filter: &Filter,
    json: bool,
) -> Result<String, AdminError> {
    let (mut letters, mut next) = (Vec::new(), Some(after));
    // A page ends early when it has many bytes, or when few of many letters pass the filter.
    while let Some(after) = next.filter(|_| letters.len() < limit) {
        let page = page(client, after, limit - letters.len(), filter).await?;
        letters.extend(page.dead_letters);
        next = page.next;
    }
    if json {
        return Ok(format!("{:#}", json!({ "dead_letters": letters, "next": next })));
    }
    let letters = letters.into_iter().map(|letter| client.read(letter)).collect::<Result<Vec<_>, _>>()?;
    Ok(show_list(&letters, next, Timestamp::now()))
}

async fn page(client: &AdminClient, after: u64, limit: usize, filter: &Filter) -> Result<Page, AdminError> {
    let path = format!("{PATH}?limit={limit}&after={after}{}", filter.query());
    client.read(client.ask(Method::GET, &path).await?)
}

async fn show(client: &AdminClient, id: u64, json: bool) -> Result<String, AdminError> {
    let answer = client.ask(Method::GET, &format!("{PATH}/{id}")).await?;
    if json { Ok(format!("{answer:#}")) } else { Ok(show_one(&client.read(answer)?)) }
}

impl Filter {
    /// The filter as part of a query, with an `&` before each pair.
    fn query(&self) -> String {
        let times = [("since", self.since), ("until", self.until)];
        let times = times.map(|(name, at)| (name, at.map(|at| at.to_string())));
        let words = [
            ("route", &self.route),
            ("target", &self.target),
            ("client_id", &self.client),
            ("publisher", &self.publisher),
            ("reason", &self.reason),
            ("topic", &self.topic),
            ("status", &self.status),
        ];
        let pairs = words.into_iter().chain(times.iter().map(|(name, at)| (*name, at)));
        let given = pairs.filter_map(|(name, value)| Some((name, value.as_ref()?)));
        given.map(|(name, value)| format!("&{name}={}", encoded(value))).collect()
    }
}

/// A time, or how long ago it was.
fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let ago = humantime::parse_duration(text).ok().and_then(|ago| SignedDuration::try_from(ago).ok());
    let at = ago.and_then(|ago| Timestamp::now().checked_sub(ago).ok());
    at.ok_or_else(|| "write how long ago, like 2h or 3d, or a time like 2026-01-31T12:00:00Z".to_owned())
}
