//! A WebSocket connection as a stream of bytes, over whatever carries it.
//!
//! What is written goes out as one binary frame for each write, header and payload in one system call. It owns
//! no buffer for either direction.
//!
//! Invariant: a control frame never goes between the bytes of a data frame, and nothing goes after Close.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Data, OpCode},
};

use super::{
    super::Farewell,
    frames::{Ended, FrameReader, Replies},
};

/// Reads in a row that may bring no payload before others have their turn.
const EMPTY_READS_MAX: usize = 8;

/// A header without a mask.
const HEADER_MAX: usize = 10;

/// Header and pieces of payload that need no allocation in a write; as many as a connection hands over at once.
const PIECES: usize = 1 + 64;

/// A connection after the handshake. Whoever writes and is told to wait, or had only a part taken, has to begin
/// the next write with the same bytes: the header that was sent counts them.
#[derive(Debug)]
pub struct WebSocket<S> {
    io: S,
    /// What came together with the request; nothing, for most.
    early: Vec<u8>,
    frames: FrameReader,
    replies: Replies,
    /// Replies were written, but not flushed.
    needs_flush: bool,
    header: SmallVec<[u8; HEADER_MAX]>,
    /// Bytes of payload that the frame under way still has to bring.
    owed: usize,
    farewell: Farewell,
    has_closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Goes on where the handshake has ended; `early` is what was read with it.
    pub fn new(io: S, early: Vec<u8>) -> Self {
        Self {
            io,
            early,
            frames: FrameReader::default(),
            replies: Replies::default(),
            needs_flush: false,
            header: SmallVec::new(),
            owed: 0,
            farewell: Farewell::Done,
            has_closed: false,
        }
    }

    /// What the Close frame says when the connection is shut down, unless the client was first, or has broken
    /// a rule of WebSocket.
    pub fn set_farewell(&mut self, farewell: Farewell) {
        self.farewell = farewell;
    }

    /// Frames into `buffer`, payload out. `None` when it was none.
    fn poll_payload(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Option<usize>>> {
        let read = if self.early.is_empty() {
            let mut raw = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut raw))?;
            raw.filled().len()
        } else {
            let early = std::mem::take(&mut self.early);
            let (now, later) = early.split_at(early.len().min(buffer.len()));
            buffer.get_mut(..now.len()).unwrap_or_default().copy_from_slice(now);
            self.early = later.to_vec();
            now.len()
        };
        // After Close the rest is thrown away, so that the socket is not reset over it.
        if read == 0 || self.has_closed {
            return Poll::Ready(Ok((read == 0).then_some(0)));
        }
        let payload = self.frames.read(buffer.get_mut(..read).unwrap_or_default(), &mut self.replies);
        self.try_replies(cx);
        Poll::Ready(Ok((payload > 0).then_some(payload)))
    }

    /// Sends control frames, unless a data frame is under way.
    fn poll_replies(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.owed > 0 {
            return Poll::Ready(Ok(()));
        }
        while !self.replies.bytes().is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, self.replies.bytes()))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.replies.advance(sent);
            self.needs_flush = true;
        }
        if self.needs_flush {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what can be sent. A client that does not take its answers, or is gone, may have said something before
    /// that, which is read first; the next write or the end of the stream tells the rest.
    fn try_replies(&mut self, cx: &mut Context<'_>) {
        let _ = self.poll_replies(cx);
    }

    /// Begins a frame with so many bytes of payload.
    fn begin_frame(&mut self, payload: usize) -> io::Result<()> {
        let header = FrameHeader { opcode: OpCode::Data(Data::Binary), ..FrameHeader::default() };
        header.format(payload as u64, &mut self.header).map_err(io::Error::other)?;
        self.owed = payload;
        Ok(())
    }

    /// Writes what is missing of the header and the payload that is owed. Gives the bytes of payload.
    fn poll_frame(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let sent = {
            let mut pieces = SmallVec::<[IoSlice<'_>; PIECES]>::new();
            pieces.push(IoSlice::new(&self.header));
            let mut room = self.owed;
            for slice in slices {
                let piece = slice.get(..room).unwrap_or(slice);
                room -= piece.len();
                pieces.push(IoSlice::new(piece));
            }
            ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &pieces))?
        };
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let header = sent.min(self.header.len());
        self.header.drain(..header);
        self.owed -= sent - header;
        Poll::Ready(Ok(sent - header))
    }

    fn say_close(&mut self) {
        self.has_closed = true;
        if self.owed > 0 {
            return;
        }
        match self.frames.ended() {
            Some(Ended::ByClient(code)) => self.replies.close(code, ""),
            Some(Ended::By(violation)) => self.replies.close(violation.code(), &violation.to_string()),
            None => self.replies.close(self.farewell.into(), ""),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    /// The end of the stream is a Close frame or the end of what carries it; a frame that breaks a rule is an
    /// error of the kind [`io::ErrorKind::InvalidData`]. After a shutdown nothing comes but the end.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.try_replies(cx);
        for _ in 0..EMPTY_READS_MAX {
            match this.frames.ended().filter(|_| !this.has_closed) {
                None => {}
                Some(Ended::ByClient(_)) => return Poll::Ready(Ok(())),
                Some(Ended::By(violation)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
                }
            }
            if let Some(payload) = ready!(this.poll_payload(cx, buffer.initialize_unfilled()))? {
                buffer.advance(payload);
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_replies(cx))?;
        if this.has_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if this.owed == 0 {
            let payload = slices.iter().map(|slice| slice.len()).sum();
            if payload == 0 {
                return Poll::Ready(Ok(0));
            }
            this.begin_frame(payload)?;
        }
        loop {
            // Zero is for the end of a stream: a write that brought the header only is followed by another.
            match ready!(this.poll_frame(cx, slices))? {
                0 => {}
                payload => return Poll::Ready(Ok(payload)),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_replies(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    /// Sends a Close frame, and ends what carries it. In the middle of a data frame there is no place for one.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.has_closed {
            this.say_close();
        }
        ready!(this.poll_replies(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl From<Farewell> for CloseCode {
    fn from(farewell: Farewell) -> Self {
        match farewell {
            Farewell::Done => Self::Normal,
            Farewell::GoingAway => Self::Away,
            Farewell::Refused => Self::Policy,
        }
    }
}

#[cfg(test)]
mod tests;
