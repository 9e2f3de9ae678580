//! `causeway dead-letters`: the messages that the running broker has given up, and what becomes of them.

use std::process::ExitCode;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    admin_client::{self, AdminArgs, AdminClient, AdminError, encoded},
    show::{Align, age_at, count, details, or_dash, size, table},
};
use crate::{admin::Done, auth::Escaped, bridge::excerpt};

const PATH: &str = "/api/v1/dead-letters";
/// Bytes of a payload that fit on a line of a list, and on one of a single letter.
const LISTED_LEN_MAX: usize = 32;
const SHOWN_LEN_MAX: usize = 1000;

/// List, show, replay and discard the messages that the running broker has given up.
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
    /// Show one dead letter.
    Show {
        /// Its number.
        id: u64,
    },
    /// Deliver dead letters after all: each goes back to the queue of the one it was for.
    Replay(Selection),
    /// Throw dead letters away.
    Discard(Selection),
}

/// Which letters are meant.
#[derive(Clone, Debug, Default, clap::Args)]
struct Filter {
    /// Only those of this route.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Only those of this client's session.
    #[arg(long, value_name = "CLIENT_ID")]
    client: Option<String>,
    /// Only those with this reason, such as max_age or rejected.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
}

#[derive(Clone, Debug, clap::Args)]
struct Selection {
    /// Their numbers.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with_all = ["all", "Filter"])]
    ids: Vec<u64>,
    /// All of them, or all that the options below leave.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
}

/// What is done to letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Replay,
    Discard,
}

/// A part of the list, as the broker gives it.
#[derive(Debug, Deserialize)]
struct Page {
    dead_letters: Vec<Value>,
    next: Option<u64>,
}

/// What is shown of a letter. What does not apply to it is not there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Letter {
    id: u64,
    reason: String,
    created_at: Option<String>,
    published_at: Option<String>,
    expires_at: Option<String>,
    route: Option<String>,
    target: Option<String>,
    client_id: Option<String>,
    topic: String,
    publisher: String,
    qos: u8,
    attempts: Option<u32>,
    last_attempt_at: Option<String>,
    last_status: Option<u16>,
    last_answer: Option<String>,
    last_error: Option<String>,
    content_type: Option<String>,
    payload_len: u64,
    payload_base64: String,
}

