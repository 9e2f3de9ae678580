//! A packet that decodes is encoded to bytes that decode to the same, and those bytes to themselves.
//!
//! The first byte says whose packet it is, the second is the first of the packet, and what follows is its
//! body: the length between them is always right, so that the body is always looked at.

use causeway::codec::MAX_PACKET_SIZE;

use super::Input;
use super::packets::{Peer, check, encoded, in_order, packet_id};

pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let peer = Peer::choose(&mut input);
    let mut frame = vec![input.byte()];
    put_length(&mut frame, input.0.len());
    frame.extend_from_slice(input.0);
    let mut decoder = peer.decoder(MAX_PACKET_SIZE);
    let Ok(Some((packet, len))) = decoder.decode(&frame) else { return };
    assert_eq!(len, frame.len());
    let version = decoder.version().unwrap();
    check(version, &packet);
    let again = encoded(version, &packet).unwrap_or_else(|error| panic!("{error}: {packet:?}"));
    let mut decoder = peer.decoder(MAX_PACKET_SIZE);
    let Ok(Some((same, len))) = decoder.decode(&again) else { panic!("{packet:?} became {again:02x?}") };
    assert_eq!(len, again.len());
    assert_eq!(encoded(version, &same).as_deref(), Ok(&again[..]), "{packet:?}");
    assert_eq!(packet_id(&packet), packet_id(&same));
    assert_eq!(in_order(version, same), in_order(version, packet));
}

fn put_length(out: &mut Vec<u8>, mut len: usize) {
    while len > 127 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}
