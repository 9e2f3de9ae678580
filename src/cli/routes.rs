//! `causeway routes`: how the routes of the running broker fare, and what becomes of what a removed one leaves.

use std::{process::ExitCode, time::Duration};

use http::Method;
use jiff::Timestamp;

use super::{
    admin_client::{self, AdminArgs, AdminClient, AdminError, encoded},
    route_test::{self, RouteTestArgs},
    show::{Align, age, age_at, count, details, one_line, or_dash, size, table},
};
use crate::{
    admin::{RouteDetail, RouteList},
    auth::Escaped,
    bridge::{BreakerState, Rate, RemovedRoute, RouteStatus, TargetState},
};

/// How often the broker is asked how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Characters of an error in a list.
const ERROR_SHOWN_MAX: usize = 60;

/// List, show, pause and resume the routes of the running broker, and settle what a removed one leaves.
#[derive(Clone, Debug, clap::Args)]
pub struct RoutesArgs {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    command: Option<RoutesCommand>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum RoutesCommand {
    #[command(flatten)]
    Live(LiveCommand),
    Test(RouteTestArgs),
}

/// What the running broker is asked.
#[derive(Clone, Debug, clap::Subcommand)]
enum LiveCommand {
    /// List routes (the default).
    List {
        /// One route alone.
        name: Option<String>,
    },
    /// Show everything about one route.
    Show {
        /// The name of the route.
        name: String,
    },
    /// Have nothing sent to a target until it is resumed: what comes waits on disk.
    Pause {
        /// The name of a target, or of a route that leads to it.
        name: String,
        /// What the others are told.
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// End a pause.
    Resume {
        /// The name of a target, or of a route that leads to it.
        name: String,
    },
    /// Make dead letters of what waits for a route that is not configured any more.
    DeadLetter {
        /// The name of the route.
        name: String,
    },
    /// Delete a route that is not configured any more, with what waits for it.
    Discard {
        /// The name of the route.
        name: String,
    },
}

/// Runs the command: 0 when it was done, 1 when it was not.
pub fn run(args: RoutesArgs) -> ExitCode {
    let RoutesArgs { admin, command } = args;
    let command = match command {
        None => LiveCommand::List { name: None },
        Some(RoutesCommand::Live(command)) => command,
        Some(RoutesCommand::Test(args)) => {
            return route_test::run(&args, admin.config.as_deref(), admin.json);
        }
    };
    let json = admin.json;
    admin_client::run("routes", &admin, async move |client| carry_out(&client, command, json).await)
}

async fn carry_out(client: &AdminClient, command: LiveCommand, json: bool) -> Result<String, AdminError> {
    let now = Timestamp::now();
    match command {
        LiveCommand::List { name: None } => {
            let answer = client.ask(Method::GET, "/api/v1/routes").await?;
            if json {
                return Ok(format!("{answer:#}"));
            }
            let RouteList { routes } = client.read(answer)?;
            Ok(show_list(&routes))
        }
        LiveCommand::List { name: Some(name) } | LiveCommand::Show { name } => {
            let answer = client.ask(Method::GET, &path_of(&name)).await?;
            if json { Ok(format!("{answer:#}")) } else { Ok(show_one(&client.read(answer)?, now)) }
        }
        LiveCommand::Pause { name, why } => {
            let query = why.map_or(String::new(), |why| format!("?why={}", encoded(&why)));
            change(client, &format!("{}/pause{query}", target_path_of(&name)), "paused", json).await
        }
        LiveCommand::Resume { name } => {
            change(client, &format!("{}/resume", target_path_of(&name)), "no longer paused", json).await
        }
        LiveCommand::DeadLetter { name } => {
            settle(client, &name, ("dead-letter", "dead letters"), json).await
        }
        LiveCommand::Discard { name } => settle(client, &name, ("discard", "discarded"), json).await,
    }
}

/// Has a target paused or resumed.
async fn change(client: &AdminClient, path: &str, outcome: &str, json: bool) -> Result<String, AdminError> {
    let answer = client.ask(Method::POST, path).await?;
    if json {
        return Ok(format!("{answer:#}"));
    }
    let target: TargetState = client.read(answer)?;
    let why = target.paused.map_or(String::new(), |why| format!(" ({})", one_line(&why)));
    Ok(format!("target {} is {outcome}{why}", Escaped(&target.name)))
}

/// Has a removed route settled, and waits until it is.
async fn settle(
    client: &AdminClient,
    name: &str,
    (verb, outcome): (&str, &str),
    json: bool,
) -> Result<String, AdminError> {
    let answer = client.ask(Method::POST, &format!("{}/{verb}", path_of(name))).await?;
    let owed: RemovedRoute = client.read(answer)?;
    let left = loop {
        let RouteList { routes } = client.read(client.ask(Method::GET, "/api/v1/routes").await?)?;
        let Some(route) = routes.into_iter().find(|route| route.state.name == name) else { break None };
        if !matches!(route.state.status, RouteStatus::DeadLettering | RouteStatus::Discarding) {
            break Some(route.state);
        }
        tokio::time::sleep(PROGRESS_INTERVAL).await;
    };
    let (messages, size) = (count(owed.messages, "message"), size(owed.bytes));
    match left {
        None if json => Ok(serde_json::json!({ outcome: owed.messages, "bytes": owed.bytes }).to_string()),
        None => Ok(format!("{outcome}: {messages}, {size}")),
        Some(state) => {
            let why = state.last_error.map_or_else(|| "it is configured again".into(), |error| error.error);
            Err(AdminError::Partly(format!("{} still wait: {why}", count(state.queued_messages, "message"))))
        }
    }
}

fn path_of(name: &str) -> String {
    format!("/api/v1/routes/{}", encoded(name))
}

/// A route's name will do there, too.
fn target_path_of(name: &str) -> String {
    format!("/api/v1/targets/{}", encoded(name))
}

fn show_list(routes: &[RouteDetail]) -> String {
    let columns = [
        ("ROUTE", Align::Left),
        ("STATE", Align::Left),
        ("TARGET", Align::Left),
        ("QUEUED", Align::Right),
        ("SIZE", Align::Right),
        ("OLDEST", Align::Right),
        ("DONE/S", Align::Right),
        ("IN FLIGHT", Align::Right),
        ("RETRY", Align::Right),
        ("DEAD", Align::Right),
        ("LAST ERROR", Align::Left),
    ];
    let row = |route: &RouteDetail| {
        let state = &route.state;
        let error = state.last_error.as_ref().map(|error| {
            let shown: String = one_line(&error.error).chars().take(ERROR_SHOWN_MAX).collect();
            format!("{} ago: {shown}", age(route.last_error_age_seconds.unwrap_or_default()))
        });
        [
            Escaped(&state.name).to_string(),
            word(route).to_owned(),
            or_dash(Some(Escaped(&state.target).to_string()).filter(|name| !name.is_empty())),
            state.queued_messages.to_string(),
            size(state.queued_bytes),
            or_dash(route.oldest_age_seconds.map(age)),
            rate(state.completed.per_second),
            state.in_flight.to_string(),
            state.waiting_for_retry.to_string(),
            state.dead_letters.to_string(),
            or_dash(error),
        ]
    };
    let rows: Vec<_> = routes.iter().map(row).collect();
    if rows.is_empty() { "no routes".to_owned() } else { table(columns, &rows) }
}

fn show_one(route: &RouteDetail, now: Timestamp) -> String {
    let state = &route.state;
    let per_second = |rate_of: Rate| {
        format!(
            "{} /s (10 s), {} /s (1 min), {} in all",
            rate(rate_of.per_second),
            rate(rate_of.per_second_1m),
            rate_of.total
        )
    };
    let mut pairs = vec![
        ("route", Escaped(&state.name).to_string()),
        ("state", word(route).to_owned()),
        ("target", format!("{} {}", Escaped(&state.target), Escaped(&state.url)).trim().to_owned()),
        (
            "topics",
            or_dash(Some(Escaped(&state.topics.join(" ")).to_string()).filter(|text| !text.is_empty())),
        ),
        ("queued", format!("{}, {}", count(state.queued_messages, "message"), size(state.queued_bytes))),
        ("oldest", or_dash(route.oldest_age_seconds.map(age))),
    ];
    if !state.exclude.is_empty() {
        pairs.push(("exclude", Escaped(&state.exclude.join(" ")).to_string()));
    }
    pairs.extend(state.filter.as_ref().map(|filter| ("filter", one_line(filter))));
    pairs.extend(state.paused.as_ref().map(|why| ("paused", one_line(why))));
    if let Some(queue) = &state.queue {
        let age = queue.age_seconds.map_or(String::new(), |seconds| format!(", {} old", age(seconds)));
        let limits = format!("{}, {}{age}", count(queue.messages, "message"), size(queue.bytes));
        pairs.push(("limits", format!("{limits}; then {}", queue.overflow.as_str())));
    }
    let taken = state.last_taken_at.and_then(|at| Timestamp::from_millisecond(i64::try_from(at).ok()?).ok());
    pairs.extend([
        ("attempts", per_second(state.attempts)),
        ("done", per_second(state.completed)),
        ("last done", or_dash(taken.map(|at| format!("{} ago", age_at(now, at))))),
        ("in flight", state.in_flight.to_string()),
        (
            "waiting",
            format!(
                "{} for the target, {} for another try",
                state.waiting_for_target, state.waiting_for_retry
            ),
        ),
        ("dead letters", format!("{} since the start", state.dead_letters)),
    ]);
    let error = state.last_error.as_ref().map(|error| {
        format!("{} ago: {}", age(route.last_error_age_seconds.unwrap_or_default()), one_line(&error.error))
    });
    pairs.push(("last error", or_dash(error)));
    details(&pairs)
}

fn word(route: &RouteDetail) -> &'static str {
    match (route.state.status, route.state.breaker) {
        (RouteStatus::Active, BreakerState::Closed) => "active",
        (RouteStatus::Active, BreakerState::Open) => "target down",
        (RouteStatus::Active, BreakerState::HalfOpen) => "probing",
        (RouteStatus::Paused, _) => "paused",
        (RouteStatus::Removed, _) => "removed",
        (RouteStatus::DeadLettering, _) => "dead-lettering",
        (RouteStatus::Discarding, _) => "discarding",
    }
}

/// `0`, `0.3`, `12`, `1234`
fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 10.0 {
        format!("{per_second:.1}")
    } else {
        format!("{per_second:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::Admin;
    use crate::bridge::{LastError, RouteState};
    use crate::config::QueueConfig;

    fn route(name: &str) -> RouteDetail {
        RouteDetail {
            state: RouteState {
                name: name.into(),
                target: "erp".into(),
                url: "https://erp.example/in".into(),
                topics: vec!["shop/+/orders".into(), "shop/all".into()],
                exclude: vec!["shop/test/#".into()],
                filter: Some("qos > 0".into()),
                queued_messages: 12,
                queued_bytes: 1_258_291,
                queue: Some(QueueConfig::default().into()),
                attempts: Rate { total: 5000, per_second: 120.4, per_second_1m: 0.25 },
                completed: Rate { total: 4999, per_second: 119.6, per_second_1m: 0.0 },
                in_flight: 3,
                last_error: Some(LastError { error: "answered 503: b\u{1b}usy".into(), at: 1 }),
                ..RouteState::default()
            },
            oldest_age_seconds: Some(192),
            last_error_age_seconds: Some(7),
        }
    }

    #[test]
    fn a_list_has_a_line_for_each_route() {
        let mut down = route("down");
        down.state.breaker = BreakerState::Open;
        let removed = RouteDetail {
            state: RouteState {
                name: "old".into(),
                status: RouteStatus::Removed,
                queued_messages: 3,
                queued_bytes: 100,
                ..RouteState::default()
            },
            oldest_age_seconds: None,
            last_error_age_seconds: None,
        };
        let expected = "\
ROUTE   STATE        TARGET  QUEUED     SIZE  OLDEST  DONE/S  IN FLIGHT  RETRY  DEAD  LAST ERROR
orders  active       erp         12  1.2 MiB  3m 12s     120          3      0     0  7s ago: answered 503: b\\u{1b}usy
down    target down  erp         12  1.2 MiB  3m 12s     120          3      0     0  7s ago: answered 503: b\\u{1b}usy
old     removed      -            3    100 B       -       0          0      0     0  -
";
        assert_eq!(show_list(&[route("orders"), down, removed]), expected);
        assert_eq!(show_list(&[]), "no routes");
    }

    #[test]
    fn one_route_is_shown_whole() {
        let expected = "\
route         orders
state         active
target        erp https://erp.example/in
topics        shop/+/orders shop/all
queued        12 messages, 1.2 MiB
oldest        3m 12s
exclude       shop/test/#
filter        qos > 0
limits        10000000 messages, 4.0 GiB; then drop_newest
attempts      120 /s (10 s), 0.2 /s (1 min), 5000 in all
done          120 /s (10 s), 0 /s (1 min), 4999 in all
last done     -
in flight     3
waiting       0 for the target, 0 for another try
dead letters  0 since the start
last error    7s ago: answered 503: b\\u{1b}usy
";
        assert_eq!(show_one(&route("orders"), Timestamp::UNIX_EPOCH), expected);
    }

    #[tokio::test]
    async fn a_running_broker_is_asked() {
        let admin = Admin::start().await;
        let client = AdminClient::to(&admin.address.to_string());
        let list = LiveCommand::List { name: None };
        assert_eq!(carry_out(&client, list, false).await.unwrap(), "no routes");
        for command in [
            LiveCommand::Show { name: "a b".into() },
            LiveCommand::Discard { name: "a b".into() },
            LiveCommand::DeadLetter { name: "a b".into() },
        ] {
            let error = carry_out(&client, command, false).await.unwrap_err().to_string();
            assert!(error.starts_with("there is no route \"a b\"\n  help: "), "{error}");
        }
    }
}
