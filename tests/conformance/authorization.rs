//! Who may do what: wills, names that try to widen a rule, and what a flood of passwords does to others.

use tempfile::TempDir;

use crate::harness::{
    Broker, Client, Connect, Publish, Version, ack, ack_with, packet, string, suback, subscribe, unique,
    verifier_line,
};

/// A broker with these users, whose password is "harbour", and this ACL.
fn start(users: &[&str], acl: &str) -> (Broker, TempDir) {
    let files = tempfile::tempdir().unwrap();
    let (users_file, acl_file) = (files.path().join("users"), files.path().join("acl"));
    let lines: String = users.iter().map(|user| verifier_line(user, "harbour")).collect();
    std::fs::write(&users_file, lines).unwrap();
    std::fs::write(&acl_file, acl).unwrap();
    let broker = Broker::start(&format!("[auth]\npassword_file = {users_file:?}\nacl_file = {acl_file:?}"));
    (broker, files)
}

fn as_user(connect: Connect, user: &str) -> Connect {
    connect.user(user, Some("harbour"))
}

#[test]
fn will_acl_at_connect() {
    proves!("5.0 MQTT-3.1.4-2", "3.1.1 MQTT-3.1.4-3");
    let (broker, _files) = start(&["ada"], "user ada\ntopic write ok/#\ntopic read no/#\n");
    for (topic, reason) in [("ok/x", [0, 0]), ("no/x", [0x87, 5])] {
        for (version, reason) in [Version::V5, Version::V311].into_iter().zip(reason) {
            let mut client = broker.open();
            let connect = Connect::new(version, &unique("will")).will(topic, "x", 0);
            client.send(&as_user(connect, "ada").bytes());
            assert_eq!(client.receive()[3], reason, "{version:?} {topic}");
            if reason > 0 {
                client.expect_closed();
            }
        }
    }
}

/// Names that mean more than themselves somewhere; those after the first seven can be user names of a file.
const ODD: [&str; 11] =
    ["#", "a\nuser root", "ada\u{1}", "\t", "a#", "$SYS", "", "+", "a/b", ".*", "\u{202e}root"];

#[test]
fn identity_metachar() {
    let users: Vec<&str> = ODD[7..].iter().copied().chain(["owner", "root", "%c", "%u"]).collect();
    let acl = "user owner\ntopic readwrite #\npattern readwrite clients/%c/x\npattern readwrite users/%u/x\n\
               pattern readwrite %c/own\npattern readwrite %u/own\n";
    let (broker, _files) = start(&users, acl);
    let topics =
        ["clients/other/x", "clients/a/b/x", "users/other/x", "users/a/b/x", "other/own", "a/b/own", "top"];
    let mut owner = broker.connect(&as_user(Connect::v5("owner"), "owner"));
    owner.ask(&subscribe(1, &[("#", 0)]), &suback(0x90, 1, &[0]));
    let mut is_kept_out = |connect: Connect| {
        let mut client = broker.connect(&connect);
        let filters =
            ["#", "+", "clients/+/x", "clients/#", "users/+/x", "+/own", "+/+/own"].map(|filter| (filter, 1));
        client.send(&subscribe(1, &[&filters[..], &topics.map(|topic| (topic, 1))].concat()));
        assert_eq!(client.receive()[0], 0x90);
        for topic in topics {
            client.ask(&Publish::new(topic, "x").qos(1, 1).v5(), &ack_with(0x40, 1, 0x87));
            owner.send(&Publish::new(topic, "for others").v5());
            assert_eq!(owner.message().payload, b"for others");
        }
        client.expect_nothing();
        client
    };
    for id in ODD {
        is_kept_out(as_user(Connect::v5(id), "root"));
    }
    for user in ODD[7..].iter().copied().chain(["%c", "%u"]) {
        is_kept_out(as_user(Connect::v5(&unique("metachar")), user));
    }
    // A name that is nothing special is one like any other.
    let mut literal = is_kept_out(as_user(Connect::v5(".*"), "root"));
    literal.ask(&Publish::new("clients/.*/x", "x").qos(1, 1).v5(), &ack(0x40, 1));
    // A NUL is in no name.
    let mut client = broker.open();
    let body = [&string("MQTT")[..], &[5, 2, 0, 0, 0], &string("a\0b")].concat();
    client.ask(&packet(0x10, &body), &[0x20, 3, 0, 0x81, 0]);
    client.expect_closed();
}

#[test]
fn password_flood() {
    const FLOOD: usize = 60;
    let (broker, _files) = start(&["ada"], "user ada\ntopic readwrite #\n");
    let mut calm = broker.connect(&as_user(Connect::v5(&unique("calm")), "ada"));
    calm.ask(&subscribe(1, &[("calm", 1)]), &suback(0x90, 1, &[1]));
    let mut flood: Vec<Client> = (0..FLOOD).map(|_| broker.open()).collect();
    for (number, client) in flood.iter_mut().enumerate() {
        let user = if number % 2 == 0 { "ada" } else { "eve" };
        client.send(&Connect::v5(&unique("flood")).user(user, Some("wrong")).bytes());
    }
    // Each of them takes some milliseconds of a core at least, and they have to wait for each other; nobody else
    // waits for them.
    for id in 1..=20 {
        calm.send(&Publish::new("calm", [id]).v5());
        assert_eq!(calm.message().payload, [id]);
    }
    assert!(!flood[FLOOD - 1].has_something(), "the flood was over before it was looked at");
    for client in &mut flood {
        client.expect(&[0x20, 3, 0, 0x86, 0]);
        client.expect_closed();
    }
    calm.expect_nothing();
}
