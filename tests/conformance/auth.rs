//! Enhanced authentication: AUTH, and SCRAM-SHA-256 before CONNACK and later.

use std::sync::OnceLock;

use tempfile::TempDir;

use crate::harness::{
    Broker, Challenge, Client, Connect, ITERATIONS, Publish, Scram, auth, auth_with, broker, disconnect,
    string, suback, subscribe, unique, verifier_line,
};

const METHOD: &str = "SCRAM-SHA-256";

/// Ada and Bob have verifiers, Carl has a hash (of "tide and harbour") that is none.
const CARL: &str = "carl:$7$1000$AAECAwQFBgcICQoL$JjKBbnHH93+2rrkzTmJ3wIXVEk6OzFra1FnlJU6uOfWU6FjrXLCsxiDlTTnm57zXdc1G9ZZ2iYfUHmZ+lJf7oQ==\n";

struct World {
    broker: Broker,
    _files: TempDir,
}

/// A broker where each user may do everything below their own name.
fn world() -> &'static Broker {
    static SHARED: OnceLock<World> = OnceLock::new();
    &SHARED.get_or_init(|| start("")).broker
}

fn start(config: &str) -> World {
    let files = tempfile::tempdir().unwrap();
    let (users, acl) = (files.path().join("users"), files.path().join("acl"));
    let lines = [verifier_line("ada", "harbour"), verifier_line("bob", "tide"), CARL.into()].concat();
    std::fs::write(&users, lines).unwrap();
    std::fs::write(&acl, "pattern readwrite %u/#\n").unwrap();
    let broker = Broker::start(&format!("[auth]\npassword_file = {users:?}\nacl_file = {acl:?}\n{config}"));
    World { broker, _files: files }
}

/// A CONNECT that names the method.
fn connect(id: &str) -> Connect {
    Connect::v5(id).property(0x15, &string(METHOD))
}

fn with_data(connect: Connect, data: &[u8]) -> Connect {
    connect.property(0x16, &[&(data.len() as u16).to_be_bytes()[..], data].concat())
}

/// What an AUTH or a CONNACK says: reason code, authentication method and data. There must be no other property
/// that says why [MQTT-3.15.2-2] [MQTT-3.15.2-3].
fn said(packet: &[u8]) -> (u8, String, Vec<u8>) {
    let at = if packet[0] == 0x20 { 3 } else { 2 };
    let (mut rest, mut method, mut data) = (&packet[at + 2..], Vec::new(), Vec::new());
    assert!(packet[1] < 128 && usize::from(packet[at + 1]) == rest.len(), "{packet:02x?}");
    while let [id, tail @ ..] = rest {
        let len = match id {
            0x15 | 0x16 => 2 + usize::from(u16::from_be_bytes([tail[0], tail[1]])),
            0x11 | 0x27 => 4,
            0x13 | 0x21 | 0x22 => 2,
            _ => panic!("property 0x{id:02x}: {packet:02x?}"),
        };
        match id {
            0x15 => method = tail[2..len].to_vec(),
            0x16 => data = tail[2..len].to_vec(),
            _ => {}
        }
        rest = &tail[len..];
    }
    (packet[at], String::from_utf8(method).unwrap(), data)
}

/// The next packet, which has to be an AUTH with the method and this reason code; gives its data.
fn challenge(client: &mut Client, reason: u8) -> Vec<u8> {
    let packet = client.receive();
    assert_eq!(packet[0], 0xF0, "no AUTH: {packet:02x?}");
    let (code, method, data) = said(&packet);
    assert_eq!((code, &*method), (reason, METHOD));
    data
}

/// A client that has got its challenge, and its answer to it.
fn challenged(broker: &Broker, connect: Connect, scram: &Scram) -> (Client, Vec<u8>, Vec<u8>) {
    let mut client = broker.open();
    client.send(&with_data(connect, &scram.first()).bytes());
    let (last, expected) = scram.last(&challenge(&mut client, 0x18));
    (client, last, expected)
}

/// A client that has logged in.
fn logged_in(broker: &Broker, connect: Connect, user: &str, password: &str) -> Client {
    let (mut client, last, expected) = challenged(broker, connect, &Scram::new(user, password));
    client.send(&auth(0x18, METHOD, &last));
    let connack = client.receive();
    assert_eq!(connack[0], 0x20, "{connack:02x?}");
    assert_eq!(said(&connack), (0, METHOD.into(), expected));
    client
}

fn expect_refusal(client: &mut Client, reason: u8) {
    client.expect(&[0x20, 3, 0, reason, 0]);
    client.expect_closed();
}

