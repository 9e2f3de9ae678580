//! Whole configurations: the shipped ones, and what holds for all of them.

use std::{collections::BTreeSet, fs, time::Duration};

use http::HeaderMap;

use super::*;

mod dead_letters;
mod refused;

const SHIPPED: &str = include_str!("../../../config/causeway.toml");
const HTTP_ROUTES: &str = include_str!("../../../config/http-routes.toml");

/// The shipped file with every key that is commented out put in force.
fn uncommented() -> String {
    let is_key = |text: &str| text.split_once(" = ").is_some_and(|(key, _)| is_word(key));
    let is_header = |text: &str| text.starts_with('[') && text.ends_with(']');
    let line = |line: &str| match line.strip_prefix("# ") {
        Some(text) if is_key(text) || is_header(text) => text.to_owned(),
        _ => line.to_owned(),
    };
    SHIPPED.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// What is said about one mistake, without the source line.
fn said(mistake: &Mistake) -> String {
    let place =
        mistake.place.as_ref().map_or(String::new(), |place| format!("{}:{}: ", place.line, place.column));
    format!("{place}{} = {}", mistake.message, mistake.help.as_deref().unwrap_or_default())
}

fn mistakes(text: &str) -> Vec<String> {
    match Config::parse(text, "a.toml") {
        Ok(config) => panic!("accepted: {text}\n{config:?}"),
        Err(error) => error.mistakes.iter().map(said).collect(),
    }
}

#[test]
fn without_a_word_the_defaults_apply() {
    assert_eq!(Config::parse("", "a.toml"), Ok(Config::default()));
    let empty = "[store]\n[auth]\n[mqtt]\n[limits]\n[targets]\n[admin]\n[log]\n";
    assert_eq!(Config::parse(empty, "a.toml"), Ok(Config::default()));
}

#[test]
fn the_shipped_file_says_the_defaults() {
    assert_eq!(Config::parse(SHIPPED, "causeway.toml"), Ok(Config::default()));
}

#[test]
fn every_optional_key_of_the_shipped_file_parses() {
    // The environment of a test is shared; PATH is set in all of them.
    let names = ["SHORE_TOKEN", "SHORE_PROXY_PASSWORD", "SHORE_SECRET"];
    let text = names.iter().fold(uncommented(), |text, name| text.replace(name, "PATH"));
    let config = Config::parse(&text, "causeway.toml").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.listeners[0].connections_max, Some(50_000));
    assert_eq!(config.listeners[1].tls.as_ref().unwrap().client_ca, Some("certs/clients.pem".into()));
    assert_eq!(config.auth.anonymous, Some(true));
    assert_eq!(config.auth.acl_file, Some("acl".into()));
    let target = &config.targets["shore"];
    assert_eq!(target.headers.len(), 1);
    assert_eq!(target.signing.len(), 1);
    assert!(target.proxy.is_some() && target.token_url().is_some() && target.tls.identity.is_some());
    assert_eq!(target.addresses.listed.len(), 1);
    assert_eq!(target.rate.map(|rate| rate.requests.get()), Some(100));
    assert_eq!(target.breaker.slow_call, Some(Duration::from_secs(5)));
    let shown = TargetConfig {
        headers: HeaderMap::new(),
        auth: TargetAuth::None,
        tls: TargetTls::default(),
        addresses: Addresses::default(),
        proxy: None,
        rate: None,
        signing: Vec::new(),
        breaker: BreakerConfig { slow_call: None, ..target.breaker.clone() },
        ..target.clone()
    };
    assert_eq!(
        shown,
        TargetConfig::new(target.url.clone()),
        "the shipped file shows the defaults of a target"
    );
    let names: Vec<_> = config.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["telemetry", "archive", "telemetry.dead"], "with one to its second target");
    assert_eq!(config.mqtt.response_information.as_deref(), Some("response/{client_id}/"));
    assert_eq!(config.redirect, Some(RedirectConfig { to: "other.example:1883".into(), permanent: false }));
}

