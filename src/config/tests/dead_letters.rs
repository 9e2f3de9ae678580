//! `[dead_letters]`, and where the dead letters of a route go.

use crate::config::{Config, SinkConfig, WhenFull};

const TARGETS: &str = "[targets.t]\nurl = \"http://h\"\n[targets.u]\nurl = \"http://h\"\n";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, "c.toml").map_err(|error| error.to_string())
}

fn route(name: &str, more: &str) -> String {
    format!("[[routes]]\nname = \"{name}\"\ntopics = [\"a\"]\ntarget = \"t\"\n{more}\n")
}

#[test]
fn what_is_kept_is_said_by_topic_filters() {
    let text = "[dead_letters]\noversize = []\nunroutable = [\"a/+\", \"b\"]\nwhen_full = \"drop_oldest\"\nage = \"1d\"";
    let read = parse(text).unwrap().dead_letters;
    assert_eq!((read.oversize.len(), read.expired.len()), (0, 0));
    assert_eq!((read.unroutable, read.when_full), (vec!["a/+".into(), "b".into()], WhenFull::DropOldest));
    assert_eq!(read.age.map(|age| age.as_secs()), Some(86_400));
    assert_eq!(parse("").unwrap().dead_letters.oversize, ["#"]);
    for (wrong, why) in [
        ("expired = [\"a/#/b\"]", "dead_letters.expired has \"a/#/b\", which is no topic filter"),
        ("age = \"1ms\"", "dead_letters.age must be at least 1s"),
        ("when_full = \"panic\"", "dead_letters.when_full must be one of keep_oldest, drop_oldest"),
    ] {
        let error = parse(&format!("[dead_letters]\n{wrong}")).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_second_target_is_a_route_of_its_own() {
    let sink = "dead_letter_sink = \"u\"\nqueued_messages = 7";
    let config = parse(&format!("{TARGETS}{}{}", route("r", sink), route("s", ""))).unwrap();
    let [r, s, of_r] = &config.routes[..] else { panic!("{:?}", config.routes) };
    assert_eq!((r.dead_letters.topic.as_deref(), &s.dead_letters), (Some("$dead"), &SinkConfig::default()));
    assert_eq!((of_r.name.as_str(), of_r.target.as_str(), of_r.queue.messages), ("r.dead", "u", 7));
    assert_eq!(
        (&of_r.topics[..], &of_r.dead_letters),
        (&["$dead/r/#".to_owned()][..], &SinkConfig::default())
    );
    let elsewhere = "dead_letter_sink = \"u\"\ndead_letter_topic = \"$gone\"";
    let config = parse(&format!("{TARGETS}{}", route("r", elsewhere))).unwrap();
    assert_eq!(config.routes[1].topics, ["$gone/r/#"]);
}

#[test]
fn a_sink_that_leads_nowhere_is_refused() {
    for (routes, why) in [
        (
            route("r", "dead_letter_sink = \"v\""),
            "routes.dead_letter_sink names \"v\", but there is no such target",
        ),
        (
            route("r", "dead_letter_topic = \"dead\""),
            "routes.dead_letter_topic must be one level that begins with $",
        ),
        (route("r", "dead_letter_topic = \"$SYS\""), "routes.dead_letter_topic must be one level"),
        (
            route("r", "dead_letter_sink = \"u\"") + &route("r.dead", ""),
            "\"r.dead\" is the route to the second target of route \"r\"",
        ),
        (
            route("r.dead", "") + &route("r", "dead_letter_sink = \"u\""),
            "\"r.dead\", the route to its second target, is the name of another route",
        ),
    ] {
        let error = parse(&format!("{TARGETS}{routes}")).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
