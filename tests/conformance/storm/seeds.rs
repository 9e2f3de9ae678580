//! What the storm is made of: packets of every kind, and what can be done to them.

use crate::harness::{
    Connect, Dice, Publish, Version, ack, ack_with, disconnect, packet, string, subscribe, subscribe_v311,
    subscribe_with, unsubscribe, unsubscribe_v311,
};

/// A byte of the kind that makes trouble, or any.
fn byte(dice: &mut Dice) -> u8 {
    const TROUBLE: [u8; 16] =
        [0, 1, 2, 3, 4, 0x0B, 0x11, 0x1F, 0x23, 0x26, b'#', b'/', 0x7F, 0x80, 0xFE, 0xFF];
    if dice.one_in(2) { TROUBLE[dice.roll(TROUBLE.len())] } else { dice.roll(256) as u8 }
}

/// One to three changes. In most cases the length is put right again, so that the inside is looked at.
pub fn mutated(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
    let head = 2 + seed[1..].iter().position(|byte| byte & 0x80 == 0).unwrap();
    let (mut first, mut body) = (seed[0], seed[head..].to_vec());
    for _ in 0..=dice.roll(3) {
        let at = dice.roll(body.len());
        match dice.roll(9) {
            0 => first ^= 1 << dice.roll(8),
            1 if at < body.len() => drop(body.remove(at)),
            2 => body.truncate(at),
            3 => body.insert(at, byte(dice)),
            4 => body.extend([byte(dice), byte(dice)]),
            5 => {
                let copy = body[at..(at + dice.roll(8)).min(body.len())].to_vec();
                body.splice(at..at, copy);
            }
            6 if at + 1 < body.len() => body.swap(at, at + 1),
            _ if at < body.len() => body[at] = byte(dice),
            _ => {}
        }
    }
    let mut bytes = packet(first, &body);
    if dice.one_in(10) {
        let at = dice.roll(bytes.len());
        bytes[at] = byte(dice);
    }
    if dice.one_in(20) {
        bytes.truncate(1 + dice.roll(bytes.len()));
    }
    bytes
}

/// One to three packets in one piece; most of them with something wrong.
pub fn burst(version: Version, name: &str, dice: &mut Dice) -> Vec<u8> {
    let all = packets(version, name);
    let mut bytes = Vec::new();
    for _ in 0..=dice.roll(3) {
        let seed = &all[dice.roll(all.len())];
        bytes.extend(if dice.one_in(3) { seed.clone() } else { mutated(seed, dice) });
    }
    bytes
}

/// CONNECTs of every version, with much and with little in them.
pub fn connects(name: &str) -> [Vec<u8>; 6] {
    let full = Connect::v5(name)
        .expiry(1)
        .property(0x21, &[0, 9])
        .property(0x22, &[0, 9])
        .property(0x27, &[0, 0, 9, 9]);
    let full = full.property(0x17, &[0]).property(0x26, &[string("k"), string("v")].concat());
    let full =
        full.will(name, "gone", 1).will_property(0x18, &[0, 0, 0, 1]).will_property(0x03, &string("t"));
    let login = [&string("MQTT")[..], &[5, 0xC2, 0, 9, 0], &string(name), &string("user"), &string("pw")];
    [
        Connect::new(Version::V31, name).bytes(),
        Connect::v311(name).will(name, "gone", 2).bytes(),
        Connect::v311(name).durable().bytes(),
        Connect::v5(name).bytes(),
        full.bytes(),
        packet(0x10, &login.concat()),
    ]
}

/// Packets of every kind, also those that a client does not send.
fn packets(version: Version, name: &str) -> Vec<Vec<u8>> {
    let publish = Publish::new(name, "payload");
    let mut packets = vec![
        publish.bytes(version),
        publish.clone().retain().bytes(version),
        publish.clone().qos(1, 10).bytes(version),
        publish.clone().qos(2, 11).bytes(version),
        publish.clone().qos(2, 11).dup().bytes(version),
        vec![0xC0, 0],
        vec![0xE0, 0],
        vec![0xD0, 0],
        vec![0x20, 2, 0, 0],
        Connect::new(version, name).bytes(),
    ];
    for id in [1, 2, 11] {
        packets.extend([0x40, 0x50, 0x62, 0x70].map(|first| ack(first, id)));
    }
    if version == Version::V5 {
        packets.extend(packets_of_5(name, publish));
    } else {
        packets.push(subscribe_v311(5, &[(name, 1), ("a/+/b", 2), ("$share/g/a", 0)]));
        packets.push(unsubscribe_v311(6, &["a/+/b", "c/#"]));
        packets.push(packet(0x90, &[0, 5, 0]));
        packets.push(ack(0xB0, 6));
    }
    packets
}

fn packets_of_5(name: &str, publish: Publish) -> Vec<Vec<u8>> {
    let pair = [string("k"), string("v")].concat();
    let mut packets = vec![
        Publish::new("", "x").property(0x23, &[0, 1]).v5(),
        publish.clone().property(0x23, &[0, 1]).v5(),
        subscribe(5, &[(name, 1), ("a/+/b", 0x2E), ("$share/g/a/#", 0)]),
        subscribe_with(6, &[0x0B, 0x81, 1, 0x26, 0, 1, b'k', 0, 1, b'v'], &[("c/#", 0x14)]),
        unsubscribe(7, &["a/+/b", "$share/g/a/#"]),
        disconnect(4, &[0x11, 0, 0, 0, 1, 0x1F, 0, 1, b'x']),
        packet(0xF0, &[&[0x19, 7, 0x15][..], &string("PLAN")].concat()),
        packet(0x90, &[0, 5, 0, 0]),
        packet(0xB0, &[0, 5, 0, 0]),
    ];
    let rich = publish.property(0x01, &[1]).property(0x02, &[0, 0, 0, 1]).property(0x03, &string("text"));
    let rich = rich.property(0x08, &string("re/ply")).property(0x09, &string("id")).property(0x26, &pair);
    packets.extend([rich.v5(), rich.clone().qos(1, 12).retain().v5(), rich.qos(2, 13).v5()]);
    let properties = [&[0x1F][..], &string("why"), &[0x26], &pair].concat();
    for first in [0x40, 0x50, 0x62, 0x70] {
        packets.push(ack_with(first, 2, 0));
        packets.push(packet(first, &[&[0, 11, 0, properties.len() as u8][..], &properties].concat()));
    }
    packets
}
