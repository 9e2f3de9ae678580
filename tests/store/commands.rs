//! `causeway store`: check, compact, backup and restore.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::broker::{Home, Running};
use crate::golden;
use crate::target::Target;
use crate::wire::{Client, Connect, Publish, ack, ack_with, suback, subscribe};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs `causeway store` on the folder's database; it has to end well.
fn store(home: &Home, arguments: &[&str]) -> String {
    let output = run(home, arguments);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn run(home: &Home, arguments: &[&str]) -> Output {
    home.run(&[&["store", "--data", "data"], arguments].concat())
}

/// Runs it where it has to be refused.
fn refused(home: &Home, arguments: &[&str]) -> String {
    let output = run(home, arguments);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    said(&output)
}

fn golden_home() -> Home {
    let home = Home::new("");
    home.put(&golden::files().pop().unwrap().1);
    home
}

fn durable(id: &str) -> Connect {
    Connect::v5(id).expiry(3600).resuming()
}

fn publish(client: &mut Client, topic: &str, payload: &str) {
    client.ask(&Publish::new(topic, payload).qos(1, 1).v5(), &ack(0x40, 1));
}

/// A durable session that waits for what comes to `kept`.
fn keeper(broker: &Running) {
    let mut keeper = broker.connect(&durable("keeper"));
    keeper.ask(&subscribe(1, &[("kept", 2)]), &suback(0x90, 1, &[2]));
    keeper.leave();
}

#[test]
fn check_tells_what_is_there_and_changes_nothing() {
    let home = golden_home();
    let before = fs::read(home.file()).unwrap();
    let text = store(&home, &["check"]);
    assert!(text.starts_with("data/causeway.redb: good\n"), "{text}");
    let report: Value = serde_json::from_str(&store(&home, &["check", "--json"])).unwrap();
    let number = |path: &str| report.pointer(path).unwrap().as_u64().unwrap();
    assert_eq!(number("/messages/count"), 47);
    assert_eq!(number("/dead_letters/count"), 4);
    assert_eq!(number("/retained/count"), 4);
    assert_eq!((number("/sessions"), number("/subscriptions")), (10, 11));
    assert_eq!((number("/groups"), number("/routes")), (1, 2));
    assert_eq!(report["problems"], serde_json::json!([]));
    let pins = report["pins"].as_array().unwrap();
    let pin = |name: &str| pins.iter().find(|pin| pin["name"] == name).unwrap();
    assert_eq!(pin("logger")["count"], 18);
    assert_eq!(pin("logger")["kind"], "session");
    assert_eq!(pin("$share/team/job/#")["count"], 5);
    assert_eq!(pin("plants")["count"], 6);
    assert!(number("/space/used") > 0 && number("/space/used") <= number("/space/length"));
    assert_eq!(fs::read(home.file()).unwrap(), before, "the file is as it was");
}

/// Also a route that is not configured any more.
#[test]
fn sessions_list_shows_who_the_disk_is_kept_for() {
    let home = golden_home();
    let broker = home.start();
    let output = home.run(&["sessions", "list", "--admin", &broker.admin.to_string()]);
    let text = said(&output);
    for (beginning, what) in [
        ("logger ", " 18  10.5 KiB "),
        ("for route plants ", " 6  284 B "),
        ("for group $share/team/job/# ", " 5  160 B "),
        ("dead letters ", " 4  454 B "),
        ("retained messages ", " 4  "),
    ] {
        let line = text.lines().find(|line| line.starts_with(beginning));
        assert!(line.is_some_and(|line| line.contains(what)), "{beginning}{what} is not in\n{text}");
    }
    assert!(text.ends_with("47 messages for all of them, 11.3 KiB\n"), "{text}");
    let pins: Vec<_> = text.lines().skip(1).take_while(|line| !line.is_empty()).collect();
    assert!(pins[0].starts_with("logger") && pins[1].starts_with("reader"), "the most comes first: {text}");
}

#[test]
fn commands_say_what_is_missing_or_in_the_way() {
    let home = Home::new("");
    for arguments in [&["check"][..], &["compact"], &["backup", "copy"]] {
        let text = refused(&home, arguments);
        assert!(text.contains("there is no database in data: name its folder with --data"), "{text}");
    }
    let broker = home.start();
    for arguments in [&["check"][..], &["compact"], &["restore", "data/causeway.redb", "--force"]] {
        let text = refused(&home, arguments);
        assert!(text.contains("is in use by another process"), "{text}");
    }
    // What answers is another one, or nobody.
    let other = Home::new("").start();
    let text = refused(&home, &["backup", "copy", "--admin", "127.0.0.1:1"]);
    assert!(text.contains("no admin listener answers at 127.0.0.1:1"), "{text}");
    let config = format!("[admin]\naddress = \"{}\"\n", other.admin);
    fs::write(home.path("other.toml"), config).unwrap();
    let text = refused(&home, &["backup", "copy", "--config", "other.toml"]);
    assert!(text.contains("and not in data: name the other one's address"), "{text}");
    assert!(!home.path("copy").exists());
    broker.stop();
    let text = refused(&home, &["restore", "data/causeway.redb"]);
    assert!(text.contains("is there already: with --force it is moved aside"), "{text}");
    fs::write(home.path("copy"), "mine").unwrap();
    let text = refused(&home, &["backup", "copy"]);
    assert!(text.contains("copy is there already: choose another name"), "{text}");
    assert_eq!(fs::read(home.path("copy")).unwrap(), b"mine");
}

/// What `check` finds in both is the same, but for the space, and what a start makes of an earlier version.
fn assert_same(home: &Home, copy: &str) {
    let report = |arguments: &[&str]| {
        let mut report: Value = serde_json::from_str(&store(home, arguments)).unwrap();
        for differs in ["space", "schema"] {
            report.as_object_mut().unwrap().remove(differs);
        }
        report
    };
    assert_eq!(report(&["check", "--json"]), report(&["check", copy, "--json"]));
}

#[test]
fn a_backup_of_a_stopped_broker_has_everything() {
    let home = golden_home();
    let text = store(&home, &["backup", "copy"]);
    assert!(text.starts_with("copy: good\n"), "{text}");
    assert_same(&home, "copy");
    let mode = fs::metadata(home.path("copy")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!home.path("copy.new").exists());
    store(&home, &["backup", "copy", "--force"]);
}

#[test]
fn a_backup_of_a_running_broker_is_one_moment() {
    let home = Home::new("");
    let broker = home.start();
    keeper(&broker);
    let admin = broker.admin.to_string();
    let mut sender = broker.connect(&Connect::v5("sender"));
    let (mut sent, mut copied) = (0_u64, 0);
    std::thread::scope(|scope| {
        let backup = scope.spawn(|| {
            (0..3)
                .map(|n| store(&home, &["backup", &format!("copy-{n}"), "--admin", &admin]))
                .collect::<Vec<_>>()
        });
        while !backup.is_finished() {
            sent += 1;
            publish(&mut sender, "kept", &sent.to_string());
        }
        assert!(backup.join().unwrap().iter().all(|text| text.contains(": good\n")));
    });
    assert!(!home.data().join("backup.redb").exists(), "it was moved");
    broker.stop();
    for n in 0..3 {
        let copy = Home::new("");
        copy.put(&fs::read(home.path(&format!("copy-{n}"))).unwrap());
        let report: Value = serde_json::from_str(&store(&copy, &["check", "--json"])).unwrap();
        let count = report.pointer("/messages/count").unwrap().as_u64().unwrap();
        let broker = copy.start();
        let mut client = broker.resume(&durable("keeper"));
        for n in 1..=count {
            assert_eq!(client.take_qos_1().payload, n.to_string().as_bytes(), "the beginning, without a gap");
        }
        client.expect_nothing();
        assert!(count >= copied && count <= sent, "{copied} {count} {sent}");
        copied = count;
    }
}

#[test]
fn a_backup_is_not_interrupted_by_another() {
    let home = Home::new("");
    let broker = home.start();
    let (status, _) = broker.post("/api/v1/store/backup");
    assert_eq!(status, 202);
    // The first may be done by now; the page says so.
    let (status, body) = broker.post("/api/v1/store/backup");
    assert!(status == 202 || status == 409 && body.contains("already"), "{status} {body}");
    while broker.json("/api/v1/store/backup")["phase"] == "running" {}
    assert_eq!(broker.json("/api/v1/store/backup")["phase"], "done");
    assert!(home.data().join("backup.redb").exists());
}

#[test]
fn restore_puts_everything_in_place() {
    let home = golden_home();
    store(&home, &["backup", "copy"]);
    let other = Home::new("");
    fs::copy(home.path("copy"), other.path("copy")).unwrap();
    let text = store(&other, &["restore", "copy"]);
    assert!(text.contains("data/causeway.redb: good\n"), "{text}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&other.data()), mode(&other.file())), (0o700, 0o600));
    assert_eq!(fs::read_dir(other.data()).unwrap().count(), 1, "nothing is left beside it");
    assert_same(&other, "copy");
    golden::look_at_restored(&fs::read(other.file()).unwrap());

    let text = store(&other, &["restore", "copy", "--force"]);
    assert!(text.contains("causeway.redb.before-restore-1"), "{text}");
    assert!(other.data().join("causeway.redb.before-restore-1").exists());
}

/// The original has given out numbers since the backup, and the copy gives them out again: by their keys the
/// targets tell them apart, and know what they had before.
#[test]
fn a_restored_copy_uses_no_idempotency_key_again() {
    let target = Target::start(|_| ("503 Service Unavailable", ""));
    let config = |target: &Target| {
        format!(
            "[targets.t]\nurl = \"http://{}/in\"\nbreaker.probe_interval = \"10ms\"\n\
             [[routes]]\nname = \"r\"\ntopics = [\"t\"]\ntarget = \"t\"\n",
            target.address
        )
    };
    let home = Home::new(&config(&target));
    let broker = home.start();
    publish(&mut broker.connect(&Connect::v5("sender")), "t", "before");
    let first = target.wait_for(1).remove(0);
    broker.stop();
    store(&home, &["backup", "copy"]);
    let mut keys = vec![first.key.clone()];
    // The original goes on, and two copies do.
    for round in 0..3 {
        let taken = Target::start(|_| ("200 OK", ""));
        if round > 0 {
            store(&home, &["restore", "copy", "--force"]);
        }
        home.configure(&config(&taken));
        let broker = home.start();
        publish(&mut broker.connect(&Connect::v5("sender")), "t", "after");
        let requests = taken.wait_for(2);
        assert_eq!((&requests[0].key, requests[0].body.as_str()), (&first.key, "before"), "the key it had");
        assert!(!keys.contains(&requests[1].key), "{keys:?} {}", requests[1].key);
        keys.push(requests[1].key.clone());
        broker.stop();
    }
    // A copy of a copy knows both ids.
    assert_eq!(keys.len(), 4);
}

/// At the time of the backup an exchange was open. The client has ended it since, and uses its identifier for
/// another message.
#[test]
fn a_restored_copy_takes_no_new_message_for_a_repeat() {
    let home = Home::new("");
    let broker = home.start();
    keeper(&broker);
    let mut sender = broker.connect(&durable("sender"));
    sender.ask(&Publish::new("kept", "one").qos(2, 7).v5(), &ack(0x50, 7));
    broker.kill();
    store(&home, &["backup", "copy"]);
    store(&home, &["restore", "copy", "--force"]);
    let broker = home.start();
    let mut sender = broker.resume(&durable("sender"));
    sender.ask(&Publish::new("kept", "two").qos(2, 7).v5(), &ack(0x50, 7));
    sender.ask(&ack(0x62, 7), &ack(0x70, 7));
    sender.ask(&ack(0x62, 8), &ack_with(0x70, 8, 0x92));
    let mut client = broker.resume(&durable("keeper"));
    assert_eq!([client.message().payload, client.message().payload], [&b"one"[..], b"two"]);
}

#[test]
fn a_backup_that_is_not_good_is_not_restored() {
    let home = golden_home();
    let mut copy = fs::read(home.file()).unwrap();
    let at = copy.len() / 2;
    copy.truncate(at);
    fs::write(home.path("copy"), &copy).unwrap();
    let other = Home::new("");
    let text = refused(&other, &["restore", home.path("copy").to_str().unwrap()]);
    assert!(text.contains("damaged"), "{text}");
    assert!(!other.file().exists());
    let text = refused(&other, &["restore", "absent"]);
    assert!(text.contains("absent"), "{text}");
}

#[test]
fn what_is_newer_or_damaged_is_refused_with_what_to_do() {
    let newer = golden_home();
    let database = redb::Database::open(newer.file()).unwrap();
    let txn = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, &[u8]>::new("meta");
    txn.open_table(meta).unwrap().insert("schema", 99_u64.to_be_bytes().as_slice()).unwrap();
    txn.commit().unwrap();
    drop(database);
    let damaged = golden_home();
    let mut file = fs::read(damaged.file()).unwrap();
    file.truncate(file.len() / 2);
    damaged.put(&file);
    for (home, what, advice) in [
        (newer, "schema version 99", "start the version that wrote it, or restore a backup"),
        (damaged, "the database is damaged", "keep a copy of the file and restore a backup"),
    ] {
        let before = fs::read(home.file()).unwrap();
        let log = home.try_start().err().unwrap();
        assert!(
            log.starts_with("causeway cannot start: ") && log.contains(what) && log.contains(advice),
            "{log}"
        );
        for arguments in [&["check"][..], &["backup", "copy"]] {
            let text = refused(&home, arguments);
            assert!(text.contains(what) && text.contains(advice), "{text}");
        }
        assert!(!home.path("copy").exists() && !home.path("copy.new").exists());
        assert!(fs::read(home.file()).unwrap() == before, "{what}: it is left as it is");
    }
}

#[test]
fn compact_gives_space_back() {
    let home = Home::new("");
    let broker = home.start();
    keeper(&broker);
    let mut other = broker.connect(&durable("other"));
    other.ask(&subscribe(1, &[("other", 1)]), &suback(0x90, 1, &[1]));
    other.leave();
    let mut sender = broker.connect(&Connect::v5("sender"));
    let large = "x".repeat(100_000);
    (0..40).for_each(|_| publish(&mut sender, "kept", &large));
    publish(&mut sender, "other", &large);
    let mut client = broker.resume(&durable("keeper"));
    (0..40).for_each(|_| drop(client.take_qos_1()));
    client.leave();
    broker.stop();
    let before = fs::metadata(home.file()).unwrap().len();
    let text = store(&home, &["compact"]);
    let after = fs::metadata(home.file()).unwrap().len();
    assert!(text.starts_with("compacted in "), "{text}");
    assert!(after < 1 << 20 && before > 4 << 20, "{before} {after} {text}");
    let broker = home.start();
    assert_eq!(broker.resume(&durable("other")).take_qos_1().payload, large.as_bytes());
}