/// Each reader is asked what it knows: a table with one unknown key gets the list of known ones.
#[test]
fn the_shipped_file_has_every_key() {
    let sections = [
        ("[store]", ""),
        ("[[listeners]]", "address = \"127.0.0.1:1\""),
        ("[listeners.tls]", "certificate = \"c\"\nkey = \"k\"\n[[listeners]]\naddress = \"127.0.0.1:1\""),
        ("[listeners.websocket]", ""),
        ("[auth]", ""),
        ("[mqtt]", ""),
        ("[redirect]", "to = \"h\""),
        ("[limits]", ""),
        ("[dead_letters]", ""),
        ("[shared]", ""),
        ("[retain]", ""),
        ("[sys]", ""),
        ("[admin]", ""),
        ("[log]", ""),
        ("[targets.t]", "url = \"http://h\""),
        ("[targets.t.tls]", "[targets.t]\nurl = \"http://h\""),
        (
            "[targets.t.auth]",
            "kind = \"oauth2\"\ntoken_url = \"https://h\"\nclient_id = \"c\"\nclient_secret = \"s\"\n\
             [targets.t]\nurl = \"http://h\"",
        ),
        ("[targets.t.retry]", "[targets.t]\nurl = \"http://h\""),
        ("[targets.t.status]", "[targets.t]\nurl = \"http://h\""),
        ("[targets.t.breaker]", "[targets.t]\nurl = \"http://h\""),
        (
            "[targets.t.signing]",
            "keys = [\"whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"]\n[targets.t]\nurl = \"http://h\"",
        ),
        ("[[routes]]", "name = \"n\"\ntopics = [\"t\"]\ntarget = \"t\"\n[targets.t]\nurl = \"http://h\""),
        ("[routes.request]", ""),
        ("[routes.request.cloudevents]", ""),
    ];
    let text = uncommented();
    let present: BTreeSet<&str> = text.lines().filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
    for (section, rest) in sections {
        let text = match section {
            "[listeners.websocket]" => {
                "[[listeners]]\naddress = \"127.0.0.1:2\"\n[listeners.websocket]\nqqqqqqq = 1\n".to_owned()
            }
            "[routes.request]" | "[routes.request.cloudevents]" => format!(
                "[targets.t]\nurl = \"http://h\"\n[[routes]]\nname = \"n\"\ntopics = [\"t\"]\ntarget = \"t\"\n\
                 {section}\nqqqqqqq = 1\n"
            ),
            "[listeners.tls]" => {
                "[[listeners]]\naddress = \"127.0.0.1:2\"\n[listeners.tls]\nqqqqqqq = 1\n".to_owned()
            }
            _ => format!("{section}\nqqqqqqq = 1\n"),
        };
        let error = Config::parse(&(text + rest), "a.toml").unwrap_err();
        assert_eq!(error.mistakes.len(), 1, "{section}: {error}");
        let help = error.mistakes[0].help.as_deref().unwrap();
        for key in help.strip_prefix("known here: ").unwrap().split(", ") {
            let is_table = text_has_table(key);
            assert!(present.contains(key) || is_table, "{section} {key} is not in config/causeway.toml");
        }
    }
}

fn text_has_table(key: &str) -> bool {
    uncommented().lines().any(|line| line.trim_matches(['[', ']']).rsplit('.').next() == Some(key))
}

#[test]
fn groups_share_by_the_strategy_of_their_name_or_that_of_all() {
    let text =
        "[shared]\nstrategy = \"sticky\"\n[shared.groups]\nworkers = \"hash_topic\"\n\"a b\" = \"random\"";
    let shared = Config::parse(text, "a.toml").unwrap().shared;
    let strategies = ["workers", "a b", "others"].map(|name| shared.strategy_of(name));
    assert_eq!(strategies, [ShareStrategy::HashTopic, ShareStrategy::Random, ShareStrategy::Sticky]);
}

#[test]
fn the_example_routes_parse() {
    let config = Config::parse(HTTP_ROUTES, "http-routes.toml").unwrap();
    assert_eq!(config.targets["demo"].url, "http://127.0.0.1:8080/events");
    assert_eq!(config.targets["demo"].retry.attempts, 4);
    assert_eq!(config.routes[0].topics, ["demo/#"]);
    assert_eq!(config.listeners, Config::default().listeners);
}

