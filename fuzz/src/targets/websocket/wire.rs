//! What carries a connection: bytes arrive and are taken when the input says so.

use std::cell::{RefCell, RefMut};
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Both ends have a hand on it.
#[derive(Clone)]
pub struct Wire(Rc<RefCell<Pipe>>);

pub struct Pipe {
    from_client: Vec<u8>,
    /// Bytes of it that were read.
    read: usize,
    /// Bytes of it that are there.
    pub arrived: usize,
    /// What the broker has written.
    pub to_client: Vec<u8>,
    /// Bytes that are taken from the broker before it has to wait.
    pub room: usize,
    pub is_shut: bool,
}

impl Wire {
    pub fn new(from_client: &[u8]) -> Self {
        let (read, arrived, to_client, room, is_shut) = Default::default();
        let from_client = from_client.to_vec();
        Self(Rc::new(RefCell::new(Pipe { from_client, read, arrived, to_client, room, is_shut })))
    }

    pub fn pipe(&self) -> RefMut<'_, Pipe> {
        self.0.borrow_mut()
    }
}

impl Pipe {
    pub fn is_read(&self) -> bool {
        self.read == self.from_client.len()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pipe = self.pipe();
        let there = pipe.arrived.min(pipe.from_client.len()) - pipe.read;
        if there == 0 && !pipe.is_read() {
            return Poll::Pending;
        }
        let end = pipe.read + there.min(buffer.remaining());
        buffer.put_slice(&pipe.from_client[pipe.read..end]);
        pipe.read = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut pipe = self.pipe();
        assert!(!pipe.is_shut, "written after the end");
        if pipe.room == 0 {
            return Poll::Pending;
        }
        let before = pipe.to_client.len();
        for slice in slices {
            let taken = slice.len().min(pipe.room);
            pipe.to_client.extend_from_slice(&slice[..taken]);
            pipe.room -= taken;
        }
        Poll::Ready(Ok(pipe.to_client.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe().is_shut = true;
        Poll::Ready(Ok(()))
    }
}
