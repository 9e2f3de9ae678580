//! The stream over a pipe that takes a few bytes at a time.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split},
    net::TcpStream,
};

use super::{super::Violation, *};

/// A client's end, and the broker's.
fn pair(room: usize) -> (DuplexStream, WebSocket<DuplexStream>) {
    let (client, server) = duplex(room);
    (client, WebSocket::new(server, Vec::new()))
}

/// A masked frame with up to 125 bytes.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    // A mask of zeros changes nothing.
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0][..], payload].concat()
}

/// The next frame from the broker: its first byte and its payload.
async fn next(client: &mut DuplexStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    client.read_exact(&mut head).await.unwrap();
    let len = match head[1] {
        126 => usize::from(client.read_u16().await.unwrap()),
        127 => client.read_u64().await.unwrap() as usize,
        len => usize::from(len),
    };
    let mut payload = vec![0; len];
    client.read_exact(&mut payload).await.unwrap();
    (head[0], payload)
}

#[test]
fn is_small() {
    let size = size_of::<WebSocket<TcpStream>>();
    assert!(size <= 320, "{size}");
}

#[tokio::test]
async fn a_write_is_a_frame_however_little_is_taken_at_once() {
    for room in [1, 3, 10, 64, 1 << 20] {
        let (mut client, mut server) = pair(room);
        let payload: Vec<u8> = (0..70_000_u32).map(|number| number as u8).collect();
        let lengths = [5, 126, 70_000];
        let writing = async {
            for len in lengths {
                server.write_all(&payload[..len]).await.unwrap();
            }
        };
        let reading = async {
            for len in lengths {
                let (first, received) = next(&mut client).await;
                assert_eq!(first, 0x82);
                assert!(received == payload[..len], "{len} bytes through a pipe of {room}");
            }
        };
        tokio::join!(writing, reading);
    }
}

#[tokio::test]
async fn slices_share_a_frame() {
    let (mut client, mut server) = pair(1 << 10);
    let slices = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")];
    assert_eq!(server.write_vectored(&slices).await.unwrap(), 7);
    assert_eq!(next(&mut client).await, (0x82, b"one two".to_vec()));
}

#[tokio::test]
async fn a_ping_is_answered_between_frames_never_inside() {
    let (mut client, server) = pair(16);
    let (mut reading, mut writing) = split(server);
    let payload = vec![b'x'; 5000];
    let write = async {
        for _ in 0..3 {
            writing.write_all(&payload).await.unwrap();
        }
    };
    let read = async {
        let mut got = [0; 4];
        reading.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"data");
    };
    let peer = async {
        client.write_all(&frame(0x89, b"hello")).await.unwrap();
        client.write_all(&frame(0x82, b"data")).await.unwrap();
        let mut frames = Vec::new();
        for _ in 0..4 {
            frames.push(next(&mut client).await);
        }
        assert!(frames.contains(&(0x8A, b"hello".to_vec())));
        assert_eq!(frames.iter().filter(|frame| **frame == (0x82, payload.clone())).count(), 3);
    };
    tokio::join!(write, read, peer);
}

#[tokio::test]
async fn the_end_says_why() {
    for (farewell, code) in
        [(Farewell::Done, 1000_u16), (Farewell::GoingAway, 1001), (Farewell::Refused, 1008)]
    {
        let (mut client, mut server) = pair(64);
        server.set_farewell(farewell);
        server.shutdown().await.unwrap();
        assert_eq!(next(&mut client).await, (0x88, code.to_be_bytes().to_vec()));
        assert!(server.write_all(b"x").await.is_err(), "nothing goes after Close");
        client.write_all(&frame(0x82, b"late")).await.unwrap();
        drop(client);
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0, "what comes late is thrown away");
    }
}

#[tokio::test]
async fn the_client_closes_first() {
    let (mut client, mut server) = pair(64);
    let bytes = [frame(0x82, b"last"), frame(0x88, &[0x03, 0xE9])].concat();
    client.write_all(&bytes).await.unwrap();
    let mut buffer = [0; 64];
    assert_eq!(server.read(&mut buffer).await.unwrap(), 4);
    assert_eq!(&buffer[..4], b"last");
    assert_eq!(server.read(&mut buffer).await.unwrap(), 0);
    server.shutdown().await.unwrap();
    assert_eq!(next(&mut client).await, (0x88, vec![0x03, 0xE9]), "its code comes back");
}

#[tokio::test]
async fn a_broken_rule_is_told_after_what_came_before_it() {
    let (mut client, mut server) = pair(256);
    let bytes = [frame(0x82, b"good"), frame(0x81, b"text"), frame(0x82, b"more")].concat();
    client.write_all(&bytes).await.unwrap();
    let mut buffer = [0; 64];
    assert_eq!(server.read(&mut buffer).await.unwrap(), 4);
    let error = server.read(&mut buffer).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(error.to_string(), Violation::Text.to_string());
    server.set_farewell(Farewell::GoingAway);
    server.shutdown().await.unwrap();
    let (first, payload) = next(&mut client).await;
    assert_eq!((first, &payload[..2]), (0x88, &1003_u16.to_be_bytes()[..]));
}

#[tokio::test]
async fn what_came_with_the_request_is_read_first() {
    let (mut client, server) = duplex(64);
    let (early, late) = (frame(0x82, b"early"), frame(0x82, b"late"));
    let mut server = WebSocket::new(server, [&early, &late[..3]].concat());
    client.write_all(&late[3..]).await.unwrap();
    let mut read = [0; 9];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"earlylate");
}

#[tokio::test]
async fn frames_without_payload_do_not_keep_the_task() {
    let (mut client, mut server) = pair(1 << 16);
    client.write_all(&frame(0x8A, b"").repeat(1000)).await.unwrap();
    let mut small = [0; 6];
    let mut buffer = ReadBuf::new(&mut small);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(Pin::new(&mut server).poll_read(&mut cx, &mut buffer).is_pending());
    assert!(buffer.filled().is_empty());
}

#[tokio::test]
async fn what_was_said_before_the_client_left_is_read() {
    let (mut client, mut server) = pair(64);
    client.write_all(&[frame(0x89, b"ping"), frame(0x82, b"last")].concat()).await.unwrap();
    // Nobody is there to take the pong.
    drop(client);
    let mut read = Vec::new();
    server.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"last");
}