#[test]
fn what_a_target_may_be_sent_and_how_often() {
    let text = r#"
        [targets.a]
        url = "http://h"
        concurrency = { adaptive = { min = 4, max = 200 } }
        rate = "600/m"
        [targets.a.retry]
        schedule = ["5s", "PT5M", "0s"]
        [targets.b]
        url = "http://h"
        concurrency = "adaptive"
        retry = { factor = 1.5, counted = "all" }
    "#;
    let config = Config::parse(text, "a.toml").unwrap_or_else(|error| panic!("{error}"));
    let target = &config.targets["a"];
    assert_eq!((target.concurrency, target.concurrency_min), (200, Some(4)));
    let rate = target.rate.unwrap();
    assert_eq!((rate.requests.get(), rate.per, rate.burst.get()), (600, Duration::from_mins(1), 10));
    assert_eq!((target.retry.attempts, target.retry.jitter), (4, Jitter::None));
    assert_eq!(target.retry.backoff, Backoff::Schedule([5, 300, 0].map(Duration::from_secs).to_vec()));
    assert_eq!(config.targets["b"].retry.backoff, Backoff::Exponential { factor: 1.5 });
    assert_eq!((config.targets["b"].concurrency, config.targets["b"].concurrency_min), (64, Some(1)));
}

#[test]
fn values_arrive_where_they_belong() {
    let text = r##"
        [store]
        path = "/var/lib/causeway"
        commit_interval = "5ms"
        [[listeners]]
        address = "[::1]:0"
        tls = { certificate = "c.pem", key = "k.pem" }
        [[listeners]]
        address = "0.0.0.0:1883"
        [[listeners]]
        address = "0.0.0.0:8083"
        websocket = { paths = ["/a%20b"], origins = ["https://app.example:8443", "null", "*"] }
        [auth]
        password_file = "pw"
        [limits]
        packet_size = 4096
        keep_alive_max = "1h"
        [targets.a]
        url = "HTTPS://h:8443/x?y=z"
        headers = { X-Key = "k", accept = "application/json" }
        status = { retry = [401, "403"], complete = ["409-410"], drop = ["3xx"] }
        [targets.a.breaker]
        probe_interval = "2s"
        [[routes]]
        name = "r"
        topics = ["a/+/b", "$SYS/#", "+", "#", "/"]
        exclude = ["a/b/b"]
        target = "a"
        [log]
        level = "warn,causeway::bridge=debug"
        format = "json"
    "##;
    let config = Config::parse(text, "a.toml").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.store.commit_interval, Duration::from_millis(5));
    assert_eq!(config.store.cache_size, 64 << 20);
    assert!(config.listeners[0].tls.is_some() && config.listeners[1].tls.is_none());
    assert_eq!(
        (config.limits.packet_size, config.limits.keep_alive_max),
        (4096, Some(Duration::from_hours(1)))
    );
    let websocket = config.listeners[2].websocket.as_ref().unwrap();
    assert_eq!(websocket.paths, ["/a%20b"]);
    assert_eq!(websocket.origins, ["https://app.example:8443", "null", "*"]);
    let target = &config.targets["a"];
    assert_eq!((target.url.scheme_str(), target.url.port_u16()), (Some("https"), Some(8443)));
    assert_eq!(target.headers["x-key"], "k");
    let classes = [401, 403, 409, 410, 307, 400].map(|status| target.status.class(status));
    use StatusClass::{Complete, DeadLetter, Drop, Retry};
    assert_eq!(classes, [Retry, Retry, Complete, Complete, Drop, DeadLetter]);
    assert_eq!(target.breaker.probe_interval, Duration::from_secs(2));
    assert_eq!(config.routes[0].exclude, ["a/b/b"]);
    assert_eq!(
        (config.log.level.as_str(), config.log.format),
        ("warn,causeway::bridge=debug", LogFormat::Json)
    );
}