/// Begins a re-authentication; gives the client's answer to the challenge, and what it expects then.
fn begin_again(client: &mut Client, scram: &Scram) -> (Vec<u8>, Vec<u8>) {
    client.send(&auth(0x19, METHOD, &scram.first()));
    scram.last(&challenge(client, 0x18))
}

#[test]
fn scram_lets_a_user_in_with_the_rights_of_the_user() {
    proves!("5.0 MQTT-4.12.0-2", "5.0 MQTT-4.12.0-5", "5.0 MQTT-3.15.2-1", "5.0 MQTT-3.1.4-5");
    for gs2 in ["n,,", "y,,", "n,a=ada,"] {
        let scram = Scram::new("ada", "harbour").gs2(gs2);
        let (mut client, last, expected) = challenged(world(), connect(&unique("scram")), &scram);
        client.send(&auth(0x18, METHOD, &last));
        assert_eq!(said(&client.receive()), (0, METHOD.into(), expected));
        client.ask(&subscribe(1, &[("ada/#", 0), ("bob/#", 0)]), &suback(0x90, 1, &[0, 0x87]));
    }
}

#[test]
fn the_first_message_may_come_after_connect() {
    proves!("5.0 MQTT-4.12.0-2", "5.0 MQTT-4.12.0-3");
    let scram = Scram::new("ada", "harbour");
    let mut client = world().open();
    client.send(&connect(&unique("scram")).bytes());
    assert_eq!(challenge(&mut client, 0x18), b"");
    client.send(&auth(0x18, METHOD, &scram.first()));
    let (last, expected) = scram.last(&challenge(&mut client, 0x18));
    client.send(&auth(0x18, METHOD, &last));
    assert_eq!(said(&client.receive()), (0, METHOD.into(), expected));
    // It is asked for once.
    let mut silent = world().open();
    silent.send(&connect(&unique("scram")).bytes());
    challenge(&mut silent, 0x18);
    silent.send(&auth(0x18, METHOD, b""));
    expect_refusal(&mut silent, 0x87);
}

#[test]
fn auth_method_matrix() {
    proves!(
        "5.0 MQTT-4.12.0-1",
        "5.0 MQTT-4.12.0-3",
        "5.0 MQTT-4.12.0-4",
        "5.0 MQTT-4.12.0-5",
        "5.0 MQTT-3.1.4-2",
        "U-PROP-15-value"
    );
    // Methods that are not offered; and none is without a password file.
    for (broker, method) in
        [(world(), "SCRAM-SHA-1"), (world(), "scram-sha-256"), (world(), ""), (broker(), METHOD)]
    {
        let mut client = broker.open();
        client.send(&Connect::v5(&unique("method")).property(0x15, &string(method)).bytes());
        expect_refusal(&mut client, 0x8C);
    }
    // AUTH before CONNECT.
    let mut client = world().open();
    client.send(&auth(0x18, METHOD, b"n,,n=ada,r=x"));
    client.expect_closed();
    // Midway: another method, another reason code, no method.
    let scram = Scram::new("ada", "harbour");
    let wrong = |last: &[u8]| {
        let of = |method, reason| auth(reason, method, last);
        [of("SCRAM-SHA-1", 0x18), of(METHOD, 0x19), of(METHOD, 0), vec![0xF0, 0], auth_with(0x18, &[])]
    };
    for which in 0..wrong(&[]).len() {
        let (mut client, last, _) = challenged(world(), connect(&unique("midway")), &scram);
        client.send(&wrong(&last)[which]);
        expect_refusal(&mut client, 0x82);
    }
}

#[test]
fn who_cannot_prove_it_is_not_let_in() {
    proves!("5.0 MQTT-4.12.0-4", "5.0 MQTT-3.1.4-2", "5.0 MQTT-3.2.2-7");
    // Wrong password, a user without a verifier (whose password it is), nobody, and nobody's decoy key.
    for (user, password) in [("ada", "tide"), ("carl", "tide and harbour"), ("eve", "harbour"), ("eve", "")] {
        let (mut client, last, _) =
            challenged(world(), connect(&unique("wrong")), &Scram::new(user, password));
        client.send(&auth(0x18, METHOD, &last));
        expect_refusal(&mut client, 0x87);
    }
    // The proof of another exchange, and messages that are none.
    let scram = Scram::new("ada", "harbour");
    let (_, old, _) = challenged(world(), connect(&unique("replay")), &scram);
    for last in [&old[..], b"", b"c=biws", b"\xff\xfe", b"c=biws,r=x,p=AAAA"] {
        let (mut client, _, _) = challenged(world(), connect(&unique("replay")), &scram);
        client.send(&auth(0x18, METHOD, last));
        expect_refusal(&mut client, 0x87);
    }
    let long = format!("n,,n=ada,r={}", "x".repeat(60_000));
    for first in ["n", "ada", "n,,n=ada", "p=tls-unique,,n=ada,r=x", "n,a=bob,n=ada,r=x", "\u{7f}", &long] {
        let mut client = world().open();
        client.send(&with_data(connect(&unique("first")), first.as_bytes()).bytes());
        expect_refusal(&mut client, 0x87);
    }
}

