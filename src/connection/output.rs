//! Bytes out: replies first, then messages, in as few writes as possible.

use std::task::{Context, Poll};
use std::time::Duration;

use super::scratch::Scratch;
use super::{Connection, End};
use crate::codec::{Disconnect, Version, encode};
use crate::record::UnixMillis;
use crate::session::{Close, Outgoing};

/// Bytes that are gathered before they are written.
pub(super) const WRITE_MAX: usize = 64 * 1024;

/// How long a client may take to take its DISCONNECT.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

impl Connection {
    /// Writes what there is. True when something was written.
    pub(super) fn write(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        now: UnixMillis,
    ) -> Result<bool, End> {
        let mut progressed = self.flush(cx)?;
        if let Some(mut unsent) = self.unsent.take() {
            // The socket took not all of it: replies may still be added, messages wait where they are.
            let before = unsent.len();
            self.write_replies(&mut unsent)?;
            self.unsent_replies += unsent.len() - before;
            progressed |= self.send(cx, &mut unsent, now)?;
            self.unsent_replies = self.unsent_replies.min(unsent.len());
            if !unsent.is_empty() {
                self.unsent = Some(unsent);
                return Ok(progressed);
            }
        }
        loop {
            self.write_replies(&mut scratch.out)?;
            progressed |= self.fill(cx, &mut scratch.out, now)?;
            if scratch.out.is_empty() {
                return Ok(progressed);
            }
            progressed |= self.send(cx, &mut scratch.out, now)?;
            if !scratch.out.is_empty() {
                self.unsent = Some(Box::new(std::mem::take(&mut scratch.out)));
                return Ok(progressed);
            }
        }
    }

    fn write_replies(&mut self, out: &mut Outgoing) -> Result<(), Close> {
        self.outbound.packets += self.session.write_replies(self.watermark, out)?;
        Ok(())
    }

    /// Hands the bytes to the socket until it takes no more. True when it took some.
    fn send(&mut self, cx: &mut Context<'_>, out: &mut Outgoing, now: UnixMillis) -> Result<bool, End> {
        let mut progressed = false;
        while !out.is_empty() {
            let written = out.with_slices(|slices| self.stream.poll_write_vectored(cx, slices));
            match written {
                Poll::Ready(Ok(written @ 1..)) => {
                    out.advance(written);
                    self.outbound.bytes += written as u64;
                    self.blocked_since = None;
                    progressed = true;
                }
                Poll::Ready(_) => return Err(End::Lost),
                Poll::Pending => {
                    self.blocked_since.get_or_insert(now);
                    break;
                }
            }
        }
        self.needs_flush |= progressed && !self.stream.is_plain();
        self.flush(cx)?;
        Ok(progressed)
    }

    /// TLS keeps records back until they are flushed.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if !self.needs_flush {
            return Ok(false);
        }
        match self.stream.poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.needs_flush = false;
                Ok(true)
            }
            Poll::Ready(Err(_)) => Err(End::Lost),
            Poll::Pending => Ok(false),
        }
    }

    /// Tells a 5.0 client why it has to go [MQTT-3.14.0-1]. What it did not take until now it will not get.
    pub(super) async fn say_goodbye(&mut self, close: Close) {
        if self.session.version() != Version::V5 || self.unsent.is_some() {
            return;
        }
        let server_reference = self.context.broker.server_reference(close.reason);
        let disconnect = Disconnect { reason: close.reason, server_reference, ..Disconnect::default() };
        let mut out = Outgoing::default();
        let size_max = self.session.max_packet_size();
        if encode::disconnect(Version::V5, &disconnect, size_max, &mut out.bytes).is_err() {
            return;
        }
        let now = self.context.broker.clock.now();
        let sent = std::future::poll_fn(|cx| match self.send(cx, &mut out, now) {
            Ok(_) if !out.is_empty() || self.needs_flush => Poll::Pending,
            _ => Poll::Ready(()),
        });
        // A client that does not take it in time goes without: the connection ends either way.
        let _ = tokio::time::timeout(GOODBYE_MAX, sent).await;
    }
}
