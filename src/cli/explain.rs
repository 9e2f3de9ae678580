//! `causeway explain`: whom a publish to a topic would reach, and where each path is weakest.

use std::process::ExitCode;

use http::Method;

use super::{
    admin_client::{self, AdminArgs, AdminClient, AdminError, encoded},
    show::{Align, age, count, details, or_dash, size, table},
};
use crate::{
    admin::Explanation,
    auth::Escaped,
    bridge::{BreakerState, ReachedRoute, RouteStatus},
    broker::{Kept, Path, ReachedGroup, ReachedSession},
};

/// Members of a shared group that a list names.
const MEMBERS_SHOWN_MAX: usize = 5;

/// Show whom a publish to a topic would reach, and what each of them is promised.
#[derive(Clone, Debug, clap::Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// The topic name, without wildcards.
    topic: String,
    /// The QoS that it is published with.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// The client that publishes: No Local and the ACL ask for it.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// The user name of that client, for the ACL.
    #[arg(long, value_name = "NAME")]
    user_name: Option<String>,
}

/// Runs the command: 0 when the broker has answered, 1 when not.
pub fn run(args: ExplainArgs) -> ExitCode {
    let admin = args.admin.clone();
    admin_client::run("explain", &admin, async move |client| carry_out(&client, &args).await)
}

async fn carry_out(client: &AdminClient, args: &ExplainArgs) -> Result<String, AdminError> {
    let mut path = format!("/api/v1/explain?topic={}&qos={}", encoded(&args.topic), args.qos);
    for (name, value) in [("client_id", &args.client_id), ("user_name", &args.user_name)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", encoded(value)));
        }
    }
    let answer = client.ask(Method::GET, &path).await?;
    if args.admin.json { Ok(format!("{answer:#}")) } else { Ok(show(&client.read(answer)?)) }
}