#[test]
fn nothing_but_auth_and_disconnect_comes_before_connack() {
    proves!("5.0 MQTT-3.1.2-30");
    let scram = Scram::new("ada", "harbour");
    let id = unique("early");
    let early =
        [vec![0xC0, 0], subscribe(1, &[("ada/#", 0)]), Publish::new("ada/x", "x").v5(), connect(&id).bytes()];
    for early in early {
        let (mut client, _, _) = challenged(world(), connect(&id), &scram);
        client.send(&early);
        expect_refusal(&mut client, 0x82);
        // Also when it comes with the last AUTH.
        let (mut client, last, _) = challenged(world(), connect(&id), &scram);
        client.send(&[auth(0x18, METHOD, &last), early].concat());
        expect_refusal(&mut client, 0x82);
    }
    let (mut client, _, _) = challenged(world(), connect(&id), &scram);
    client.send(&disconnect(0, &[]));
    client.expect_closed();
}

#[test]
fn the_exchange_has_the_time_that_connect_has() {
    proves!("U-3.1.4-a");
    let world = start("[limits]\nconnect_timeout = \"2s\"");
    let (mut client, _, _) = challenged(&world.broker, connect("slow"), &Scram::new("ada", "harbour"));
    // Half of a packet that would be too late.
    client.send(&[0xF0, 0x50, 0x18]);
    client.expect_closed();
}

#[test]
fn users_who_do_not_exist_look_like_those_who_do() {
    let mut world = start("");
    let ask = |broker: &Broker, user: &str| {
        let mut client = broker.open();
        client.send(&with_data(connect(&unique("who")), &Scram::new(user, "").first()).bytes());
        let Challenge { salt, iterations, .. } = Challenge::parse(&challenge(&mut client, 0x18));
        (salt, iterations)
    };
    let users = ["ada", "carl", "eve", "mallory"];
    let before = users.map(|user| ask(&world.broker, user));
    assert_eq!(before, users.map(|user| ask(&world.broker, user)), "a user's salt stays");
    world.broker.crash();
    assert_eq!(before, users.map(|user| ask(&world.broker, user)), "also over a restart");
    let lengths: Vec<_> = before.iter().map(|(salt, iterations)| (salt.len(), *iterations)).collect();
    assert_eq!(lengths, vec![(before[0].0.len(), ITERATIONS); 4]);
    assert!(before[1].0 != before[2].0 && before[2].0 != before[3].0, "each has one of its own");
}

#[test]
fn id_hijack_before_auth() {
    proves!("5.0 MQTT-3.1.4-2");
    let id = unique("mine");
    let durable = |connect: Connect| connect.expiry(600).resuming();
    let mut mine = logged_in(world(), durable(connect(&id)), "ada", "harbour");
    mine.ask(&subscribe(1, &[("ada/#", 1)]), &suback(0x90, 1, &[1]));
    // While the other one is asked, when it fails, and when it goes.
    let (mut other, last, _) = challenged(world(), connect(&id), &Scram::new("ada", "wrong"));
    mine.expect_nothing();
    other.send(&auth(0x18, METHOD, &last));
    expect_refusal(&mut other, 0x87);
    drop(challenged(world(), connect(&id), &Scram::new("ada", "harbour")));
    let mut other = world().open();
    other.send(&Connect::v5(&id).user("ada", Some("wrong")).bytes());
    expect_refusal(&mut other, 0x86);
    let mut other = world().open();
    other.send(&Connect::v5(&id).bytes());
    expect_refusal(&mut other, 0x87);
    mine.send(&Publish::new("ada/x", "still here").v5());
    assert_eq!(mine.message().payload, b"still here");
    // Who has proved it takes the session over.
    let (mut other, last, _) = challenged(world(), durable(connect(&id)), &Scram::new("ada", "harbour"));
    other.send(&auth(0x18, METHOD, &last));
    assert_eq!(other.receive()[..4][2..], [1, 0], "session present");
    mine.expect_end(0x8E);
}

