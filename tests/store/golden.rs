//! Databases as each schema version of Causeway has written them: this version opens every one of them, and
//! finds everything.
//!
//! `tests/golden/schema-N.txt` is the database (see [`sparse`]), `schema-N.json` what cannot be known before it
//! was made: idempotency keys and dead letters. All files are filled by [`fill`], so that one look at them,
//! [`verify`], holds for all.
//!
//! For a new schema version: build it, run `cargo test --test store make_a_golden_file -- --ignored`, and commit
//! the two files that appear. Never make a file of an earlier version anew: what matters is that the old program
//! wrote it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway::record::{Change, Record};
use causeway::store::{Store, StoreSettings};
use redb::{ReadableDatabase as _, ReadableTableMetadata as _};
use serde_json::{Value, json};

use crate::broker::{Home, Running};
use crate::sparse;
use crate::target::Target;
use crate::wire::{
    Client, Connect, Publish, Received, ack, ack_with, suback, suback_v311, subscribe, subscribe_v311,
    subscribe_with,
};

/// The hash of "secret".
const HASH: &str = "$7$1000$AAECAwQFBgcICQoL$4wTcmyeXKbX+eU8mRAv8RuY7FkPT5YqwsG6AZlmHKNwWPzuBfjOpFNbp6eDXGOQ94FxpOi30RqAptC1OfHP0KA==";
const FOR_EVER: u32 = u32::MAX;
/// Messages that may wait for one session while the file is made.
const QUEUE_MAX: u16 = 20;
/// Message Expiry Interval of the message that has one, in seconds.
const EXPIRY: u32 = 4_000_000_000;

/// What a file holds that no other has.
#[derive(Debug)]
struct Facts {
    /// Idempotency key and body of each request that a route owes.
    requests: BTreeMap<String, String>,
    dead_letters: Value,
}

/// Whether a database goes on, or is a copy: then its clients may have had more than it knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    First,
    Restored,
}

impl Facts {
    /// Whether these are those; of a dead letter more may be told than its version knew to tell.
    fn assert_has(&self, known: &Self) {
        assert_eq!(self.requests, known.requests);
        let letters = |facts: &Self| facts.dead_letters["dead_letters"].as_array().unwrap().clone();
        let (found, known) = (letters(self), letters(known));
        assert_eq!(found.len(), known.len());
        for (found, known) in found.iter().zip(&known) {
            let told = known.as_object().unwrap().iter();
            told.for_each(|(key, value)| assert_eq!(found[key], *value, "{key} of {found:#}"));
        }
    }

    fn to_json(&self) -> String {
        format!("{:#}\n", json!({ "requests": self.requests, "dead_letters": self.dead_letters }))
    }

