//! `causeway sessions`: the sessions of the running broker, and how to end one.

use std::process::ExitCode;

use http::Method;
use jiff::Timestamp;

use super::{
    admin_client::{self, AdminArgs, AdminClient, AdminError, encoded},
    show::{Align, age, age_at, count, details, or_dash, size, table},
};
use crate::{
    admin::{SessionDetail, SessionList},
    auth::Escaped,
    broker::{SessionSummary, SpaceUse},
    config::QueueView,
    store::Amount,
};

/// List, show and delete the sessions of the running broker.
#[derive(Clone, Debug, clap::Args)]
pub struct SessionsArgs {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    command: SessionsCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum SessionsCommand {
    /// List sessions; what most is kept for comes first.
    List {
        /// Sessions to show at most (1000 at a time).
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Sessions to leave out at the beginning.
        #[arg(long, value_name = "N", default_value_t = 0)]
        offset: usize,
    },
    /// Show one session and its subscriptions.
    Show {
        /// The client id.
        client_id: String,
    },
    /// End a session: its connection, its subscriptions, and all that is kept for it.
    Delete {
        /// The client id.
        client_id: String,
    },
}

/// Runs the command: 0 when it was done, 1 when it was not.
pub fn run(args: SessionsArgs) -> ExitCode {
    let SessionsArgs { admin, command } = args;
    let json = admin.json;
    admin_client::run("sessions", &admin, async move |client| carry_out(&client, command, json).await)
}

async fn carry_out(client: &AdminClient, command: SessionsCommand, json: bool) -> Result<String, AdminError> {
    let (method, path) = match &command {
        SessionsCommand::List { limit, offset } => {
            (Method::GET, format!("/api/v1/sessions?limit={limit}&offset={offset}"))
        }
        SessionsCommand::Show { client_id } => (Method::GET, path_of(client_id)),
        SessionsCommand::Delete { client_id } => (Method::DELETE, path_of(client_id)),
    };
    let answer = client.ask(method, &path).await?;
    let now = Timestamp::now();
    Ok(match command {
        SessionsCommand::Delete { client_id } if json => {
            serde_json::json!({ "deleted": client_id }).to_string()
        }
        SessionsCommand::Delete { client_id } => format!("deleted the session of {}", Escaped(&client_id)),
        _ if json => format!("{answer:#}"),
        SessionsCommand::List { .. } => show_list(&client.read(answer)?, now),
        SessionsCommand::Show { .. } => show_one(&client.read(answer)?, now),
    })
}

fn path_of(client_id: &str) -> String {
    format!("/api/v1/sessions/{}", encoded(client_id))
}

fn show_list(list: &SessionList, now: Timestamp) -> String {
    let columns = [
        ("CLIENT ID", Align::Left),
        ("STATE", Align::Left),
        ("QUEUED", Align::Right),
        ("SIZE", Align::Right),
        ("OLDEST", Align::Right),
        ("SUBSCRIPTIONS", Align::Right),
    ];
    let row = |session: &SessionSummary| {
        [
            Escaped(&session.client_id).to_string(),
            state(session, now),
            session.queued_messages.to_string(),
            size(session.queued_bytes),
            or_dash(session.oldest_age_seconds.map(age)),
            session.subscriptions.to_string(),
        ]
    };
    let rows: Vec<_> = list.sessions.iter().map(row).collect();
    let total = count(list.total as u64, "session");
    let space = show_space(&list.space, now);
    if rows.is_empty() {
        return format!("{total}, none to show{space}");
    }
    let more = if rows.len() < list.total { "; --limit and --offset show others" } else { "" };
    format!("{}\n{} of {total}{more}{space}", table(columns, &rows), rows.len())
}

/// What is kept for others than sessions, and all of it: a message for several is there once.
fn show_space(space: &SpaceUse, now: Timestamp) -> String {
    let columns = [
        ("ALSO KEPT", Align::Left),
        ("COUNT", Align::Right),
        ("SIZE", Align::Right),
        ("OLDEST", Align::Right),
    ];
    let row = |name: String, amount: Amount, oldest: Option<u64>| {
        let then = oldest.and_then(|at| Timestamp::from_millisecond(i64::try_from(at).ok()?).ok());
        let oldest = or_dash(then.map(|then| age_at(now, then)));
        [name, amount.count.to_string(), size(amount.bytes), oldest]
    };
    let others = space
        .others
        .iter()
        .map(|pin| row(format!("for {} {}", pin.kind.as_str(), Escaped(&pin.name)), pin.owed, pin.oldest_at));
    let rest = [("dead letters", space.dead_letters), ("retained messages", space.retained)];
    let rest = rest.into_iter().map(|(name, amount)| row(name.to_owned(), amount, None));
    let rows: Vec<_> = others.chain(rest.filter(|[_, count, ..]| count != "0")).collect();
    let Amount { count: messages, bytes } = space.messages;
    if rows.is_empty() && messages == 0 {
        return String::new();
    }
    let also =
        if rows.is_empty() { String::new() } else { format!("\n\n{}", table(columns, &rows).trim_end()) };
    format!("{also}\n\n{} for all of them, {}", count(messages, "message"), size(bytes))
}

fn show_one(session: &SessionDetail, now: Timestamp) -> String {
    let summary = &session.summary;
    let expiry = match summary.expiry_seconds {
        0 => "ends with its connection".to_owned(),
        u32::MAX => "kept for ever".to_owned(),
        seconds => format!("kept for {} after its connection", age(seconds.into())),
    };
    let mut pairs = vec![
        ("client id", Escaped(&summary.client_id).to_string()),
        ("state", state(summary, now)),
        ("expiry", expiry),
        ("queued", format!("{}, {}", count(summary.queued_messages, "message"), size(summary.queued_bytes))),
        ("oldest", or_dash(summary.oldest_age_seconds.map(age))),
    ];
    pairs.extend(summary.queue.as_ref().map(|queue| ("limits", limits(queue))));
    let filters = session.filters.iter().map(|filter| ("subscription", Escaped(filter).to_string()));
    pairs.extend(filters);
    details(&pairs)
}

fn limits(queue: &QueueView) -> String {
    let age = queue.age_seconds.map_or(String::new(), |seconds| format!(", {} old", age(seconds)));
    let size = size(queue.bytes);
    format!("{}, {size}{age}; then {}", count(queue.messages, "message"), queue.overflow.as_str())
}

fn state(session: &SessionSummary, now: Timestamp) -> String {
    let since =
        session.disconnected_at.and_then(|at| Timestamp::from_millisecond(i64::try_from(at).ok()?).ok());
    match (session.online, since) {
        (true, _) => "online".to_owned(),
        (false, Some(since)) => format!("offline {}", age_at(now, since)),
        (false, None) => "offline".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admin::tests::{Admin, sessions::attach};
    use crate::config::QueueConfig;
    use crate::store::{Pin, PinKind};

    fn summary(client_id: &str) -> SessionSummary {
        SessionSummary {
            client_id: client_id.into(),
            online: false,
            durable: true,
            queued_messages: 12,
            queued_bytes: 1_258_291,
            queue: Some(QueueConfig { age: Some(Duration::from_hours(24)), ..QueueConfig::default() }.into()),
            oldest: Some(7),
            oldest_age_seconds: Some(192),
            subscriptions: 2,
            disconnected_at: Some(1_700_000_000_000),
            expiry_seconds: 3600,
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_700_000_045).unwrap()
    }

    #[test]
    fn a_list_has_a_line_for_each_session() {
        let idle = SessionSummary {
            online: true,
            queued_messages: 0,
            queued_bytes: 0,
            oldest_age_seconds: None,
            disconnected_at: None,
            ..summary("b\u{1b}[2J")
        };
        let space = SpaceUse::default();
        let list = SessionList { total: 12, sessions: vec![summary("boat-7"), idle], space };
        let expected = "\
CLIENT ID   STATE        QUEUED     SIZE  OLDEST  SUBSCRIPTIONS
boat-7      offline 45s      12  1.2 MiB  3m 12s              2
b\\u{1b}[2J  online            0      0 B       -              2

2 of 12 sessions; --limit and --offset show others";
        assert_eq!(show_list(&list, now()), expected);
        let none = SessionList { total: 0, sessions: vec![], space: SpaceUse::default() };
        assert_eq!(show_list(&none, now()), "0 sessions, none to show");
    }

    #[test]
    fn what_is_kept_for_others_stands_below() {
        let amount = |count, bytes| Amount { count, bytes };
        let pin = |kind, name: &str| Pin {
            kind,
            name: name.into(),
            owed: amount(3, 2048),
            oldest_at: Some(1_700_000_000_000),
        };
        let space = SpaceUse {
            messages: amount(5, 4096),
            dead_letters: amount(1, 100),
            retained: Amount::default(),
            others: vec![pin(PinKind::Route, "orders"), pin(PinKind::Group, "$share/g/t")],
        };
        let expected = "

ALSO KEPT             COUNT     SIZE  OLDEST
for route orders          3  2.0 KiB     45s
for group $share/g/t      3  2.0 KiB     45s
dead letters              1    100 B       -

5 messages for all of them, 4.0 KiB";
        assert_eq!(show_space(&space, now()), expected);
    }

    #[test]
    fn one_session_is_shown_with_its_filters() {
        let detail = SessionDetail { summary: summary("boat-7"), filters: vec!["a/#".into(), "b".into()] };
        let expected = "\
client id     boat-7
state         offline 45s
expiry        kept for 1h 0m after its connection
queued        12 messages, 1.2 MiB
oldest        3m 12s
limits        10000000 messages, 4.0 GiB, 1d 0h old; then drop_newest
subscription  a/#
subscription  b
";
        assert_eq!(show_one(&detail, now()), expected);
    }

    #[test]
    fn a_client_id_is_one_part_of_the_path() {
        assert_eq!(path_of("a/b?c=d"), "/api/v1/sessions/a%2Fb%3Fc%3Dd");
        assert_eq!(path_of(".."), "/api/v1/sessions/%2E%2E");
    }

    #[tokio::test]
    async fn a_running_broker_is_asked() {
        let admin = Admin::start().await;
        let (_attachment, _link) = attach(&admin, "a/b ?", Some("tides/#")).await;
        let client = AdminClient::to(&admin.address.to_string());
        let ask = async |command: &SessionsCommand, json| carry_out(&client, command.clone(), json).await;

        let list = SessionsCommand::List { limit: 10, offset: 0 };
        let shown = ask(&list, false).await.unwrap();
        assert!(shown.contains("a/b ?      online"), "{shown}");
        assert!(shown.ends_with("1 of 1 session"), "{shown}");
        let show = SessionsCommand::Show { client_id: "a/b ?".into() };
        assert!(ask(&show, false).await.unwrap().contains("subscription  tides/#"));
        let json: serde_json::Value = serde_json::from_str(&ask(&show, true).await.unwrap()).unwrap();
        assert_eq!(json["filters"], serde_json::json!(["tides/#"]));

        let delete = SessionsCommand::Delete { client_id: "a/b ?".into() };
        assert_eq!(ask(&delete, false).await.unwrap(), "deleted the session of a/b ?");
        let error = ask(&delete, false).await.unwrap_err().to_string();
        assert!(error.starts_with("no session has this client id\n  help: "), "{error}");
        assert_eq!(ask(&list, false).await.unwrap(), "0 sessions, none to show");
    }
}
