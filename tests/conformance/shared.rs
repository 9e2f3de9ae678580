//! Shared subscriptions.

use crate::harness::{
    Client, Connect, Publish, ack, ack_with, broker, suback, subscribe, subscribe_with, unique, unsubscribe,
};

fn member(connect: &Connect, filter: &str, qos: u8) -> Client {
    let mut client = broker().connect(connect);
    client.ask(&subscribe(1, &[(filter, qos)]), &suback(0x90, 1, &[qos]));
    client
}

fn publish(topic: &str, n: u16, qos: u8) {
    let mut sender = broker().connect(&Connect::v5(&unique("p")));
    sender.ask(
        &Publish::new(topic, n.to_string()).qos(qos, n).v5(),
        &ack(if qos == 1 { 0x40 } else { 0x50 }, n),
    );
}

#[test]
fn each_message_goes_to_one_member_of_each_group() {
    let topic = unique("shared");
    let (one, two) = (format!("$share/one/{topic}"), format!("$share/two/{topic}"));
    let mut members: Vec<_> =
        [&one, &one, &one, &two].map(|group| member(&Connect::v5(&unique("m")), group, 1)).into();
    let mut plain = member(&Connect::v5(&unique("m")), &topic, 1);
    (1..=9).for_each(|n| publish(&topic, n, 1));
    for member in &mut members[..3] {
        (0..3).for_each(|_| drop(member.take_qos_1()));
        member.expect_nothing();
    }
    (1..=9_u16).for_each(|n| assert_eq!(members[3].take_qos_1().payload, n.to_string().as_bytes()));
    (1..=9_u16).for_each(|n| assert_eq!(plain.take_qos_1().payload, n.to_string().as_bytes()));
}

#[test]
fn the_qos_of_the_member_and_its_identifier_count() {
    proves!("5.0 MQTT-4.8.2-3");
    let topic = unique("shared");
    let group = format!("$share/g/{topic}");
    let mut client = broker().connect(&Connect::v5(&unique("m")));
    client.ask(&subscribe_with(1, &[0x0B, 3], &[(&group, 0)]), &suback(0x90, 1, &[0]));
    publish(&topic, 1, 1);
    client.expect(&Publish::new(&topic, "1").property(0x0B, &[3]).v5());
}

#[test]
fn names_that_are_none_are_refused() {
    proves!("5.0 MQTT-4.8.2-1", "5.0 MQTT-4.8.2-2");
    let filters = ["$share", "$share/", "$share/g", "$share/g/", "$share//t", "$share/g+/t", "$share/#/t"];
    let mut client = broker().connect(&Connect::v5(&unique("m")));
    for filter in filters {
        client.ask(&subscribe(1, &[(filter, 0)]), &suback(0x90, 1, &[0x8F]));
    }
    let fine = ["$share/g/#", "$share/g//", "$SHARE/g/t", "$shared/x"];
    for filter in fine {
        client.ask(&subscribe(1, &[(filter, 0)]), &suback(0x90, 1, &[0]));
    }
}

#[test]
fn beside_a_plain_subscription_it_is_another_one() {
    let topic = unique("both");
    let group = format!("$share/g/{topic}");
    let mut client = broker().connect(&Connect::v5(&unique("m")));
    client.ask(&subscribe(1, &[(&topic, 0), (&group, 0)]), &suback(0x90, 1, &[0, 0]));
    let mut sender = broker().connect(&Connect::v5(&unique("p")));
    sender.send(&Publish::new(&topic, "1").v5());
    client.expect(&Publish::new(&topic, "1").v5());
    client.expect(&Publish::new(&topic, "1").v5());
    client.ask(&unsubscribe(2, &[&group]), &suback(0xB0, 2, &[0]));
    sender.send(&Publish::new(&topic, "2").v5());
    client.expect(&Publish::new(&topic, "2").v5());
    client.expect_nothing();
}

