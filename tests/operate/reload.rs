//! Another configuration for a broker that runs, and what becomes of routes that are gone.

use crate::wire::{Broker, Client, Connect, Publish, ack};
use crate::{config, eventually, server, stderr, stdout};

const ROUTE: &str = "[[routes]]\nname = \"r\"\ntopics = [\"plant/#\"]\ntarget = \"t\"\n";

fn publish(client: &mut Client, topic: &str, count: u16) {
    for id in 1..=count {
        client.ask(&Publish::new(topic, id.to_string()).qos(1, id).v5(), &ack(0x40, id));
    }
}

fn queued(broker: &Broker) -> Vec<(String, u64)> {
    let routes = broker.ask(&["routes"])["routes"].as_array().unwrap().clone();
    let state = |route: &serde_json::Value| {
        (route["status"].as_str().unwrap().to_owned(), route["queued_messages"].as_u64().unwrap())
    };
    routes.iter().map(state).collect()
}

fn is(status: &str, messages: u64) -> Vec<(String, u64)> {
    vec![(status.to_owned(), messages)]
}

#[test]
fn a_route_is_moved_to_another_target_and_its_backlog_goes_with_it() {
    let server = server();
    let broker = Broker::start(&config(&server, "/down", ROUTE));
    let mut client = broker.connect(&Connect::v5("p"));
    publish(&mut client, "plant/1", 5);
    assert_eq!(queued(&broker), is("active", 5));

    broker.configure(&config(&server, "/ok", ROUTE));
    let reloaded = broker.run(&["reload"]);
    assert!(reloaded.status.success(), "{}", stderr(&reloaded));
    assert!(stdout(&reloaded).contains("changed routes: r"), "{}", stdout(&reloaded));
    eventually("the backlog is drained", || queued(&broker) == is("active", 0));
    let again = broker.run(&["reload"]);
    assert!(!stdout(&again).contains("routes:"), "nothing has changed: {}", stdout(&again));
}

#[test]
fn a_wrong_file_is_refused_with_its_line_and_the_old_one_stays() {
    let server = server();
    let broker = Broker::start(&config(&server, "/ok", ROUTE));
    broker.configure(&config(
        &server,
        "/ok",
        "[[routes]]\nname = \"r\"\ntopics = [\"plant/#\"]\ntarget = \"u\"\n",
    ));
    let reloaded = broker.run(&["reload"]);
    assert_eq!(reloaded.status.code(), Some(1));
    let said = stderr(&reloaded);
    assert!(said.contains("causeway.toml:") && said.contains("did you mean \"t\"?"), "{said}");
    publish(&mut broker.connect(&Connect::v5("p")), "plant/1", 1);
    server.wait_for(1);
}

