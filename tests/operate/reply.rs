//! A device calls a service over MQTT and gets its answer.

use crate::wire::{Broker, Client, Connect, Publish, ack, string};
use crate::{config, server};

const ROUTE: &str = "[[routes]]\nname = \"r\"\ntopics = [\"ask/#\"]\ntarget = \"t\"\nreply = true\n";
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;

fn ask(client: &mut Client, response_topic: &str, id: u16) {
    let request = Publish::new("ask/time", "?").qos(1, id);
    let request = request.property(RESPONSE_TOPIC, &string(response_topic));
    client.send(&request.property(CORRELATION_DATA, &string("id7")).v5());
    client.defer_until(&ack(0x40, id));
}

fn user_property(name: &str, value: &str) -> Vec<u8> {
    [&[0x26][..], &string(name), &string(value)].concat()
}

#[test]
fn a_device_gets_the_answer_with_status_and_correlation() {
    let server = server();
    for (path, status, body) in [("/ok", "200", "taken"), ("/no", "422", "never")] {
        let broker = Broker::start(&config(&server, path, ROUTE));
        let mut client = broker.connect(&Connect::v5("device"));
        client.subscribe("re/device", 1);
        ask(&mut client, "re/device", 2);
        let reply = client.take_qos_1();
        assert_eq!((&*reply.topic, &*reply.payload, reply.retain), ("re/device", body.as_bytes(), false));
        let contains = |part: &[u8]| reply.properties.windows(part.len()).any(|window| window == part);
        assert!(contains(&[&[CORRELATION_DATA][..], &string("id7")].concat()), "{:?}", reply.properties);
        assert!(contains(&user_property("http-status", status)), "{:?}", reply.properties);
        assert!(contains(&user_property("causeway-hops", "1")), "{:?}", reply.properties);
    }
}

#[test]
fn a_reply_goes_only_where_its_device_may_publish() {
    let server = server();
    let rules = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(rules.path(), "topic readwrite ask/#\ntopic readwrite re/#\ntopic read others/#\n")
        .unwrap();
    let auth = format!("[auth]\nacl_file = {:?}\n", rules.path());
    let broker = Broker::start(&config(&server, "/ok", &format!("{auth}{ROUTE}")));
    let mut victim = broker.connect(&Connect::v5("victim"));
    victim.subscribe("others/door", 1);
    let mut device = broker.connect(&Connect::v5("device"));
    device.subscribe("re/1", 1);
    ask(&mut device, "others/door", 2);
    ask(&mut device, "re/1", 3);
    assert_eq!(device.take_qos_1().topic, "re/1", "the second has its answer");
    server.wait_for(2);
    victim.expect_nothing();
}
