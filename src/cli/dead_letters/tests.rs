//! Lists, and what is done, against a broker that runs.

use clap::Parser;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::shown::Letter;
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
            "last_status": 422, "last_answer": "no such order", "retain": false, "detail": "why",
            "user_properties": [["k", "1"], ["k", "\u{1b}"]], "idempotency_key": "00000000000000ab-6",
            "tries": [
                { "at": "2023-11-14T22:13:18Z", "latency_ms": 40, "error": "no answer" },
                { "at": "2023-11-14T22:13:19Z", "status": 422, "answer": "no such order" },
            ],
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
id          7
reason      rejected
detail      why
given up    2023-11-14T22:13:20Z
for         orders -> erp
topic       a/b
publisher   boat
qos         1
published   2023-11-14T22:13:17Z
key         00000000000000ab-6
tries       2, from 2023-11-14T22:13:18Z to 2023-11-14T22:13:19Z
properties  k=1 k=\\u{1b}
size        12 B
payload     {\"n\":1}\\r\\n\\u{1b}[

AT                     TOOK  STATUS
2023-11-14T22:13:18Z  40 ms  -       no answer
2023-11-14T22:13:19Z      -  422     no such order
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
        "x list --topic a/+ --since 2h --until 2026-01-31T12:00:00Z --status 4xx --target t --publisher p",
        "x replay --all --rate 50/s --to other --content-type text/plain --set-property a=b=c --remove-property k",
        "x export --out f --route r",
        "x import -",
    ] {
        assert!(parses(good), "{good}");
    }
    for bad in [
        "x replay",
        "x list --since soon",
        "x replay 1 --rate 5/s",
        "x replay --all --rate 0/s",
        "x discard --route r",
        "x discard 1 --all",
        "x replay 1 --route r",
        "x replay x",
    ] {
        assert!(!parses(bad), "{bad}");
    }
    let filter = Filter { route: Some("a b".into()), reason: Some("max_age".into()), ..Filter::default() };
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
    let page: Page = serde_json::from_str(&list(&client, 2, 0, &everything, true).await.unwrap()).unwrap();
    assert_eq!((page.dead_letters.len(), page.next), (2, Some(filed[1])));
    assert!(show(&client, filed[0], false).await.unwrap().contains("orders -> erp"));

    // No route of this name is configured, and no session of this client is there.
    let all = |filter: &Filter| Selection { ids: vec![], all: true, filter: filter.clone() };
    let error = change(&client, &Verb::Replay { rate: None, changes: String::new() }, &all(&orders), false)
        .await
        .unwrap_err()
        .to_string();
    let expected = "replayed 0 dead letters; 3 could not be: route \"orders\" is not configured";
    assert!(error.starts_with(expected), "{error}");

    let some = Selection { ids: vec![filed[0], filed[0]], all: false, filter: Filter::default() };
    let error = change(&client, &Verb::Discard, &some, false).await.unwrap_err().to_string();
    assert!(error.starts_with("discarded 1 dead letter; 1 could not be: there is no dead letter"), "{error}");
    let done = change(&client, &Verb::Discard, &all(&everything), false).await;
    assert_eq!(done.unwrap(), "discarded 3 dead letters");
    assert_eq!(list(&client, 100, 0, &everything, false).await.unwrap(), "no dead letters");
}