#[test]
fn removing_a_route_with_a_backlog_asks() {
    let server = server();
    let broker = Broker::start(&config(&server, "/down", ROUTE));
    let mut client = broker.connect(&Connect::v5("p"));
    publish(&mut client, "plant/1", 3);
    let without = config(&server, "/down", "");
    broker.configure(&without);
    let asked = broker.run(&["reload"]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(stderr(&asked).contains("r (3 messages)"), "{}", stderr(&asked));
    assert!(stderr(&asked).contains("--removed keep"), "{}", stderr(&asked));
    assert_eq!(queued(&broker), is("active", 3), "nothing has changed");
    let refused = broker.run(&["routes", "discard", "r"]);
    assert!(stderr(&refused).contains("is configured"), "{}", stderr(&refused));

    // A signal cannot ask: it keeps them.
    broker.reload(&without);
    eventually("the route is removed", || queued(&broker) == is("removed", 3));
    assert!(broker.log().contains("causeway routes dead-letter"), "{}", broker.log());
    client.ask(&Publish::new("plant/1", "late").qos(1, 9).v5(), &[0x40, 3, 0, 9, 0x10]);

    let done = broker.run(&["routes", "dead-letter", "r"]);
    assert!(stdout(&done).starts_with("dead letters: 3 messages"), "{} {}", stdout(&done), stderr(&done));
    assert_eq!(queued(&broker), []);
    let letters = broker.ask(&["dead-letters", "list"]);
    assert_eq!(letters["dead_letters"].as_array().unwrap().len(), 3);
    assert_eq!(letters["dead_letters"][0]["reason"], "target_removed");
}

#[test]
fn what_waits_for_a_route_that_was_gone_at_the_start_is_discarded_or_carried() {
    let server = server();
    let mut broker = Broker::start(&config(&server, "/down", ROUTE));
    publish(&mut broker.connect(&Connect::v5("p")), "plant/1", 4);
    broker.restart_with(&config(&server, "/down", ""));
    assert_eq!(queued(&broker), is("removed", 4));
    broker.configure(&config(&server, "/ok", ROUTE));
    assert!(stdout(&broker.run(&["reload"])).contains("new routes: r"));
    eventually("the backlog is drained", || queued(&broker) == is("active", 0));

    broker.restart_with(&config(&server, "/down", ROUTE));
    publish(&mut broker.connect(&Connect::v5("p")), "plant/1", 2);
    broker.configure(&config(&server, "/down", ""));
    let discarded = broker.run(&["reload", "--removed", "discard"]);
    assert!(stdout(&discarded).contains("removed routes: r (2 messages"), "{}", stderr(&discarded));
    eventually("it is gone", || queued(&broker).is_empty());
    broker.crash();
    assert_eq!(queued(&broker), [], "and stays gone");
}

#[test]
fn a_crash_while_a_removed_route_is_settled_loses_nothing() {
    const MESSAGES: u64 = 4000;
    let server = server();
    let mut broker = Broker::start(&config(&server, "/down", ROUTE));
    let mut client = broker.connect(&Connect::v5("p"));
    for _ in 0..MESSAGES / 50 {
        let packets = (1..=50).flat_map(|id| Publish::new("plant/1", "x").qos(1, id).v5());
        client.send(&packets.collect::<Vec<_>>());
        (1..=50).for_each(|id| client.expect(&ack(0x40, id)));
    }
    broker.configure(&config(&server, "/down", ""));
    let letters = |broker: &Broker| -> u64 {
        let all = broker.ask(&["dead-letters", "list", "--limit", "10000"]);
        all["dead_letters"].as_array().unwrap().len() as u64
    };
    assert!(broker.run(&["reload", "--removed", "dead-letter"]).status.success());
    broker.crash();
    let left = queued(&broker).first().map_or(0, |(_, messages)| *messages);
    assert_eq!(letters(&broker) + left, MESSAGES, "each message is in one of the two places");
    // With nothing left there is nothing to settle.
    assert!(broker.run(&["routes", "dead-letter", "r"]).status.success());
    broker.crash();
    assert_eq!((letters(&broker), queued(&broker)), (MESSAGES, vec![]));
}

#[test]
fn explain_names_who_would_get_a_message() {
    let server = server();
    let broker = Broker::start(&config(&server, "/ok", ROUTE));
    let mut durable = broker.connect(&Connect::v5("keeper").expiry(60));
    durable.subscribe("plant/+", 1);
    let mut clean = broker.connect(&Connect::v5("passer"));
    clean.subscribe("plant/1", 0);
    let explained = broker.run(&["explain", "plant/1", "--qos", "2"]);
    let said = stdout(&explained);
    for part in [
        "2 sessions, 2 connected; 1 at least once; 1 at most once; 1 in memory only",
        "QoS 0 subscription of client passer",
        "QoS 1 subscription of client keeper",
        "HTTP knows no exactly once",
        "weakest   at most once, kept in memory: QoS 0 subscription of client passer",
    ] {
        assert!(
            said.contains(part),
            "{part}:
{said}"
        );
    }
    let json = broker.ask(&["explain", "plant/1", "--client-id", "keeper"]);
    assert_eq!((&json["may_publish"], &json["routes"][0]["name"]), (&true.into(), &"r".into()));
}
