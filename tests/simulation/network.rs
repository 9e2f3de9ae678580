//! A network connection: two queues of bytes that somebody else moves on, and that can be cut at any byte.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::transport::Simulated;

/// Both directions of a connection, as the client and the network see it.
#[derive(Clone, Debug)]
pub struct Pipe(Arc<Mutex<Wires>>);

/// The broker's end.
#[derive(Debug)]
pub struct BrokerEnd(Arc<Mutex<Wires>>);

#[derive(Debug, Default)]
struct Wires {
    /// Sent by the client, not arrived.
    rising: VecDeque<u8>,
    /// Arrived at the broker, not read.
    risen: VecDeque<u8>,
    /// Written by the broker, not arrived at the client.
    falling: VecDeque<u8>,
    /// Bytes that may be falling at once.
    room: usize,
    /// Bytes that one read or write takes at most.
    piece: usize,
    /// The client's side ends when everything it sent has arrived.
    is_closing: bool,
    /// How the client's side has ended for the broker.
    end: Option<End>,
    /// The broker has closed its end, or is gone.
    is_left: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// No more comes after what has arrived.
    Closed,
    /// What has arrived and was not read is lost.
    Reset,
}

impl Pipe {
    /// A connection with room for so many bytes on their way to the client; a read or a write takes at most
    /// `piece` bytes.
    pub fn new(room: usize, piece: usize) -> (Self, BrokerEnd) {
        let wires = Arc::new(Mutex::new(Wires { room, piece, ..Wires::default() }));
        (Self(Arc::clone(&wires)), BrokerEnd(wires))
    }

    pub fn send(&self, bytes: &[u8]) {
        self.0.lock().rising.extend(bytes);
    }

    /// Whether something is on its way.
    pub fn is_busy(&self) -> bool {
        let wires = self.0.lock();
        !wires.rising.is_empty() || !wires.falling.is_empty()
    }

    /// Whether the broker has seen everything that was sent.
    pub fn was_read(&self) -> bool {
        let wires = self.0.lock();
        wires.rising.is_empty() && wires.risen.is_empty() && wires.end != Some(End::Reset)
    }

    /// Lets bytes arrive at the broker, so many at most; gives how many.
    pub fn raise(&self, max: usize) -> usize {
        let mut wires = self.0.lock();
        let count = max.min(wires.rising.len());
        let moved: Vec<_> = wires.rising.drain(..count).collect();
        wires.risen.extend(moved);
        if wires.is_closing && wires.rising.is_empty() {
            wires.end = Some(End::Closed);
        }
        if count > 0 || wires.end.is_some() {
            wires.wake_reader();
        }
        count
    }

    /// Lets bytes arrive at the client, so many at most; gives how many.
    pub fn lower(&self, max: usize, inbox: &mut Vec<u8>) -> usize {
        let mut wires = self.0.lock();
        let count = max.min(wires.falling.len());
        inbox.extend(wires.falling.drain(..count));
        if count > 0 {
            wires.wake_writer();
        }
        count
    }

    /// The client closes its side: the broker hears of it after everything that was sent.
    pub fn close(&self) {
        self.0.lock().is_closing = true;
        self.raise(0);
    }

    /// The connection breaks here; what is on its way to the broker is lost.
    pub fn end(&self, end: End) {
        let mut wires = self.0.lock();
        wires.end = Some(end);
        if end == End::Reset {
            wires.risen.clear();
            wires.falling.clear();
            wires.wake_writer();
        }
        wires.rising.clear();
        wires.wake_reader();
    }

    /// Whether the client sees the end: the broker has left, and everything it wrote has arrived.
    pub fn is_over(&self) -> bool {
        let wires = self.0.lock();
        wires.is_left && wires.falling.is_empty()
    }
}

impl Wires {
    fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    fn wake_writer(&mut self) {
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}

impl Simulated for BrokerEnd {}

impl AsyncRead for BrokerEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut wires = self.0.lock();
        if wires.end == Some(End::Reset) {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        let count = wires.risen.len().min(out.remaining()).min(wires.piece);
        if count == 0 && wires.end.is_none() {
            wires.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wires.risen.drain(..count).for_each(|byte| out.put_slice(&[byte]));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BrokerEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wires = self.0.lock();
        if wires.end == Some(End::Reset) || wires.is_left {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let count = wires.room.saturating_sub(wires.falling.len()).min(bytes.len()).min(wires.piece);
        if count == 0 {
            wires.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wires.falling.extend(bytes.iter().take(count));
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().is_left = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for BrokerEnd {
    fn drop(&mut self) {
        self.0.lock().is_left = true;
    }
}