#[test]
fn a_route_has_the_queue_of_limits_where_it_says_nothing_else() {
    let text = r#"
        [[routes]]
        name = "own"
        topics = ["a"]
        target = "a"
        overflow = "drop_oldest"
        queued_age = "0s"
        queued_bytes = "2 MiB"
        [[routes]]
        name = "same"
        topics = ["a"]
        target = "a"
        [targets.a]
        url = "http://h"
        [limits]
        overflow = "refuse"
        queued_messages = 7
        queued_age = "1m"
    "#;
    let config = Config::parse(text, "a.toml").unwrap_or_else(|error| panic!("{error}"));
    let queue = QueueConfig {
        messages: 7,
        age: Some(Duration::from_mins(1)),
        overflow: Overflow::Refuse,
        ..QueueConfig::default()
    };
    let own = QueueConfig { bytes: 2 << 20, age: None, overflow: Overflow::DropOldest, ..queue };
    let queues = config.routes.iter().map(|route| route.queue).chain([config.limits.queue]);
    assert_eq!(queues.collect::<Vec<_>>(), [own, queue, queue]);
}

#[test]
fn who_may_connect_without_a_user_name() {
    let [inside, outside] = ["127.0.0.1:1883", "192.0.2.1:1883"].map(|text| text.parse().unwrap());
    let auth = |anonymous, file: Option<&str>| AuthConfig {
        anonymous,
        password_file: file.map(PathBuf::from),
        ..AuthConfig::default()
    };
    let said = |auth: AuthConfig| (auth.anonymous_at(inside), auth.anonymous_at(outside));
    assert_eq!(said(auth(None, None)), (true, false));
    assert_eq!(said(auth(None, Some("pw"))), (false, false));
    assert_eq!(said(auth(Some(true), Some("pw"))), (true, true));
    assert_eq!(said(auth(Some(false), Some("pw"))), (false, false));
}

#[test]
fn all_mistakes_are_found_in_one_run_and_in_order() {
    let text = "[[routes]]\nname = \"r\"\ntopics = [\"a+\", \"#/b\"]\ntarget = \"b\"\n\
                [targets.a]\nurl = \"h\"\ntimeout = 5\ncolour = 1\n[limits]\nconnections = 0\n";
    let found = mistakes(text);
    let expected = ["3:11: ", "3:17: ", "4:10: ", "6:7: ", "7:11: ", "8:1: ", "10:15: "];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, place) in found.iter().zip(expected) {
        assert!(found.starts_with(place), "{place} {found}");
    }
}

#[test]
fn a_target_with_a_mistake_is_still_known_to_routes() {
    let text = "[targets.a]\nurl = \"h\"\n[[routes]]\nname = \"r\"\ntopics = [\"a\"]\ntarget = \"a\"";
    assert_eq!(mistakes(text).len(), 1);
}

#[test]
fn whatever_stands_at_a_key_every_mistake_has_a_place() {
    let text = uncommented();
    let odd = [
        "-1",
        "\"\"",
        "[]",
        "[[]]",
        "{}",
        "{ a = 1 }",
        "1979-05-27",
        "nan",
        "\"\\u0000\"",
        "\"ä\u{2028}",
        "",
    ];
    for (number, line) in text.lines().enumerate() {
        let Some((key, _)) = line.split_once(" = ") else { continue };
        for value in odd {
            let put = |(at, line): (usize, &str)| {
                if at == number { format!("{key} = {value}") } else { line.into() }
            };
            let text = text.lines().enumerate().map(put).collect::<Vec<String>>().join("\r\n");
            let Err(error) = Config::parse(&text, "a.toml") else { continue };
            for place in error.mistakes.iter().map(|mistake| mistake.place.as_ref().unwrap()) {
                let line = text.split("\r\n").nth(place.line - 1).unwrap();
                // A secret is masked.
                let same = |(shown, is): (char, char)| shown == is || shown == '*';
                assert!(place.source.chars().zip(line.chars()).all(same), "{error}");
                assert_eq!(line.chars().count(), place.source.chars().count(), "{error}");
            }
        }
    }
}

#[test]
fn a_file_that_ends_too_early_is_refused_or_whole() {
    let text = uncommented();
    for end in (0..text.len()).filter(|end| end % 61 == 0 && text.is_char_boundary(*end)) {
        if let Err(error) = Config::parse(&text[..end], "a.toml") {
            assert!(error.to_string().starts_with("a.toml:"), "{error}");
        }
    }
}