    fn from_json(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap();
        let requests = value["requests"].as_object().unwrap().iter();
        let requests = requests.map(|(key, body)| (key.clone(), body.as_str().unwrap().to_owned()));
        Self { requests: requests.collect(), dead_letters: value["dead_letters"].clone() }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The databases that were kept, with the number of their schema version.
pub fn files() -> Vec<(u64, Vec<u8>)> {
    let version = |path: &Path| path.file_stem()?.to_str()?.strip_prefix("schema-")?.parse().ok();
    let paths = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let texts = paths.filter(|path| path.extension().is_some_and(|end| end == "txt"));
    let mut files: Vec<_> = texts
        .map(|path| (version(&path).unwrap(), sparse::unpack(&fs::read_to_string(path).unwrap())))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn facts(version: u64) -> Facts {
    Facts::from_json(&fs::read_to_string(folder().join(format!("schema-{version}.json"))).unwrap())
}

/// Also by the second start: the first one may have changed the file.
#[test]
fn files_of_every_schema_version_open_with_everything() {
    for (version, file) in files() {
        eprintln!("schema {version}");
        let found = verify(&file, |home| home.start().kill());
        found.assert_has(&facts(version));
    }
}

/// Looks at a restored copy of the newest file: the keys are those it had, and only the exchange that a client
/// had begun is not known any more.
pub fn look_at_restored(file: &[u8]) {
    let version = files().pop().unwrap().0;
    verify_as(Life::Restored, file, |_| ()).assert_has(&facts(version));
}

#[test]
fn there_is_a_golden_file_of_the_present_version() {
    let home = Home::new("");
    home.start().kill();
    let present = schema_of(&home);
    assert!(files().iter().any(|(version, _)| *version == present), "make the file of schema {present}");
}

#[test]
#[ignore = "makes the golden files of a new schema version: see the top of this file"]
fn make_a_golden_file() {
    let home = Home::new("");
    fill(&home);
    // As the broker has left it when it was killed: whoever opens it tidies up.
    let file = fs::read(home.file()).unwrap();
    let version = schema_of(&home);
    assert!(has_rows(&home, "index"), "the index is a part of it");
    assert!(has_rows(&home, "tries"), "what was tried is a part of it");
    let facts = verify(&file, |_| ());
    for (end, text) in [("txt", sparse::pack(&file)), ("json", facts.to_json())] {
        let path = folder().join(format!("schema-{version}.{end}"));
        assert!(!path.exists(), "{path:?} is there: what was written once is kept");
        fs::write(path, text).unwrap();
    }
}

fn schema_of(home: &Home) -> u64 {
    let database = redb::Database::open(home.file()).unwrap();
    let table = redb::TableDefinition::<&str, &[u8]>::new("meta");
    let meta = database.begin_read().unwrap().open_table(table).unwrap();
    let schema = meta.get("schema").unwrap().unwrap();
    u64::from_be_bytes(schema.value().try_into().unwrap())
}

fn has_rows(home: &Home, name: &str) -> bool {
    let database = redb::Database::open(home.file()).unwrap();
    let table = redb::TableDefinition::<(u64, u64), &[u8]>::new(name);
    let rows = database.begin_read().unwrap().open_table(table);
    rows.is_ok_and(|rows| rows.len().unwrap() > 0)
}

/// The configuration that the file is made and looked at with: `more` stands in front, `ada` is what the user of
/// this name may do.
fn configure(home: &Home, target: &Target, more: &str, ada: &str) {
    let (users, rights) = (home.path("users"), home.path("rights"));
    fs::write(&users, format!("ada:{HASH}\nbob:{HASH}\n")).unwrap();
    fs::write(&rights, format!("topic readwrite #\nuser ada\n{ada}\nuser bob\ntopic readwrite #\n")).unwrap();
    let at = target.address;
    home.configure(&format!(
        "{more}\n[auth]\nanonymous = true\npassword_file = {users:?}\nacl_file = {rights:?}\n\
         [retain]\ncheck_source = true\n[sys]\ninterval = \"0s\"\n\
         [targets.later]\nurl = \"http://{at}/later\"\nretry.max_age = \"3650d\"\n\
         [targets.never]\nurl = \"http://{at}/never\"\nretry.max_age = \"3650d\"\n\
         [[routes]]\nname = \"plants\"\ntopics = [\"plant/#\"]\ntarget = \"later\"\n\
         [[routes]]\nname = \"bad\"\ntopics = [\"bad/#\"]\ntarget = \"never\"\n"
    ));
}

fn durable(id: &str) -> Connect {
    Connect::v5(id).expiry(FOR_EVER).resuming()
}

/// Publishes with QoS 1, and waits for the PUBACK.
fn publish(client: &mut Client, topic: &str, payload: &str) {
    client.ask(&Publish::new(topic, payload).qos(1, 1).v5(), &ack(0x40, 1));
}

/// Makes a database that has everything in it that there is, and kills the broker that made it.
fn fill(home: &Home) {
    let target = Target::start(|path| match path {
        "/never" => ("422 Unprocessable Content", "not like this"),
        _ => ("503 Service Unavailable", ""),
    });
    configure(home, &target, &format!("[limits]\nqueued_messages = {QUEUE_MAX}"), "topic readwrite #");
    let broker = home.start();
    subscribe_all(&broker);
    fill_backlogs(&mut broker.connect(&durable("sender")));
    while broker.json("/api/v1/dead-letters")["dead_letters"].as_array().unwrap().len() < 4 {
        std::thread::sleep(Duration::from_millis(5));
    }
    broker.kill();
    index(home);
    let broker = home.start();
    let mut sender = broker.resume(&durable("sender"));
    let online = fill_exchanges(&broker, &mut sender);
    for (user, topic) in [(Some("ada"), "conf/ada"), (Some("bob"), "conf/bob"), (None, "conf/nobody")] {
        let connect =
            user.map_or(Connect::v5("author"), |user| Connect::v5("author").user(user, Some("secret")));
        let kept = Publish::new(topic, "kept").qos(1, 1).retain().property(0x03, b"\0\x04text");
        broker.connect(&connect).ask(&kept.v5(), &ack_with(0x40, 1, 0x10));
    }
    let will = durable("mourned").will("alarm/lost", "lost at sea", 1).will_property(0x18, &[0xF0, 0, 0, 0]);
    broker.connect(&will.will_property(0x03, b"\0\x04text")).cut();
    // Between PUBREC and PUBREL. With it everything before it is on disk.
    sender.ask(&Publish::new("plant/9/temp", "begun").qos(2, 77).v5(), &ack(0x50, 77));
    broker.kill();
    drop((sender, online));
}

/// Has what is owed put into the index, as it would be if it were much.
fn index(home: &Home) {
    let settings = StoreSettings {
        cache_size: 1 << 20,
        commit_interval: Duration::ZERO,
        batch_bytes_max: 1 << 20,
        queue_bytes_max: 1 << 20,
        compact_at_start: false,
        recent_max: 1,
    };
    let (store, _) = Store::open(&home.data(), &settings).unwrap();
    // Each commit does a part of it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..10 {
        let record = Record::of([Change::RetainedRemoved("nothing".into())]);
        let lsn = store.submit(record).unwrap().lsn;
        runtime.block_on(store.durable(lsn)).unwrap();
    }
    store.close();
}

/// Sessions that are not there any more when messages come, but for `half` and `flows`.
fn subscribe_all(broker: &Running) {
    let mut reader = broker.connect(&durable("reader"));
    // Subscription Identifier 200; No Local, Retain As Published.
    reader.ask(&subscribe_with(1, &[0x0B, 0xC8, 1], &[("plant/+/temp", 1)]), &suback(0x90, 1, &[1]));
    reader.ask(&subscribe(1, &[("alarm/#", 2 | 4 | 8)]), &suback(0x90, 1, &[2]));
    reader.leave();
    for (id, filters) in [
        ("logger", &[("plant/#", 1), ("alarm/#", 2), ("half/#", 1)][..]),
        ("full", &[("full/#", 1)]),
        ("idle", &[("idle/#", 0)]),
    ] {
        let mut client = broker.connect(&Connect::v311(id).resuming());
        let granted: Vec<_> = filters.iter().map(|(_, qos)| *qos).collect();
        client.ask(&subscribe_v311(1, filters), &suback_v311(1, &granted));
        client.leave();
    }
    let mut worker = broker.connect(&durable("worker"));
    worker.ask(&subscribe(1, &[("$share/team/job/#", 2)]), &suback(0x90, 1, &[2]));
    worker.leave();
}

fn fill_backlogs(sender: &mut Client) {
    for n in 1..=5 {
        publish(sender, &format!("plant/{n}/temp"), &format!("{n} degrees"));
        publish(sender, "job/new", &format!("job {n}"));
    }
    let large = "x".repeat(10_000);
    sender.ask(&Publish::new("alarm/large", &large).qos(2, 2).v5(), &ack(0x50, 2));
    sender.ask(&ack(0x62, 2), &ack(0x70, 2));
    let everything = everything("alarm/everything").property(0x02, &EXPIRY.to_be_bytes());
    sender.ask(&everything.qos(1, 3).retain().v5(), &ack(0x40, 3));
    for n in 1..=QUEUE_MAX + 2 {
        publish(sender, "full/up", &n.to_string());
    }
    publish(sender, "bad/1", "refused 1");
    publish(sender, "bad/2", "refused 2");
}

/// A PUBLISH with every property that is handed on, but for the one that changes on the way.
fn everything(topic: &str) -> Publish {
    Publish::new(topic, "everything")
        .property(0x01, &[1])
        .property(0x03, b"\0\x04text")
        .property(0x08, b"\0\x06answer")
        .property(0x09, b"\0\x03\x01\x02\x03")
        .property(0x26, b"\0\x01a\0\x01b")
}

/// Leaves exchanges in every state, and gives the connection that is still there.
fn fill_exchanges(broker: &Running, sender: &mut Client) -> Client {
    let mut half = broker.connect(&durable("half"));
    half.ask(&subscribe(1, &[("half/#", 1)]), &suback(0x90, 1, &[1]));
    let mut flows = broker.connect(&durable("flows"));
    flows.ask(&subscribe(1, &[("flow/#", 2)]), &suback(0x90, 1, &[2]));
    for n in 1..=10 {
        publish(sender, "half/way", &n.to_string());
        let message = half.message();
        if [1, 2, 4, 7].contains(&n) {
            half.send(&ack(0x40, message.id));
        }
    }
    half.leave();
    publish(sender, "flow/1", "no PUBACK");
    for (id, payload) in [(2, "no PUBREC"), (3, "no PUBCOMP")] {
        sender.ask(&Publish::new("flow/2", payload).qos(2, id).v5(), &ack(0x50, id));
        sender.ask(&ack(0x62, id), &ack(0x70, id));
    }
    let [_, _, third] = [flows.message(), flows.message(), flows.message()];
    flows.ask(&ack(0x50, third.id), &ack(0x62, third.id));
    flows.leave();
    let mut online = broker.connect(&durable("online"));
    online.ask(&subscribe(1, &[("live/#", 2)]), &suback(0x90, 1, &[2]));
    publish(sender, "live/1", "not acknowledged");
    online.message();
    online
}

/// Starts the present broker on a copy of the file, looks at everything that is in it, and tells what only this
/// file has. `before` may do something with it first.
fn verify(file: &[u8], before: impl FnOnce(&Home)) -> Facts {
    verify_as(Life::First, file, before)
}

fn verify_as(life: Life, file: &[u8], before: impl FnOnce(&Home)) -> Facts {
    let home = Home::new("");
    home.put(file);
    let down = Target::start(|_| ("503 Service Unavailable", ""));
    configure(&home, &down, "", "topic read #");
    before(&home);
    let target = Target::start(|_| ("200 OK", ""));
    configure(&home, &target, "", "topic read #");
    let broker = home.start();
    verify_sessions(&broker);
    verify_reader(&broker, life);
    verify_logger(&broker);
    verify_exchanges(&broker);
    if life == Life::First {
        verify_inbound(&broker);
    }
    verify_retained_and_wills(&broker);
    let mut full = broker.resume(&Connect::v311("full").resuming());
    (1..=QUEUE_MAX).for_each(|n| assert_eq!(full.take_qos_1().payload, n.to_string().as_bytes()));
    full.expect_nothing();
    let mut worker = broker.resume(&durable("worker"));
    (1..=5).for_each(|n| assert_eq!(worker.take_qos_1().payload, format!("job {n}").as_bytes()));
    worker.expect_nothing();
    broker.resume(&Connect::v311("idle").resuming()).expect_nothing();
    // One is of the message that `verify_reader` has published.
    let requests = target.wait_for(7);
    assert!(requests.iter().all(|request| request.path == "/later"), "{requests:?}");
    let owed = requests.into_iter().filter(|request| request.body != "new");
    Facts {
        requests: owed.map(|request| (request.key, request.body)).collect(),
        dead_letters: broker.json("/api/v1/dead-letters"),
    }
}

/// Who is there, how many messages each is owed, and how many subscriptions it has.
fn verify_sessions(broker: &Running) {
    let list = broker.json("/api/v1/sessions");
    let mut sessions: Vec<_> = list["sessions"].as_array().unwrap().iter().collect();
    sessions.sort_by_key(|session| session["client_id"].as_str().unwrap());
    let told: Vec<_> = sessions
        .iter()
        .map(|session| {
            let number = |key: &str| session[key].as_u64().unwrap();
            (session["client_id"].as_str().unwrap(), number("queued_messages"), number("subscriptions"))
        })
        .collect();
    let expected = [
        ("flows", 3, 1),
        ("full", u64::from(QUEUE_MAX), 1),
        ("half", 6, 1),
        ("idle", 0, 1),
        ("logger", 18, 3),
        ("mourned", 0, 0),
        ("online", 1, 1),
        ("reader", 8, 2),
        ("sender", 0, 0),
        ("worker", 0, 1),
    ];
    assert_eq!(told, expected);
    assert!(sessions.iter().all(|session| session["online"] == false && session["durable"] == true));
}

fn texts<'a>(messages: &'a [Received]) -> Vec<(u8, &'a str, &'a str)> {
    let text = |message: &'a Received| {
        let payload = std::str::from_utf8(&message.payload).unwrap();
        (message.qos, message.topic.as_str(), &payload[..payload.len().min(20)])
    };
    messages.iter().map(text).collect()
}