/// Runs the command: 0 when it was done, 1 when it was not.
pub fn run(args: DeadLettersArgs) -> ExitCode {
    let DeadLettersArgs { admin, command } = args;
    let json = admin.json;
    admin_client::run("dead-letters", &admin, async move |client| match command {
        DeadLettersCommand::List { limit, after, filter } => list(&client, limit, after, &filter, json).await,
        DeadLettersCommand::Show { id } => show(&client, id, json).await,
        DeadLettersCommand::Replay(selection) => change(&client, Verb::Replay, &selection, json).await,
        DeadLettersCommand::Discard(selection) => change(&client, Verb::Discard, &selection, json).await,
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
        let left = limit - letters.len();
        let path = format!("{PATH}?limit={left}&after={after}{}", filter.query());
        let page: Page = client.read(client.ask(Method::GET, &path).await?)?;
        letters.extend(page.dead_letters);
        next = page.next;
    }
    if json {
        return Ok(format!("{:#}", json!({ "dead_letters": letters, "next": next })));
    }
    let letters = letters.into_iter().map(|letter| client.read(letter)).collect::<Result<Vec<_>, _>>()?;
    Ok(show_list(&letters, next, Timestamp::now()))
}

async fn show(client: &AdminClient, id: u64, json: bool) -> Result<String, AdminError> {
    let answer = client.ask(Method::GET, &format!("{PATH}/{id}")).await?;
    if json { Ok(format!("{answer:#}")) } else { Ok(show_one(&client.read(answer)?)) }
}

/// Does something to the letters that were named, or to all that are meant.
async fn change(
    client: &AdminClient,
    verb: Verb,
    selection: &Selection,
    json: bool,
) -> Result<String, AdminError> {
    let mut done = Done::default();
    if selection.all {
        let path = format!("{PATH}/{}-all?{}", verb.name(), selection.filter.query());
        done = client.read(client.ask(Method::POST, &path).await?)?;
    }
    for id in &selection.ids {
        let asked = match verb {
            Verb::Replay => client.ask(Method::POST, &format!("{PATH}/{id}/replay")).await,
            Verb::Discard => client.ask(Method::DELETE, &format!("{PATH}/{id}")).await,
        };
        match asked {
            Ok(_) => done.done += 1,
            Err(AdminError::Refused { error, .. }) => done.leave(error),
            Err(other) => return Err(other),
        }
    }
    if json {
        return Ok(format!("{:#}", json!(done)));
    }
    let text = format!("{} {}", verb.done(), count(done.done, "dead letter"));
    match done.why {
        None => Ok(text),
        Some(why) => Err(AdminError::Partly(format!("{text}; {} could not be: {why}", done.left))),
    }
}

fn show_list(letters: &[Letter], next: Option<u64>, now: Timestamp) -> String {
    let columns = [
        ("ID", Align::Right),
        ("AGE", Align::Right),
        ("REASON", Align::Left),
        ("FOR", Align::Left),
        ("TOPIC", Align::Left),
        ("TRIES", Align::Right),
        ("LAST", Align::Left),
        ("SIZE", Align::Right),
        ("PAYLOAD", Align::Left),
    ];
    if letters.is_empty() {
        return "no dead letters".to_owned();
    }
    let rows: Vec<_> = letters.iter().map(|letter| row(letter, now)).collect();
    let more = next.map(|next| format!("; there may be more: --after {next}")).unwrap_or_default();
    format!("{}\n{}{more}", table(columns, &rows), count(letters.len() as u64, "dead letter"))
}

fn row(letter: &Letter, now: Timestamp) -> [String; 9] {
    [
        letter.id.to_string(),
        or_dash(letter.created_at().map(|at| age_at(now, at))),
        letter.reason.clone(),
        letter.addressee(),
        Escaped(&letter.topic).to_string(),
        letter.attempts.unwrap_or_default().to_string(),
        or_dash(letter.last().map(|last| excerpt(last.as_bytes(), LISTED_LEN_MAX))),
        size(letter.payload_len),
        letter.payload(LISTED_LEN_MAX),
    ]
}

fn show_one(letter: &Letter) -> String {
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let safe = |text| said(text).map(|text| excerpt(text.as_bytes(), SHOWN_LEN_MAX));
    let tries = letter
        .attempts
        .map(|attempts| format!("{attempts}, the last {}", or_dash(letter.last_attempt_at.clone())));
    let pairs = [
        ("id", Some(letter.id.to_string())),
        ("reason", Some(letter.reason.clone())),
        ("given up", letter.created_at.clone()),
        ("for", Some(letter.addressee())),
        ("topic", Some(excerpt(letter.topic.as_bytes(), SHOWN_LEN_MAX))),
        ("publisher", Some(Escaped(&letter.publisher).to_string())),
        ("qos", Some(letter.qos.to_string())),
        ("published", letter.published_at.clone()),
        ("expires", letter.expires_at.clone()),
        ("tries", tries.or_else(|| Some("none".to_owned()))),
        ("last status", letter.last_status.map(|status| status.to_string())),
        ("last answer", safe(&letter.last_answer)),
        ("last error", safe(&letter.last_error)),
        ("content type", safe(&letter.content_type)),
        ("size", Some(size(letter.payload_len))),
        ("payload", Some(letter.payload(SHOWN_LEN_MAX))),
    ];
    let known = pairs.into_iter().filter_map(|(name, value)| Some((name, value?)));
    details(&known.collect::<Vec<_>>())
}

impl Letter {
    fn created_at(&self) -> Option<Timestamp> {
        self.created_at.as_ref()?.parse().ok()
    }

    fn addressee(&self) -> String {
        match (&self.route, &self.target, &self.client_id) {
            (Some(route), Some(target), _) => format!("{} -> {}", Escaped(route), Escaped(target)),
            (_, _, Some(client_id)) => format!("client {}", Escaped(client_id)),
            _ => "-".to_owned(),
        }
    }

    /// How the last attempt ended, in a word or a few.
    fn last(&self) -> Option<String> {
        self.last_status.map(|status| status.to_string()).or_else(|| self.last_error.clone())
    }

    fn payload(&self, len_max: usize) -> String {
        let payload = BASE64_STANDARD.decode(&self.payload_base64).unwrap_or_default();
        let shown = excerpt(&payload, len_max);
        if payload.len() > len_max { format!("{shown}...") } else { shown }
    }
}

impl Filter {
    /// The filter as part of a query, with an `&` before each pair.
    fn query(&self) -> String {
        let pairs = [("route", &self.route), ("client_id", &self.client), ("reason", &self.reason)];
        let given = pairs.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        given.map(|(name, value)| format!("&{name}={}", encoded(value))).collect()
    }
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Discard => "discard",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Discard => "discarded",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::admin::tests::{Admin, dead_letters::file};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: DeadLettersArgs,
    }

    fn letters() -> Vec<Letter> {
        let json = json!([
            {
                "id": 7, "reason": "rejected", "created_at": "2023-11-14T22:13:20Z", "route": "orders",
                "target": "erp", "topic": "a/b", "publisher": "boat", "qos": 1, "attempts": 2,
                "first_attempt_at": "2023-11-14T22:13:18Z", "last_attempt_at": "2023-11-14T22:13:19Z",
                "last_status": 422, "last_answer": "no such order", "retain": false,
                "published_at": "2023-11-14T22:13:17Z", "payload_len": 12,
                "payload_base64": BASE64_STANDARD.encode("{\"n\":1}\r\n\u{1b}["),
            },
            {
                "id": 12, "reason": "queue_full", "created_at": "2023-11-14T20:00:00Z",
                "client_id": "c\u{202e}", "topic": "t", "publisher": "boat", "qos": 2,
                "published_at": null, "payload_len": 1_258_291,
                "payload_base64": BASE64_STANDARD.encode("x".repeat(40)),
            },
        ]);
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_list_has_a_line_for_each_letter_and_nothing_acts_on_the_terminal() {
        let now = "2023-11-14T22:16:32Z".parse().unwrap();
        let expected = "\
ID     AGE  REASON      FOR               TOPIC  TRIES  LAST     SIZE  PAYLOAD
 7  3m 12s  rejected    orders -> erp     a/b        2  422      12 B  {\"n\":1}\\r\\n\\u{1b}[
12  2h 16m  queue_full  client c\\u{202e}  t          0  -     1.2 MiB  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...

2 dead letters; there may be more: --after 12";
        let shown = show_list(&letters(), Some(12), now);
        assert_eq!(shown, expected);
        assert_eq!(show_list(&[], None, now), "no dead letters");
    }

    #[test]
    fn one_letter_shows_all_that_is_known() {
        let shown = letters().iter().map(show_one).collect::<Vec<_>>();
        let expected = "\
id           7
reason       rejected
given up     2023-11-14T22:13:20Z
for          orders -> erp
topic        a/b
publisher    boat
qos          1
published    2023-11-14T22:13:17Z
tries        2, the last 2023-11-14T22:13:19Z
last status  422
last answer  no such order
size         12 B
payload      {\"n\":1}\\r\\n\\u{1b}[
";
        assert_eq!(shown[0], expected);
        assert!(shown[1].contains("tries      none\n"), "{}", shown[1]);
    }

    #[test]
    fn letters_are_named_by_number_or_by_all() {
        let parses = |line: &str| Cli::try_parse_from(line.split_whitespace()).is_ok();
        for good in [
            "x list --route orders --json",
            "x replay 1 2 3",
            "x replay --all --reason max_age --admin localhost:1",
            "x discard --all",
            "x --admin localhost:1 show 7",
        ] {
            assert!(parses(good), "{good}");
        }
        for bad in
            ["x replay", "x discard --route r", "x discard 1 --all", "x replay 1 --route r", "x replay x"]
        {
            assert!(!parses(bad), "{bad}");
        }
        let filter = Filter { route: Some("a b".into()), client: None, reason: Some("max_age".into()) };
        assert_eq!(filter.query(), "&route=a%20b&reason=max%5Fage");
        assert_eq!(Filter::default().query(), "");
    }

    #[tokio::test]
    async fn a_running_broker_is_asked() {
        let admin = Admin::start().await;
        let filed = file(&admin).await;
        let client = AdminClient::to(&admin.address.to_string());
        let everything = Filter::default();
        let orders = Filter { route: Some("orders".into()), ..Filter::default() };
        let shown = list(&client, 100, 0, &orders, false).await.unwrap();
        assert!(shown.ends_with("3 dead letters"), "{shown}");
        let page: Page =
            serde_json::from_str(&list(&client, 2, 0, &everything, true).await.unwrap()).unwrap();
        assert_eq!((page.dead_letters.len(), page.next), (2, Some(filed[1])));
        assert!(show(&client, filed[0], false).await.unwrap().contains("orders -> erp"));

        // No route of this name is configured, and no session of this client is there.
        let all = |filter: &Filter| Selection { ids: vec![], all: true, filter: filter.clone() };
        let error = change(&client, Verb::Replay, &all(&orders), false).await.unwrap_err().to_string();
        let expected = "replayed 0 dead letters; 3 could not be: route \"orders\" is not configured any more";
        assert!(error.starts_with(expected), "{error}");

        let some = Selection { ids: vec![filed[0], filed[0]], all: false, filter: Filter::default() };
        let error = change(&client, Verb::Discard, &some, false).await.unwrap_err().to_string();
        assert!(
            error.starts_with("discarded 1 dead letter; 1 could not be: there is no dead letter"),
            "{error}"
        );
        let done = change(&client, Verb::Discard, &all(&everything), false).await;
        assert_eq!(done.unwrap(), "discarded 3 dead letters");
        assert_eq!(list(&client, 100, 0, &everything, false).await.unwrap(), "no dead letters");
    }
}