#[test]
fn a_secret_never_shows_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "hunter2\n").unwrap();
    let with = |scheme: &str| {
        let header = format!("headers = {{ authorization = \"{scheme} ${{file:{}}}\" }}", file.display());
        format!("[targets.a]\nurl = \"http://h\"\n{header}")
    };
    let config = Config::parse(&with("Bearer"), "a.toml").unwrap();
    assert_eq!(config.targets["a"].headers["authorization"], "Bearer hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
    fs::write(&file, "hunter2\n\u{1}").unwrap();
    assert!(!mistakes(&with("Bearer")).concat().contains("hunter2"));
    for inline in [
        "url = \"http://u:hunter2@h\"",
        "url = \"http://h\"\nheaders = { x = \"hunter2\\n\" }",
        "url = \"http://h\"\nproxy = \"http://u:hunter2@\"",
        "url = \"http://h\"\nproxy = \"http://u:hunter2@169.254.169.254\"",
        "url = \"http://h\"\nauth = { kind = \"bearer\", token = \"hunter2\\n\" }",
        // Beside what is wrong, or where it does not belong.
        "url = \"http://h\"\nauth = { kind = \"basic\", user = \"u:u\", password = \"hunter2\" }",
        "url = \"http://h\"\nauth = { kind = \"api_key\", key = \"hunter2\" }",
        "url = \"http://h\"\nauth = { kind = \"bearer\", tokn = \"hunter2\" }",
        "url = \"http://h\"\nauth = \"Bearer hunter2\"",
        "url = \"http://h\"\ntoken = \"hunter2\"",
        "url = \"http://h\"\nheaders = { \"a b\" = \"hunter2\" }",
        "url = \"http://h\"\nheaders = \"x: hunter2\"",
        "url = \"http://h\"\nsigning = { keys = \"whsec_hunter2\" }",
        "url = \"http://h\"\nsigning = { keys = [\"hunter2\", 5] }",
        // What is not even TOML.
        "url = \"http://h\"\nauth = { kind = \"bearer\", token = \"hunter2\" ",
        "url = \"http://h\"\nauth = { kind = \"bearer\", token = \"hunter2 }",
        "url = \"http://h\"\nheaders = { x = \"hunter2\", x = \"hunter2\" }",
        "url = \"http://h\"\n[targets.a.auth]\nkind = \"bearer\"\ntoken = \"hunter2",
    ] {
        let error = Config::parse(&format!("[targets.a]\n{inline}"), "a.toml").unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2") && shown.contains("****"), "{shown}");
    }
}

#[test]
fn loading_checks_the_files_that_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = format!(
        "[store]\npath = \"{0}/file\"\n[auth]\npassword_file = \"{0}/missing\"\nacl_file = \"{0}\"\n\
         [[listeners]]\naddress = \"0.0.0.0:1883\"\ntls = {{ certificate = \"{0}/missing\", key = \"{0}/file\" }}\n",
        folder.path().display()
    );
    fs::write(path("file"), "").unwrap();
    fs::write(path("causeway.toml"), &text).unwrap();
    let found: Vec<_> = Config::load(&path("causeway.toml")).unwrap_err().mistakes.iter().map(said).collect();
    assert_eq!(found.len(), 4, "{found:#?}");
    for (found, expected) in found.iter().zip([
        "2:8: store.path is a file, not a folder",
        "4:17: auth.password_file cannot be read",
        "5:12: auth.acl_file is a folder, not a file",
        "8:23: listeners.tls.certificate cannot be read",
    ]) {
        assert!(found.starts_with(expected), "{expected}\n{found}");
    }
    assert!(Config::parse(&text, "a.toml").is_ok(), "the text alone is right");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(std::path::Path::new("no/such.toml")).unwrap_err();
    assert!(error.to_string().starts_with("no/such.toml: cannot be read: "), "{error}");
}

#[test]
fn a_whole_message() {
    let error = Config::parse("[limits]\npaket_size = \"1 MiB\"\n", "causeway.toml").unwrap_err();
    let expected = "causeway.toml:2:1: unknown key \"paket_size\" in limits\n  |\n\
                    2 | paket_size = \"1 MiB\"\n  | ^^^^^^^^^^\n  = did you mean \"packet_size\"?";
    assert_eq!(error.to_string(), expected);
}