fn show(explanation: &Explanation) -> String {
    let Explanation { topic, qos, reach, routes } = explanation;
    let counts = &reach.session_counts;
    let retained = reach.retained.as_ref().map(|retained| {
        let (size, age) = (size(retained.bytes), age(retained.age_seconds));
        format!("{size}, QoS {}, {age} old, by {}", retained.qos, Escaped(&retained.publisher))
    });
    let mut pairs = vec![("topic", format!("{}, published with QoS {qos}", Escaped(topic)))];
    if let Some(allowed) = reach.may_publish {
        let word = if allowed { "may publish there" } else { "may not publish there: nobody gets it" };
        pairs.push(("publisher", word.to_owned()));
    }
    pairs.push(("retained", or_dash(retained)));
    let mut sessions = format!("{}, {} connected", count(counts.all as u64, "session"), counts.online);
    let kinds = [
        (counts.exactly_once, "exactly once"),
        (counts.at_least_once, "at least once"),
        (counts.at_most_once, "at most once"),
        (counts.memory_only, "in memory only"),
    ];
    for (number, kind) in kinds.iter().filter(|(number, _)| *number > 0) {
        sessions.push_str(&format!("; {number} {kind}"));
    }
    pairs.push(("sessions", sessions));
    pairs.push(("groups", count(reach.group_count as u64, "shared group")));
    pairs.push(("routes", count(routes.iter().filter(|route| route.path.is_some()).count() as u64, "route")));
    pairs.push(("weakest", or_dash(weakest(explanation))));
    let parts = [
        details(&pairs),
        show_sessions(&reach.sessions, counts.all),
        show_groups(&reach.groups, reach.group_count),
        show_routes(routes),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Of all paths, the one that promises least.
fn weakest(explanation: &Explanation) -> Option<String> {
    let reach = &explanation.reach;
    let paths = reach.sessions.iter().map(|session| &session.path);
    let paths = paths.chain(reach.groups.iter().map(|group| &group.path));
    let paths = paths.chain(explanation.routes.iter().filter_map(|route| route.path.as_ref()));
    let least = paths.min_by_key(|path| (path.guarantee, path.kept, path.weakest_link.is_none()))?;
    let reason = least.weakest_link.as_ref().map(|weak| format!(": {}", weak.reason));
    let (guarantee, kept) = (least.guarantee.as_str(), least.kept.as_str());
    let place = if least.kept == Kept::Disk { "on" } else { "in" };
    Some(format!("{guarantee}, kept {place} {kept}{}", reason.unwrap_or_default()))
}

/// The columns that every path has: guarantee, where it is kept, weakest link.
fn columns_of(path: Option<&Path>) -> [String; 3] {
    let Some(path) = path else { return ["nothing".to_owned(), "-".to_owned(), "-".to_owned()] };
    let reason = path.weakest_link.as_ref().map(|weak| weak.reason.clone());
    [path.guarantee.as_str().to_owned(), path.kept.as_str().to_owned(), or_dash(reason)]
}

fn show_sessions(sessions: &[ReachedSession], all: usize) -> String {
    let columns = [
        ("CLIENT ID", Align::Left),
        ("STATE", Align::Left),
        ("SESSION", Align::Left),
        ("QOS", Align::Right),
        ("FILTERS", Align::Left),
        ("GUARANTEE", Align::Left),
        ("KEPT IN", Align::Left),
        ("WEAKEST LINK", Align::Left),
    ];
    let row = |session: &ReachedSession| {
        let [guarantee, kept, weakest] = columns_of(Some(&session.path));
        [
            Escaped(&session.client_id).to_string(),
            if session.online { "online" } else { "offline" }.to_owned(),
            if session.durable { "durable" } else { "clean" }.to_owned(),
            session.granted_qos.to_string(),
            Escaped(&session.filters.join(" ")).to_string(),
            guarantee,
            kept,
            weakest,
        ]
    };
    let rows: Vec<_> = sessions.iter().map(row).collect();
    listed(table(columns, &rows), rows.len(), all, "session")
}

fn show_groups(groups: &[ReachedGroup], all: usize) -> String {
    let columns = [
        ("SHARED GROUP", Align::Left),
        ("MEMBERS", Align::Right),
        ("ONLINE", Align::Right),
        ("WHO", Align::Left),
        ("GUARANTEE", Align::Left),
        ("KEPT IN", Align::Left),
        ("WEAKEST LINK", Align::Left),
    ];
    let row = |group: &ReachedGroup| {
        let [guarantee, kept, weakest] = columns_of(Some(&group.path));
        let (members, online) = (group.member_count.to_string(), group.online.to_string());
        let names = group.members.iter().take(MEMBERS_SHOWN_MAX).map(|member| &*member.client_id);
        let mut who = names.collect::<Vec<_>>().join(" ");
        if group.member_count > MEMBERS_SHOWN_MAX {
            who.push_str(" ...");
        }
        let (name, who) = (Escaped(&group.name).to_string(), Escaped(&who).to_string());
        [name, members, online, who, guarantee, kept, weakest]
    };
    let rows: Vec<_> = groups.iter().map(row).collect();
    listed(table(columns, &rows), rows.len(), all, "shared group")
}

fn show_routes(routes: &[ReachedRoute]) -> String {
    let columns = [
        ("ROUTE", Align::Left),
        ("TARGET", Align::Left),
        ("STATE", Align::Left),
        ("QUEUED", Align::Right),
        ("FILTERS", Align::Left),
        ("GUARANTEE", Align::Left),
        ("KEPT IN", Align::Left),
        ("WEAKEST LINK", Align::Left),
    ];
    let row = |route: &ReachedRoute| {
        let [guarantee, kept, mut weakest] = columns_of(route.path.as_ref());
        if let Some(filter) = &route.excluded_by {
            weakest = format!("excluded by {}", Escaped(filter));
        }
        let state = match (route.status, route.breaker) {
            (RouteStatus::Paused, _) => "paused",
            (_, BreakerState::Closed) => "active",
            _ => "target down",
        };
        [
            Escaped(&route.name).to_string(),
            Escaped(&route.target).to_string(),
            state.to_owned(),
            route.queued_messages.to_string(),
            Escaped(&route.filters.join(" ")).to_string(),
            guarantee,
            kept,
            weakest,
        ]
    };
    let rows: Vec<_> = routes.iter().map(row).collect();
    listed(table(columns, &rows), rows.len(), rows.len(), "route")
}

/// A table, with a word about what is left out; nothing when there are no rows.
fn listed(table: String, shown: usize, all: usize, thing: &str) -> String {
    match shown {
        0 => String::new(),
        shown if shown < all => {
            format!("{table}{shown} of {}, the weakest first\n", count(all as u64, thing))
        }
        _ => table,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::{Admin, sessions::attach};
    use crate::broker::{Guarantee, PathCounts, Reach, ReachedMember, RetainedSummary, WeakLink, Weakness};

    fn path(guarantee: Guarantee, kept: Kept, weak: Option<(Weakness, &str)>) -> Path {
        let weakest_link = weak.map(|(link, reason)| WeakLink { link, reason: reason.into() });
        Path { guarantee, kept, weakest_link }
    }

    fn explanation() -> Explanation {
        let session = |client_id: &str, online, durable, path| ReachedSession {
            client_id: client_id.into(),
            online,
            durable,
            granted_qos: 1,
            filters: vec!["plant/#".into()],
            path,
        };
        let clean = Some((Weakness::CleanSession, "clean session of client b: ends with its connection"));
        let member = ReachedMember { client_id: "w".into(), online: true, durable: true, granted_qos: 1 };
        let route = |name: &str, excluded_by: Option<&str>, path| ReachedRoute {
            name: name.into(),
            target: "erp".into(),
            status: RouteStatus::Active,
            breaker: BreakerState::Open,
            queued_messages: 7,
            filters: vec!["plant/+".into()],
            excluded_by: excluded_by.map(Into::into),
            content_filter: None,
            path,
        };
        let down = Some((Weakness::BreakerOpen, "breaker open: target erp is down, the message waits"));
        Explanation {
            topic: "plant/1".into(),
            qos: 1,
            reach: Reach {
                may_publish: Some(true),
                retained: Some(RetainedSummary {
                    bytes: 12,
                    qos: 1,
                    publisher: "x".into(),
                    age_seconds: 192,
                }),
                session_counts: PathCounts {
                    all: 3,
                    online: 1,
                    at_least_once: 3,
                    memory_only: 1,
                    ..Default::default()
                },
                sessions: vec![
                    session("b", true, false, path(Guarantee::AtLeastOnce, Kept::Memory, clean)),
                    session("a", false, true, path(Guarantee::AtLeastOnce, Kept::Disk, None)),
                ],
                group_count: 1,
                groups: vec![ReachedGroup {
                    name: "$share/g/plant/#".into(),
                    member_count: 1,
                    online: 1,
                    members: vec![member],
                    path: path(Guarantee::AtLeastOnce, Kept::Disk, None),
                }],
            },
            routes: vec![
                route("orders", None, Some(path(Guarantee::AtLeastOnce, Kept::Disk, down))),
                route("others", Some("plant/1"), None),
            ],
        }
    }

    #[test]
    fn explain_output() {
        let expected = "\
topic      plant/1, published with QoS 1
publisher  may publish there
retained   12 B, QoS 1, 3m 12s old, by x
sessions   3 sessions, 1 connected; 3 at least once; 1 in memory only
groups     1 shared group
routes     1 route
weakest    at least once, kept in memory: clean session of client b: ends with its connection

CLIENT ID  STATE    SESSION  QOS  FILTERS  GUARANTEE      KEPT IN  WEAKEST LINK
b          online   clean      1  plant/#  at least once  memory   clean session of client b: ends with its connection
a          offline  durable    1  plant/#  at least once  disk     -
2 of 3 sessions, the weakest first

SHARED GROUP      MEMBERS  ONLINE  WHO  GUARANTEE      KEPT IN  WEAKEST LINK
$share/g/plant/#        1       1  w    at least once  disk     -

ROUTE   TARGET  STATE        QUEUED  FILTERS  GUARANTEE      KEPT IN  WEAKEST LINK
orders  erp     target down       7  plant/+  at least once  disk     breaker open: target erp is down, the message waits
others  erp     target down       7  plant/+  nothing        -        excluded by plant/1
";
        assert_eq!(show(&explanation()), expected);
        let nobody = Explanation { topic: "t".into(), qos: 0, reach: Reach::default(), routes: Vec::new() };
        let expected = "\
topic     t, published with QoS 0
retained  -
sessions  0 sessions, 0 connected
groups    0 shared groups
routes    0 routes
weakest   -
";
        assert_eq!(show(&nobody), expected);
    }

    #[tokio::test]
    async fn a_running_broker_is_asked() {
        let admin = Admin::start().await;
        let (_attachment, _link) = attach(&admin, "boat", Some("tides/#")).await;
        let client = AdminClient::to(&admin.address.to_string());
        let args = |topic: &str| ExplainArgs {
            admin: AdminArgs { admin: None, config: None, json: false },
            topic: topic.into(),
            qos: 1,
            client_id: Some("x&y".into()),
            user_name: None,
        };
        let shown = carry_out(&client, &args("tides/a b")).await.unwrap();
        assert!(shown.contains("may publish there") && shown.contains("boat"), "{shown}");
        let error = carry_out(&client, &args("tides/#")).await.unwrap_err().to_string();
        assert!(error.starts_with("the topic ") && error.contains("wildcard"), "{error}");
    }
}
