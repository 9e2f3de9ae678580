//! The mistakes that people make: what is written, and what is said about it (`line:column: message = help`).

use super::*;

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
fn queues() {
    let route =
        "[targets.a]\nurl = \"http://h\"\n[[routes]]\nname = \"r\"\ntopics = [\"a\"]\ntarget = \"a\"\n";
    assert_refused(&[
        (
            "[limits]\noverflow = \"dropoldest\"",
            &["2:12: limits.overflow must be one of drop_newest, drop_oldest, refuse", "\"drop_oldest\"?"],
        ),
        ("[limits]\noverflow = true", &["2:12: limits.overflow must be one of drop_newest", "not true"]),
        ("[limits]\nqueued_age = \"5ms\"", &["2:14: limits.queued_age must be at least 1s", "for no limit"]),
        (&format!("{route}overflow = \"drop\""), &["7:12: routes.overflow must be one of drop_newest"]),
        (
            &format!("{route}queued_bytes = \"4 KiB\""),
            &["7:16: routes.queued_bytes has room for 4.0 KiB, less than one packet of limits.packet_size"],
        ),
        (&format!("{route}queued_messages = 0"), &["7:19: routes.queued_messages must be between 1 and"]),
    ]);
}

#[test]
fn sharing_retained_messages_and_sys() {
    assert_refused(&[
        ("[sys]\ninterval = \"100ms\"", &["2:12: sys.interval must be at least 1s", "\"0s\", for never"]),
        (
            "[shared]\nstrategy = \"roundrobin\"",
            &["2:12: shared.strategy must be one of round_robin, random", "did you mean \"round_robin\"?"],
        ),
        (
            "[shared.groups]\nworkers = 1",
            &["2:11: shared.groups must be one of round_robin, random", "not 1"],
        ),
        (
            "[shared.groups]\n\"$share/g\" = \"random\"",
            &["2:1: shared.groups has a '/' at byte 6, in the share name"],
        ),
        ("[retain]\ncheck_source = \"yes\"", &["2:16: retain.check_source must be true or false"]),
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
        (
            "[limits]\nkeep_alive_max = \"500ms\"",
            &["2:18: limits.keep_alive_max must be at least 1s", "no limit"],
        ),
        ("[limits]\nkeep_alive_max = \"1d\"", &["between 0s and 65535s, not 1d"]),
        ("[limits]\nsession_expiry = \"100000d\"", &["between 1s and 3650d, not 100000d"]),
        (
            "[limits]\npacket_size = \"1 MiBs\"",
            &["2:15: limits.packet_size must be a size in bytes", "64 KiB"],
        ),
        ("[limits]\npacket_size = 0", &["limits.packet_size must be between 20 B and 256.0 MiB, not 0 B"]),
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
        ("[mqtt]\nmaximum_qos = 3", &["2:15: mqtt.maximum_qos must be between 0 and 2, not 3"]),
        ("[mqtt]\nretain = \"no\"", &["2:10: mqtt.retain must be true or false, not \"no\""]),
        (
            "[mqtt]\nresponse_information = \"reply/#\"",
            &["2:24: mqtt.response_information must be the beginning of a topic", "response/{client_id}/"],
        ),
        ("[mqtt]\nresponse_information = \"$reply/\"", &["that clients can publish to"]),
        ("[mqtt]\nresponse_information = \"reply/{client}/\"", &["not \"reply/{client}/\""]),
        ("[redirect]\npermanent = true", &["redirect needs to", "other.example:1883"]),
        (
            "[redirect]\nto = \"mqtt://other\"",
            &["2:6: redirect.to must be a host with or without a port, not \"mqtt://other\""],
        ),
        ("[redirect]\nto = \"one  two\"", &["a space stands between several"]),
        ("[redirect]\nto = \"one two!\"", &["2:6: redirect.to must be a host"]),
        ("[redirect]\nto = \"one:99999\"", &["2:6: redirect.to must be a host"]),
        ("[redirect]\nto = \"one:0\"", &["2:6: redirect.to must be a host"]),
        ("[redirect]\nto = \"me@one:1883\"", &["2:6: redirect.to must be a host"]),
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
fn websocket_paths_and_origins() {
    let with = |line: &str| format!("[[listeners]]\naddress = \"127.0.0.1:1\"\nwebsocket = {{ {line} }}");
    assert_refused(&[
        (
            with("paths = []"),
            &["3:23: listeners.websocket.paths is empty: no client could ever connect", "leave paths out"],
        ),
        (with("paths = [\"/\", \"mqtt\"]"), &["3:29: listeners.websocket.paths must be the path of a URL"]),
        (with("paths = [\"/a?b\"]"), &["3:24: listeners.websocket.paths must be", "not \"/a?b\""]),
        (with("paths = [\"/a#b\"]"), &["3:24: listeners.websocket.paths must be", "write \"/mqtt\""]),
        (with("paths = [\"\"]"), &["3:24: listeners.websocket.paths must be"]),
        (
            with("origins = [\"app.example\"]"),
            &["3:26: listeners.websocket.origins must be the origin of web pages", "\"https://app.example\""],
        ),
        (with("origins = [\"https://app.example/\"]"), &["3:26: listeners.websocket.origins must be"]),
        (with("origins = [\"http://\"]"), &["3:26: listeners.websocket.origins must be"]),
        // What no browser ever says would let nobody in.
        (with("origins = [\"https://*.example\"]"), &["3:26: listeners.websocket.origins must be"]),
        (with("origins = [\"https://a.example:443\"]"), &["3:26: ", "a port unless it is the usual one"]),
        (with("origins = [\"http://a.example:80\"]"), &["3:26: ", "a port unless it is the usual one"]),
        (with("origin = []"), &["3:15: unknown key \"origin\"", "did you mean \"origins\"?"]),
    ]);
}

#[test]
fn connections_of_targets() {
    let with = |line: &str| format!("[targets.a]\nurl = \"https://h\"\n{line}");
    let auth = |line: &str| with(&format!("auth = {{ {line} }}"));
    assert_refused(&[
        (
            "[targets.a]\nurl = \"http://169.254.169.254/latest\"".into(),
            &[
                "2:7: targets.a.url leads to 169.254.169.254 (where a cloud",
                "addresses = [\"169.254.169.254/32\"]",
            ],
        ),
        (
            with("addresses = [\"10.0.0.1/8\"]"),
            &[
                "3:14: targets.a.addresses has 10.0.0.1/8, which is an address inside of 10.0.0.0/8",
                "\"10.0.0.1\"",
            ],
        ),
        (
            with("addresses = [\"h\"]"),
            &["3:14: targets.a.addresses must be a network or an address, not \"h\""],
        ),
        (
            with("http_version = \"3\""),
            &["3:16: targets.a.http_version must be one of auto, 1.1, 2, not \"3\""],
        ),
        (with("compress = \"zip\""), &["3:12: targets.a.compress must be one of none, gzip", "\"gzip\"?"]),
        (with("proxy = \"h:3128\""), &["3:9: targets.a.proxy must be a URL with a scheme", "socks5://"]),
        (with("tls = { certificate = \"c\" }"), &["3:23: targets.a.tls.certificate has no key"]),
        (with("tls = { key = \"c\" }"), &["3:15: targets.a.tls.key has no certificate"]),
        (
            with("tls = { min_version = \"1.1\" }"),
            &["3:23: targets.a.tls.min_version must be one of 1.2, 1.3"],
        ),
        (auth("kind = \"digest\""), &["3:17: targets.a.auth.kind must be one of none, basic"]),
        (auth("token = \"x\""), &["3:10: unknown key \"token\" in targets.a.auth"]),
        (auth("kind = \"bearer\""), &["3:8: targets.a.auth needs token", "${env:NAME}"]),
        (
            auth("kind = \"basic\", user = \"a:b\", password = \"x\""),
            &["3:33: targets.a.auth.user must be a user name without \":\""],
        ),
        (
            with("headers = { Authorization = \"x\" }\nauth = { kind = \"bearer\", token = \"x\" }"),
            &["3:11: targets.a.headers has \"authorization\", which auth sets"],
        ),
        (
            auth(
                "kind = \"oauth2\", token_url = \"http://[fe80::1]/t\", client_id = \"c\", client_secret = \"s\"",
            ),
            &["3:8: targets.a.auth leads to fe80::1 (a link-local address)"],
        ),
        (
            auth(
                "kind = \"oauth2\", token_url = \"http://h/t\", client_id = \"c\", client_secret = \"s\", \
                 scopes = [\"a b\"]",
            ),
            &["targets.a.auth.scopes must be a scope, not \"a b\""],
        ),
        (
            auth(
                "kind = \"oauth2\", token_url = \"http://h/t\", client_id = \"c\", client_secret = \"s\", \
                 params = { scope = \"x\" }",
            ),
            &["targets.a.auth.params has \"scope\", which has a key of its own"],
        ),
    ]);
}

#[test]
fn targets() {
    let at = |line: &str| format!("[targets.a]\n{line}");
    let with = |line: &str| at(&format!("url = \"http://h\"\n{line}"));
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
        (at("url = \"http://h:0/\""), &["2:7: targets.a.url must be a URL"]),
        (at("url = \"http://h/${env:X}\""), &["2:7: targets.a.url cannot have references", "headers, auth"]),
        (
            with("headers = { webhook-id = \"x\" }"),
            &["3:13: targets.a.headers has \"webhook-id\", which says"],
        ),
        (with("auth = { kind = \"bearer\", token = \"\" }"), &["targets.a.auth.token must not be empty"]),
        (with("concurrency = 0"), &["3:15: targets.a.concurrency must be between 1 and 1024, not 0"]),
        (with("tls = { ca_file = \"ca.pem\" }"), &["3:7: targets.a.tls is of no use: the url is http"]),
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
        ("[targets.\"a b\"]\nurl = \"http://h\"".into(), &["1:10: \"a b\" is not a name", "1 to 64"]),
    ]);
}

#[test]
fn how_often_a_target_is_tried() {
    let with = |line: &str| format!("[targets.a]\nurl = \"http://h\"\n{line}");
    assert_refused(&[
        (
            with("retry = { backoff = \"exponentail\" }"),
            &["3:21: targets.a.retry.backoff must be one of exponential,", "did you mean \"exponential\"?"],
        ),
        (
            with("retry = { backoff = \"linear\", factor = 3 }"),
            &["3:40: targets.a.retry.factor is for backoff = \"exponential\" only"],
        ),
        (
            with("retry = { backoff = \"linear\", schedule = [\"1s\"] }"),
            &["3:21: targets.a.retry.backoff does not go together with schedule"],
        ),
        (
            with("retry = { factor = 0.5 }"),
            &["3:20: targets.a.retry.factor must be between 1 and 100, not 0.5"],
        ),
        (with("retry = { schedule = [\"2d\"] }"), &["3:23: targets.a.retry.schedule must not have a delay"]),
        (
            with("backoff_policy = \"linear\""),
            &["3:18: targets.a.backoff_policy is Knative's name, and needs retry = 5"],
        ),
        (
            with("backoff_delay = \"PT1S\"\nretry = { attempts = 3 }"),
            &["3:17: targets.a.backoff_delay is Knative's name", "[targets.NAME.retry]"],
        ),
        (with("retry = -1"), &["3:9: targets.a.retry must be a whole number, not -1"]),
        (with("rate = \"100\""), &["3:8: targets.a.rate must be so many requests in a time", "\"100/s\""]),
        (with("burst = 5"), &["3:9: targets.a.burst needs rate beside it"]),
        (
            with("concurrency = \"adaptiv\""),
            &["3:15: targets.a.concurrency must be a whole number or \"adaptive\", not \"adaptiv\""],
        ),
        (
            with("concurrency = { adaptive = { min = 9, max = 3 } }"),
            &["3:36: targets.a.concurrency.adaptive.min is more than max (3)"],
        ),
        (
            with("breaker = { failure_rate = 1.5 }"),
            &["3:28: targets.a.breaker.failure_rate must be between 0.01 and 1, not 1.5"],
        ),
    ]);
}

#[test]
fn routes() {
    let target = "[targets.shore]\nurl = \"http://h\"\n";
    let after = |text: &str| format!("{target}[[routes]]\n{text}");
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
        (topics("\"\""), &["6:11: ", "at least one character"]),
        (topics("\"ok\", \"a/#/b\""), &["6:17: routes.topics has \"a/#/b\"", "it must be the last level"]),
        (topics("\"a+/b\""), &["6:11: ", "must stand alone"]),
        (topics("\"$share/g/a\""), &["6:11: ", "shares none"]),
        (topics(&long), &["6:11: ", "it has 201 levels; at most 200 are allowed"]),
        (
            after("name = \"r\"\ntarget = \"shor\"\ntopics = [\"a\"]"),
            &["5:10: routes.target names \"shor\", but there is no such target", "did you mean \"shore\"?"],
        ),
        (after("name = \"r\"\ntarget = \"elsewhere\"\ntopics = [\"a\"]"), &["5:10: ", "there are: shore"]),
        (
            "[[routes]]\nname = \"r\"\ntarget = \"t\"\ntopics = [\"a\"]".into(),
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

#[track_caller]
fn assert_refused<T: AsRef<str>>(table: &[(T, &[&str])]) {
    for (text, expected) in table {
        let text = text.as_ref();
        let found = mistakes(text);
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        for fragment in *expected {
            assert!(found[0].contains(fragment), "{text}\nexpected: {fragment}\nfound:    {}", found[0]);
        }
    }
}
