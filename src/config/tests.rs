//! Whole configurations: the shipped ones, and the mistakes that people make.

use std::{collections::BTreeSet, fs, time::Duration};

use super::*;

const SHIPPED: &str = include_str!("../../config/causeway.toml");
const HTTP_ROUTES: &str = include_str!("../../config/http-routes.toml");

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

#[track_caller]
fn assert_refused(table: &[(&str, &[&str])]) {
    for (text, expected) in table {
        let found = mistakes(text);
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        for fragment in *expected {
            assert!(found[0].contains(fragment), "{text}\nexpected: {fragment}\nfound:    {}", found[0]);
        }
    }
}

#[test]
fn without_a_word_the_defaults_apply() {
    assert_eq!(Config::parse("", "a.toml"), Ok(Config::default()));
    let empty = "[store]\n[auth]\n[limits]\n[targets]\n[admin]\n[log]\n";
    assert_eq!(Config::parse(empty, "a.toml"), Ok(Config::default()));
}

#[test]
fn the_shipped_file_says_the_defaults() {
    assert_eq!(Config::parse(SHIPPED, "causeway.toml"), Ok(Config::default()));
}

#[test]
fn every_optional_key_of_the_shipped_file_parses() {
    // The environment of a test is shared; PATH is set in all of them.
    let text = uncommented().replace("SHORE_TOKEN", "PATH");
    let config = Config::parse(&text, "causeway.toml").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.listeners[0].connections_max, Some(50_000));
    assert_eq!(config.listeners[1].tls.as_ref().unwrap().client_ca, Some("certs/clients.pem".into()));
    assert_eq!(config.auth.anonymous, Some(true));
    assert_eq!(config.auth.acl_file, Some("acl".into()));
    let target = &config.targets["shore"];
    assert_eq!(target.headers.len(), 1);
    let shown = TargetConfig { headers: HeaderMap::new(), ca_file: None, ..target.clone() };
    assert_eq!(
        shown,
        TargetConfig::new(target.url.clone()),
        "the shipped file shows the defaults of a target"
    );
    assert_eq!(config.routes.len(), 1);
}