#[test]
fn what_a_member_has_not_acknowledged_goes_to_another() {
    proves!("U-4.8.2-a");
    let topic = unique("shared");
    let group = format!("$share/g/{topic}");
    let mut dies = member(&Connect::v5(&unique("dies")).durable(), &group, 1);
    (1..=3).for_each(|n| publish(&topic, n, 1));
    let first = dies.message();
    dies.message();
    dies.send(&ack(0x40, first.id));
    assert_eq!(dies.message().payload, b"3");
    let mut other = member(&Connect::v5(&unique("other")), &group, 1);
    dies.cut();
    let mut payloads = [other.take_qos_1().payload, other.take_qos_1().payload];
    payloads.sort();
    assert_eq!(payloads, [b"2", b"3"]);
    other.expect_nothing();
}

#[test]
fn with_all_members_away_messages_wait_for_the_group() {
    let topic = unique("shared");
    let group = format!("$share/g/{topic}");
    let connect = Connect::v5(&unique("away")).durable();
    member(&connect, &group, 1).leave();
    (1..=3).for_each(|n| publish(&topic, n, 1));
    let mut back = broker().resume(&connect);
    for n in 1..=3_u16 {
        assert_eq!(back.take_qos_1().payload, n.to_string().as_bytes());
    }
    back.expect_nothing();
}

#[test]
fn qos_2_that_began_stays_with_its_member() {
    proves!("5.0 MQTT-4.8.2-4");
    let topic = unique("shared");
    let group = format!("$share/g/{topic}");
    let connect = Connect::v5(&unique("begins")).durable();
    let mut begins = member(&connect, &group, 2);
    publish(&topic, 1, 2);
    let message = begins.message();
    let mut other = member(&Connect::v5(&unique("other")), &group, 2);
    begins.cut();
    other.expect_nothing();
    let mut begins = broker().resume(&connect);
    let again = begins.message();
    assert_eq!((again.id, again.dup), (message.id, true));
    begins.ask(&ack(0x50, message.id), &ack(0x62, message.id));
    begins.send(&ack(0x70, message.id));
    begins.expect_nothing();
    other.expect_nothing();
}

#[test]
fn qos_2_that_began_goes_to_nobody_when_the_session_ends() {
    proves!("5.0 MQTT-4.8.2-5");
    for connect in [Connect::v5(&unique("ends")).durable(), Connect::v5(&unique("ends"))] {
        let topic = unique("shared");
        let group = format!("$share/g/{topic}");
        let mut other = member(&Connect::v5(&unique("other")).durable(), &group, 2);
        let mut ends = member(&connect, &group, 2);
        publish(&topic, 1, 2);
        publish(&topic, 2, 2);
        let taken = other.message();
        ends.message();
        ends.leave_with(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
        other.ask(&ack(0x50, taken.id), &ack(0x62, taken.id));
        other.send(&ack(0x70, taken.id));
        other.expect_nothing();
    }
}

#[test]
fn a_message_that_a_member_refuses_is_gone() {
    proves!("5.0 MQTT-4.8.2-6");
    let topic = unique("shared");
    let group = format!("$share/g/{topic}");
    let mut refuses = member(&Connect::v5(&unique("refuses")).durable(), &group, 1);
    publish(&topic, 1, 1);
    let message = refuses.message();
    let mut other = member(&Connect::v5(&unique("other")).durable(), &group, 1);
    refuses.send(&ack_with(0x40, message.id, 0x80));
    refuses.expect_nothing();
    refuses.leave();
    other.expect_nothing();
}

#[test]
fn who_unsubscribes_leaves_what_it_had_not_acknowledged_to_others() {
    let topic = unique("shared");
    let group = format!("$share/g/{topic}");
    let mut leaves = member(&Connect::v5(&unique("leaves")).durable(), &group, 1);
    publish(&topic, 1, 1);
    leaves.message();
    let mut other = member(&Connect::v5(&unique("other")).durable(), &group, 1);
    leaves.ask(&unsubscribe(2, &[&group]), &suback(0xB0, 2, &[0]));
    leaves.leave_with(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
    assert_eq!(other.take_qos_1().payload, b"1");
}