#[test]
fn a_user_name_beside_the_method_has_to_be_the_same() {
    let scram = Scram::new("ada", "harbour");
    for (name, reason) in [("ada", 0), ("bob", 0x87), ("", 0x87)] {
        let with_name = connect(&unique("beside")).user(name, Some("not looked at"));
        let (mut client, last, _) = challenged(world(), with_name, &scram);
        client.send(&auth(0x18, METHOD, &last));
        assert_eq!(client.receive()[3], reason, "{name}");
    }
}

#[test]
fn a_verifier_checks_passwords_too() {
    proves!("5.0 MQTT-4.12.0-6");
    for (password, reason) in [("harbour", 0), ("tide", 0x86)] {
        let mut client = world().open();
        client.send(&Connect::v5(&unique("plain")).user("ada", Some(password)).bytes());
        let connack = client.receive();
        assert_eq!((connack[0], connack[3]), (0x20, reason), "{password}");
        assert!(!connack[4..].contains(&0x15), "a method that was not asked for: {connack:02x?}");
    }
    let mut client = world().open();
    client.ask(&Connect::v311(&unique("plain")).user("ada", Some("harbour")).bytes(), &[0x20, 2, 0, 0]);
}

#[test]
fn packets_flow_while_a_client_authenticates_again() {
    proves!("5.0 MQTT-4.12.1-1", "5.0 MQTT-4.12.0-5", "5.0 MQTT-3.15.2-1");
    let mut client = logged_in(world(), connect(&unique("again")), "ada", "harbour");
    for again in 1..=3 {
        let (last, expected) = begin_again(&mut client, &Scram::new("ada", "harbour"));
        client.ask(&subscribe(again, &[("ada/again", 1)]), &suback(0x90, again, &[1]));
        client.send(&Publish::new("ada/again", "x").v5());
        assert_eq!(client.message().topic, "ada/again");
        client.send(&auth(0x18, METHOD, &last));
        assert_eq!(challenge(&mut client, 0x00), expected);
        client.expect_nothing();
    }
    // Without data the client is asked for its first message.
    client.send(&auth(0x19, METHOD, b""));
    assert_eq!(challenge(&mut client, 0x18), b"");
    let scram = Scram::new("ada", "harbour");
    client.send(&auth(0x18, METHOD, &scram.first()));
    let (last, expected) = scram.last(&challenge(&mut client, 0x18));
    client.send(&auth(0x18, METHOD, &last));
    assert_eq!(challenge(&mut client, 0x00), expected);
}

#[test]
fn who_fails_to_authenticate_again_is_told_and_closed() {
    proves!("5.0 MQTT-4.12.1-2");
    let mut witness = logged_in(world(), connect(&unique("witness")), "ada", "harbour");
    let topic = format!("ada/{}", unique("will"));
    witness.ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    // A wrong password, and another user with the right one: a connection stays whose it is.
    for (user, password) in [("ada", "wrong"), ("bob", "tide")] {
        let with_will = connect(&unique("again")).will(&topic, "failed", 0);
        let mut client = logged_in(world(), with_will, "ada", "harbour");
        let (last, _) = begin_again(&mut client, &Scram::new(user, password));
        client.send(&auth(0x18, METHOD, &last));
        client.expect_end(0x87);
        assert_eq!(witness.message().payload, b"failed", "the will goes out");
    }
}

#[test]
fn auth_has_its_order_after_connack() {
    proves!(
        "5.0 MQTT-4.12.0-5",
        "5.0 MQTT-4.12.0-7",
        "5.0 MQTT-4.12.1-1",
        "5.0 MQTT-4.13.1-1",
        "U-3.15.0-a",
        "U-PROP-15-value"
    );
    let first = Scram::new("ada", "harbour").first();
    for (wrong, is_begun) in [
        (auth(0x19, "SCRAM-SHA-1", &first), false),
        (auth(0x18, METHOD, &first), false),
        (auth(0x00, METHOD, &first), false),
        (vec![0xF0, 0], false),
        (auth(0x19, METHOD, &first), true),
        (auth(0x18, "SCRAM-SHA-1", &first), true),
        (auth(0x00, METHOD, b""), true),
    ] {
        let mut client = logged_in(world(), connect(&unique("order")), "ada", "harbour");
        if is_begun {
            begin_again(&mut client, &Scram::new("ada", "harbour"));
        }
        client.send(&wrong);
        client.expect_end(0x82);
        // A client whose CONNECT had no method sends no AUTH.
        let mut client = world().connect(&Connect::v5(&unique("order")).user("ada", Some("harbour")));
        client.send(&wrong);
        client.expect_end(0x82);
    }
    // Type 15 is reserved before 5.0.
    let mut client = broker().connect(&Connect::v311(&unique("order")));
    client.send(&auth(0x19, METHOD, &first));
    client.expect_closed();
}