/// Each reader is asked what it knows: a table with one unknown key gets the list of known ones.
#[test]
fn the_shipped_file_has_every_key() {
    let sections = [
        ("[store]", ""),
        ("[[listeners]]", "address = \"127.0.0.1:1\""),
        ("[listeners.tls]", "certificate = \"c\"\nkey = \"k\"\n[[listeners]]\naddress = \"127.0.0.1:1\""),
        ("[auth]", ""),
        ("[limits]", ""),
        ("[admin]", ""),
        ("[log]", ""),
        ("[targets.t]", "url = \"http://h\""),
        ("[targets.t.retry]", "[targets.t]\nurl = \"http://h\""),
        ("[targets.t.status]", "[targets.t]\nurl = \"http://h\""),
        ("[targets.t.breaker]", "[targets.t]\nurl = \"http://h\""),
        ("[[routes]]", "name = \"n\"\ntopics = [\"t\"]\ntarget = \"t\"\n[targets.t]\nurl = \"http://h\""),
    ];
    let text = uncommented();
    let present: BTreeSet<&str> = text.lines().filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
    for (section, rest) in sections {
        let text = match section {
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
fn the_example_routes_parse() {
    let config = Config::parse(HTTP_ROUTES, "http-routes.toml").unwrap();
    assert_eq!(config.targets["demo"].url, "http://127.0.0.1:8080/events");
    assert_eq!(config.targets["demo"].retry.attempts, 4);
    assert_eq!(config.routes[0].topics, ["demo/#"]);
    assert_eq!(config.listeners, Config::default().listeners);
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
fn who_may_connect_without_a_user_name() {
    let [inside, outside] = ["127.0.0.1:1883", "192.0.2.1:1883"].map(|text| text.parse().unwrap());
    let auth = |anonymous, file: Option<&str>| AuthConfig {
        anonymous,
        password_file: file.map(PathBuf::from),
        acl_file: None,
    };
    let said = |auth: AuthConfig| (auth.anonymous_at(inside), auth.anonymous_at(outside));
    assert_eq!(said(auth(None, None)), (true, false));
    assert_eq!(said(auth(None, Some("pw"))), (false, false));
    assert_eq!(said(auth(Some(true), Some("pw"))), (true, true));
    assert_eq!(said(auth(Some(false), Some("pw"))), (false, false));
}

#[test]
fn syntax_and_unknown_keys() {
    assert_refused(&[
        ("[store\npath = \"x\"", &["1:7: ", "unclosed table"]),
        ("[store]\npath = \"a\"\npath = \"b\"", &["3:1: ", "duplicate key"]),
        ("pth = 1", &["1:1: unknown key \"pth\" = known here: store"]),
        ("listener = 1", &["1:1: unknown key \"listener\" = did you mean \"listeners\"?"]),
        (
            "[limits]\npacketsize = 1",
            &["2:1: unknown key \"packetsize\" in limits = did you mean \"packet_size\"?"],
        ),
        (
            "[[listeners]]\naddress = \"127.0.0.1:1\"\nTLS = true",
            &["3:1: unknown key \"TLS\" in listeners", "\"tls\""],
        ),
        (
            "[[listeners]]\naddress = \"127.0.0.1:1\"\ntls = { certificate = \"c\", keys = \"k\", key = \"k\" }",
            &["3:28: unknown key \"keys\" in listeners.tls", "did you mean \"key\"?"],
        ),
        (
            "[targets.a]\nurl = \"http://h\"\n[targets.a.retry]\nattempt = 3",
            &["4:1: unknown key \"attempt\" in targets.a.retry", "did you mean \"attempts\"?"],
        ),
        ("store = 5", &["1:9: store must be a table, not 5", "write [store]"]),
        (
            "[listeners]\naddress = \"127.0.0.1:1\"",
            &["1:1: listeners must be a list of tables, not a table", "[[listeners]]"],
        ),
        (
            "[[store]]\npath = \"x\"",
            &["1:1: store must be a table, not a list", "write [store], with one bracket"],
        ),
        ("listeners = [1]", &["1:14: listeners must be a list of tables, not 1"]),
        ("[targets]\na = \"http://h\"", &["2:5: targets.a must be a table, not \"http://h\"", "[targets.a]"]),
    ]);
}

#[test]
fn values_of_the_wrong_kind_or_size() {
    assert_refused(&[
        (
            "[limits]\nconnect_timeout = 10",
            &["2:19: limits.connect_timeout must be a duration, not 10", "\"10s\""],
        ),
        ("[limits]\nwrite_timeout = \"10 parsecs\"", &["2:17: ", "not \"10 parsecs\"", "\"24h\""]),
        (
            "[limits]\nwrite_timeout = \"0s\"",
            &["2:17: limits.write_timeout must be between 1ms and 1d, not 0s"],
        ),
        ("[limits]\nkeep_alive_max = \"1d\"", &["between 0s and 65535s, not 1d"]),
        ("[limits]\nsession_expiry = \"100000d\"", &["between 1s and 3650d, not 100000d"]),
        (
            "[limits]\npacket_size = \"1 MiBs\"",
            &["2:15: limits.packet_size must be a size in bytes", "64 KiB"],
        ),
        ("[limits]\npacket_size = 0", &["limits.packet_size must be between 64 B and 256.0 MiB, not 0 B"]),
        (
            "[limits]\nreceive_maximum = 0",
            &["2:19: limits.receive_maximum must be between 1 and 65535, not 0"],
        ),
        ("[limits]\nreceive_maximum = 70000", &["between 1 and 65535, not 70000"]),
        ("[limits]\nconnections = -1", &["limits.connections must be a whole number, not -1"]),
        ("[limits]\nconnections = 1.5", &["must be a whole number, not 1.5"]),
        ("[limits]\nconnections = \"many\"", &["must be a whole number, not \"many\"", "without quotes"]),
        (
            "[limits]\noutbox_bytes = \"64 KiB\"",
            &["2:16: limits.outbox_bytes has room for 64.0 KiB", "1.0 MiB"],
        ),
        ("[store]\npath = \"\"", &["2:8: store.path must not be empty"]),
        ("[store]\npath = 5", &["2:8: store.path must be text in quotes, not 5"]),
        ("[store]\ncommit_interval = \"2m\"", &["between 0s and 1m, not 2m"]),
        (
            "[admin]\nenabled = \"yes\"",
            &["2:11: admin.enabled must be true or false, not \"yes\"", "without quotes"],
        ),
        ("[log]\nformat = \"xml\"", &["2:10: log.format must be \"text\" or \"json\", not \"xml\""]),
        (
            "[log]\nlevel = \"inof\"",
            &["2:9: log.level must be one of", "not \"inof\"", "did you mean \"info\"?"],
        ),
        ("[log]\nlevel = \"info,causeway=loud\"", &["2:9: log.level cannot be used"]),
    ]);
}

#[test]
fn listeners_and_who_may_use_them() {
    assert_refused(&[
        ("listeners = []", &["1:13: listeners is empty: no client could ever connect"]),
        ("[[listeners]]", &["1:1: listeners needs address", "add address = \"127.0.0.1:1883\""]),
        (
            "[[listeners]]\naddress = \"localhost:1883\"",
            &["2:11: listeners.address must be an IP address and a port"],
        ),
        (
            "[[listeners]]\naddress = \"0.0.0.0:1883\"",
            &[
                "2:11: listeners.address 0.0.0.0:1883 is open to the network",
                "password_file",
                "anonymous = true",
            ],
        ),
        (
            "[[listeners]]\naddress = \"127.0.0.1:1\"\n[[listeners]]\naddress = \"127.0.0.1:1\"",
            &["4:11: listeners.address 127.0.0.1:1 is taken already, on line 2"],
        ),
        (
            "[[listeners]]\naddress = \"127.0.0.1:1\"\n[admin]\naddress = \"127.0.0.1:1\"",
            &["4:11: admin.address 127.0.0.1:1 is taken already, on line 2"],
        ),
        (
            "[[listeners]]\naddress = \"127.0.0.1:9883\"",
            &["2:11: listeners.address 127.0.0.1:9883 is taken already, by the default of admin.address"],
        ),
        (
            "[admin]\naddress = \"127.0.0.1:1883\"",
            &["2:11: admin.address 127.0.0.1:1883 is taken already, by the default of listeners.address"],
        ),
        (
            "[[listeners]]\naddress = \"127.0.0.1:1\"\ntls = { key = \"k\" }",
            &["3:7: listeners.tls needs certificate"],
        ),
        (
            "[[listeners]]\naddress = \"127.0.0.1:1\"\ntls = true",
            &["3:7: listeners.tls must be a table, not true"],
        ),
        ("[[listeners]]\naddress = \"127.0.0.1:1\"\nconnections_max = 0", &["3:19: ", "between 1 and"]),
        ("[auth]\nanonymous = false", &["2:13: auth.anonymous is false and there is no password_file"]),
        ("[admin]\naddress = \"0.0.0.0:9883\"", &["2:11: admin.address must be a loopback address", "proxy"]),
    ]);
    let two_free_ports = "[[listeners]]\naddress = \"127.0.0.1:0\"\n[[listeners]]\naddress = \"127.0.0.1:0\"";
    assert!(Config::parse(two_free_ports, "a.toml").is_ok());
    let open = "[auth]\nanonymous = true\n[[listeners]]\naddress = \"0.0.0.0:1883\"";
    assert!(Config::parse(open, "a.toml").is_ok());
}

#[test]
fn targets() {
    let at =
        |line: &'static str| -> &'static str { Box::leak(format!("[targets.a]\n{line}").into_boxed_str()) };
    let with = |line: &'static str| at(Box::leak(format!("url = \"http://h\"\n{line}").into_boxed_str()));
    assert_refused(&[
        (at(""), &["1:10: targets.a needs url", "add url = "]),
        (
            at("url = \"h:80/x\""),
            &["2:7: targets.a.url must be a URL with a scheme, not \"h:80/x\"", "http://"],
        ),
        (at("url = \"ftp://h\""), &["2:7: targets.a.url must be an http or https URL, not \"ftp\""]),
        (at("url = \"http://\""), &["2:7: targets.a.url must be a URL"]),
        (at("url = \"http://h:99999/\""), &["2:7: targets.a.url must be a URL"]),
        (at("url = \"http://h/a b\""), &["2:7: targets.a.url must be a URL"]),
        (at("url = \"http://h/#x\""), &["2:7: targets.a.url must not have a fragment"]),
        (
            at("url = \"http://u:hunter2@h/\""),
            &["2:7: targets.a.url must not hold a user name", "authorization"],
        ),
        (with("concurrency = 0"), &["3:15: targets.a.concurrency must be between 1 and 1024, not 0"]),
        (with("ca_file = \"ca.pem\""), &["3:11: targets.a.ca_file is of no use: the url is http"]),
        (with("headers = 5"), &["3:11: targets.a.headers must be a table"]),
        (
            with("headers = { \"a b\" = \"x\" }"),
            &["3:13: targets.a.headers has \"a b\", which cannot be the name"],
        ),
        (
            with("headers = { host = \"x\" }"),
            &["3:13: targets.a.headers has \"host\", which the HTTP client sets"],
        ),
        (with("headers = { x = 5 }"), &["3:17: targets.a.headers x must be text in quotes, not 5"]),
        (with("headers = { x = \"a\\nb\" }"), &["3:17: targets.a.headers x has characters"]),
        (with("headers = { x = \"a\", X = \"b\" }"), &["has this header twice"]),
        (
            with("headers = { x = \"${env:CAUSEWAY_TEST_NOT_SET}\" }"),
            &["3:17: targets.a.headers x needs the environment variable CAUSEWAY_TEST_NOT_SET"],
        ),
        (with("retry = { initial = \"10m\" }"), &["3:21: targets.a.retry.initial is longer than max (5m)"]),
        (with("retry = { attempts = 0 }"), &["3:22: targets.a.retry.attempts must be between 1 and"]),
        (
            with("breaker = { probe_interval_max = \"100ms\" }"),
            &["3:11: targets.a.breaker.probe_interval is longer than probe_interval_max (100ms)"],
        ),
        (with("status = { retry = \"404\" }"), &["3:20: targets.a.status.retry must be a list, not \"404\""]),
        (
            with("status = { retry = [\"600-500\"] }"),
            &["3:21: targets.a.status.retry must be an HTTP status"],
        ),
        (with("status = { retry = [100] }"), &["3:21: ", "a final status is 200 or more"]),
        (
            with("status = { retry = [\"4xx\"], drop = [\n404] }"),
            &["4:1: targets.a.status.drop overlaps with what stands on line 3"],
        ),
        ("[targets.\"a b\"]\nurl = \"http://h\"", &["1:10: \"a b\" is not a name", "1 to 64"]),
    ]);
}

#[test]
fn routes() {
    let target = "[targets.shore]\nurl = \"http://h\"\n";
    let after =
        |text: &str| -> &'static str { Box::leak(format!("{target}[[routes]]\n{text}").into_boxed_str()) };
    let topics = |topics: &str| after(&format!("name = \"r\"\ntarget = \"shore\"\ntopics = [{topics}]"));
    let long = format!("\"{}a\"", "a/".repeat(200));
    assert_refused(&[
        (after("name = \"r\"\ntopics = [\"a\"]"), &["3:1: routes needs target"]),
        (after("target = \"shore\"\ntopics = [\"a\"]"), &["3:1: routes needs name"]),
        (
            after("name = \"r\"\ntarget = \"shore\""),
            &["3:1: routes needs topics", "add topics = [\"plant/#\"]"],
        ),
        (topics(""), &["6:10: routes needs topics"]),
        (topics("5"), &["6:11: routes.topics must be a topic filter in quotes, not 5"]),
        (topics("\"\""), &["6:11: ", "1 to 65535 bytes"]),
        (topics("\"ok\", \"a/#/b\""), &["6:17: routes.topics has \"a/#/b\"", "\"#\" must be the last level"]),
        (topics("\"a+/b\""), &["6:11: ", "must stand alone"]),
        (topics("\"$share/g/a\""), &["6:11: ", "shares none"]),
        (topics(&long), &["6:11: ", "it has 201 levels, more than limits.topic_levels (200)"]),
        (
            after("name = \"r\"\ntarget = \"shor\"\ntopics = [\"a\"]"),
            &["5:10: routes.target names \"shor\", but there is no such target", "did you mean \"shore\"?"],
        ),
        (after("name = \"r\"\ntarget = \"elsewhere\"\ntopics = [\"a\"]"), &["5:10: ", "there are: shore"]),
        (
            "[[routes]]\nname = \"r\"\ntarget = \"t\"\ntopics = [\"a\"]",
            &["3:10: routes.target names \"t\"", "add [targets.t] with a url"],
        ),
        (after("name = \"a b\"\ntarget = \"shore\"\ntopics = [\"a\"]"), &["4:8: routes.name is not a name"]),
        (
            after(
                "name = \"r\"\ntarget = \"shore\"\ntopics = [\"a\"]\n\
                 [[routes]]\nname = \"r\"\ntarget = \"shore\"\ntopics = [\"b\"]",
            ),
            &["8:8: routes.name \"r\" is used already, on line 4"],
        ),
    ]);
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
                assert_eq!(text.split("\r\n").nth(place.line - 1), Some(place.source.as_str()), "{error}");
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
    for inline in ["url = \"http://u:hunter2@h\"", "url = \"http://h\"\nheaders = { x = \"hunter2\\n\" }"] {
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