fn verify_reader(broker: &Running, life: Life) {
    let mut reader = broker.resume(&durable("reader"));
    let mut messages: Vec<_> = (0..8).map(|_| reader.message()).collect();
    // The order is that of each QoS.
    messages.sort_by_key(|message| message.qos);
    let expected = [
        (1, "plant/1/temp", "1 degrees"),
        (1, "plant/2/temp", "2 degrees"),
        (1, "plant/3/temp", "3 degrees"),
        (1, "plant/4/temp", "4 degrees"),
        (1, "plant/5/temp", "5 degrees"),
        (1, "alarm/everything", "everything"),
        (1, "plant/9/temp", "begun"),
        (2, "alarm/large", "xxxxxxxxxxxxxxxxxxxx"),
    ];
    assert_eq!(texts(&messages), expected);
    assert_eq!(messages[0].properties, [0x0B, 0xC8, 1], "the Subscription Identifier");
    assert_eq!(messages[7].payload.len(), 10_000);
    let full = &messages[5];
    assert!(full.retain, "Retain As Published");
    let at = full.properties.windows(5).position(|part| part[0] == 2 && part[1] >= 0xE0).unwrap();
    let left = u32::from_be_bytes(full.properties[at + 1..at + 5].try_into().unwrap());
    assert!(left <= EXPIRY, "{left}");
    for property in
        ["\x01\x01", "\x03\0\x04text", "\x08\0\x06answer", "\x09\0\x03\x01\x02\x03", "\x26\0\x01a\0\x01b"]
    {
        assert!(
            full.properties.windows(property.len()).any(|part| part == property.as_bytes()),
            "{property:?}"
        );
    }
    assert!(messages.iter().all(|message| message.dup == (life == Life::Restored && message.qos == 1)));
    reader.expect_nothing();
    // The subscriptions live, too.
    let mut publisher = broker.connect(&Connect::v5("publisher"));
    publish(&mut publisher, "plant/6/temp", "new");
    let message = reader.message();
    assert_eq!((message.payload, message.properties), (b"new".to_vec(), vec![0x0B, 0xC8, 1]));
    reader.leave_with(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
}

fn verify_logger(broker: &Running) {
    let mut logger = broker.resume(&Connect::v311("logger").resuming());
    let mut messages = Vec::new();
    // The one of `verify_reader` comes last.
    for _ in 0..19 {
        let message = logger.message();
        logger.send(&ack(if message.qos == 1 { 0x40 } else { 0x50 }, message.id));
        if message.qos == 2 {
            logger.defer_until(&ack(0x62, message.id));
            logger.send(&ack(0x70, message.id));
        }
        messages.push(message);
    }
    messages.sort_by_key(|message| message.qos);
    let told = texts(&messages);
    let halves: Vec<_> =
        told.iter().filter(|(_, topic, _)| *topic == "half/way").map(|told| told.2).collect();
    assert_eq!(halves, ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
    assert_eq!(told[0], (1, "plant/1/temp", "1 degrees"));
    assert_eq!(told[17], (1, "plant/6/temp", "new"));
    assert_eq!(told[18].1, "alarm/large");
    logger.leave();
}

fn verify_exchanges(broker: &Running) {
    let mut half = broker.resume(&durable("half"));
    for n in [3, 5, 6, 8, 9, 10] {
        let message = half.take_qos_1();
        assert!(message.dup, "{message:?}");
        assert_eq!(message.payload, n.to_string().as_bytes());
    }
    half.expect_nothing();

    let mut flows = broker.resume(&durable("flows"));
    let mut packets = [flows.receive(), flows.receive(), flows.receive()];
    packets.sort();
    let [first, second] = [flows.parse(&packets[0]), flows.parse(&packets[1])];
    assert_eq!((first.qos, first.dup, &*first.payload), (1, true, &b"no PUBACK"[..]));
    assert_eq!((second.qos, second.dup, &*second.payload), (2, true, &b"no PUBREC"[..]));
    flows.ask(&ack(0x50, second.id), &ack(0x62, second.id));
    assert_eq!(packets[2][0], 0x62, "PUBREL, and no PUBLISH");
    flows.send(&ack(0x40, first.id));
    flows.send(&ack(0x70, second.id));
    flows.send(&[0x70, 2, packets[2][2], packets[2][3]]);
    flows.expect_nothing();

    let mut online = broker.resume(&durable("online"));
    let message = online.take_qos_1();
    assert!(message.dup && message.payload == b"not acknowledged", "{message:?}");
    online.expect_nothing();
}

/// The exchange that the sender has begun: its message is routed no second time.
fn verify_inbound(broker: &Running) {
    let mut sender = broker.resume(&durable("sender"));
    sender.ask(&Publish::new("plant/9/temp", "begun").qos(2, 77).dup().v5(), &ack(0x50, 77));
    sender.ask(&ack(0x62, 77), &ack(0x70, 77));
    sender.ask(&ack(0x62, 77), &ack_with(0x70, 77, 0x92));
    broker.resume(&Connect::v311("logger").resuming()).expect_nothing();
}

fn verify_retained_and_wills(broker: &Running) {
    let mut witness = broker.connect(&Connect::v5("witness"));
    witness.ask(&subscribe(1, &[("conf/+", 1), ("alarm/+", 1)]), &suback(0x90, 1, &[1, 1]));
    let mut kept = [witness.take_qos_1(), witness.take_qos_1(), witness.take_qos_1()];
    kept.sort_by(|a, b| a.topic.cmp(&b.topic));
    let topics = kept.each_ref().map(|message| message.topic.as_str());
    // That of ada is there, and held back: she may not publish it any more.
    assert_eq!(topics, ["alarm/everything", "conf/bob", "conf/nobody"]);
    assert!(kept.iter().all(|message| message.retain));
    assert_eq!(kept[1].properties, b"\x03\0\x04text");
    witness.expect_nothing();
    // The session of the client ends, and with it the delay of its will.
    let mourned = broker.connect(&Connect::v5("mourned"));
    let will = witness.take_qos_1();
    assert_eq!((will.topic.as_str(), &*will.payload), ("alarm/lost", &b"lost at sea"[..]));
    assert_eq!(will.properties, b"\x03\0\x04text");
    drop(mourned);
}