#[test]
fn auth_is_judged_like_any_packet() {
    proves!(
        "5.0 MQTT-3.15.1-1",
        "5.0 MQTT-3.15.2-1",
        "U-PROP-15-once",
        "U-PROP-15-where",
        "U-PROP-15-value",
        "U-PROP-16-once",
        "U-PROP-16-where",
        "U-PROP-16-value"
    );
    let (method, data) = ([&[0x15][..], &string(METHOD)].concat(), vec![0x16, 0, 1, b'x']);
    let good = auth_with(0x19, &[&method[..], &data].concat());
    let flags = |flags: u8| [&[0xF0 | flags], &good[1..]].concat();
    let cases = [
        (flags(1), 0x81),
        (flags(2), 0x81),
        (flags(8), 0x81),
        (auth_with(0x04, &method), 0x82),
        (auth_with(0x87, &method), 0x82),
        (auth_with(0x19, &[&method[..], &method].concat()), 0x82),
        (auth_with(0x19, &[&method[..], &data, &data].concat()), 0x82),
        (auth_with(0x19, &data), 0x82),
        (auth_with(0x19, &[&method[..], &[0x11, 0, 0, 0, 1]].concat()), 0x81),
        (Publish::new("ada/x", "").property(0x15, &string(METHOD)).v5(), 0x81),
        (Publish::new("ada/x", "").property(0x16, &[0, 1, b'x']).v5(), 0x81),
        (disconnect(0, &method), 0x81),
        (disconnect(0, &data), 0x81),
    ];
    for (packet, reason) in cases {
        let mut client = logged_in(world(), connect(&unique("judged")), "ada", "harbour");
        client.send(&packet);
        client.expect_end(reason);
    }
    // The same in CONNECT.
    let id = || Connect::v5(&unique("judged"));
    let twice = id().property(0x15, &string(METHOD)).property(0x15, &string(METHOD));
    let data_twice = connect(&unique("judged")).property(0x16, &[0, 1, b'x']).property(0x16, &[0, 1, b'x']);
    for connect in [twice, data_twice, id().property(0x16, &[0, 1, b'x'])] {
        let mut client = world().open();
        client.send(&connect.bytes());
        expect_refusal(&mut client, 0x82);
    }
}

#[test]
fn auth_says_no_more_than_fits() {
    proves!("5.0 MQTT-3.15.2-2", "5.0 MQTT-3.15.2-3", "5.0 MQTT-3.1.2-24", "5.0 MQTT-3.1.2-25");
    // `said` finds neither reason string nor user properties; so the challenge is as small as it can be.
    let scram = Scram::new("ada", "harbour");
    let sized = |size: u32| {
        let mut client = world().open();
        let connect = connect(&unique("small")).property(0x27, &size.to_be_bytes());
        client.send(&with_data(connect, &scram.first()).bytes());
        client.receive()
    };
    let whole = sized(1000);
    assert_eq!(whole[0], 0xF0);
    let size = whole.len() as u32;
    assert_eq!(sized(size).len(), whole.len());
    assert_eq!(sized(size - 1), [0x20, 3, 0, 0x95, 0]);
    // Not even the refusal fits.
    let mut client = world().open();
    client.send(&connect(&unique("small")).property(0x27, &4_u32.to_be_bytes()).bytes());
    client.expect_closed();
}

#[test]
fn without_a_method_the_server_names_none() {
    proves!("5.0 MQTT-4.12.0-6");
    let mut client = world().open();
    client.send(&Connect::v5(&unique("plain")).user("ada", Some("harbour")).bytes());
    let (reason, method, data) = said(&client.receive());
    assert_eq!((reason, &*method, &data[..]), (0, "", &b""[..]));
    client.expect_nothing();
}

#[test]
fn auth_comes_in_pieces_too() {
    let (mut client, last, expected) =
        challenged(world(), connect(&unique("pieces")), &Scram::new("ada", "harbour"));
    auth(0x18, METHOD, &last).iter().for_each(|byte| client.send(&[*byte]));
    assert_eq!(said(&client.receive()), (0, METHOD.into(), expected));
}
