//! The publisher's side of QoS 1 and 2: which packet identifiers are out, and since when.
//!
//! Invariant: an identifier is either in `free` or has an open flow, never both; there are as many as
//! the window is wide.

use std::collections::VecDeque;

use crate::codec::PacketId;

/// How far the flow of one identifier has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Free,
    /// PUBLISH sent at this time (ns).
    Published(u64),
    /// PUBREL sent, PUBLISH at this time (ns).
    Released(u64),
}

/// A bounded set of packet identifiers.
#[derive(Debug)]
pub struct Window {
    /// Used in turn, so that an identifier rests as long as possible before it is used again.
    free: VecDeque<PacketId>,
    flows: Vec<Flow>,
}

impl Window {
    /// The identifiers 1 to `width`.
    pub fn new(width: u16) -> Self {
        let free: VecDeque<_> = (1..=width.max(1)).filter_map(PacketId::new).collect();
        Self { flows: vec![Flow::Free; free.len()], free }
    }

    /// How many more may be out.
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// Whether nothing is out.
    pub fn is_idle(&self) -> bool {
        self.free.len() == self.flows.len()
    }

    /// An identifier for a PUBLISH sent at `now_ns`.
    pub fn publish(&mut self, now_ns: u64) -> Option<PacketId> {
        let id = self.free.pop_front()?;
        *self.flow(id)? = Flow::Published(now_ns);
        Some(id)
    }

    /// PUBREC came: whether it belongs to a PUBLISH that is out.
    pub fn release(&mut self, id: PacketId) -> bool {
        match self.flow(id) {
            Some(flow @ Flow::Published(_)) => {
                if let Flow::Published(at) = *flow {
                    *flow = Flow::Released(at);
                }
                true
            }
            _ => false,
        }
    }

    /// PUBACK, or a PUBREC that refuses, came: when the PUBLISH left, if it is out.
    pub fn acknowledge(&mut self, id: PacketId) -> Option<u64> {
        match *self.flow(id)? {
            Flow::Published(at) => Some(self.close(id, at)),
            _ => None,
        }
    }

    /// PUBCOMP came: when the PUBLISH left, if its PUBREL is out.
    pub fn complete(&mut self, id: PacketId) -> Option<u64> {
        match *self.flow(id)? {
            Flow::Released(at) => Some(self.close(id, at)),
            _ => None,
        }
    }

    fn close(&mut self, id: PacketId, sent_at_ns: u64) -> u64 {
        if let Some(flow) = self.flow(id) {
            *flow = Flow::Free;
            self.free.push_back(id);
        }
        sent_at_ns
    }

    fn flow(&mut self, id: PacketId) -> Option<&mut Flow> {
        self.flows.get_mut(usize::from(id.get()) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_width_is_out() {
        let mut window = Window::new(2);
        let first = window.publish(10).unwrap();
        window.publish(11).unwrap();
        assert_eq!(window.publish(12), None);
        assert_eq!(window.acknowledge(first), Some(10));
        assert_eq!(window.publish(13), Some(first));
    }

    #[test]
    fn an_acknowledgement_counts_once_and_only_for_what_is_out() {
        let mut window = Window::new(4);
        let id = window.publish(5).unwrap();
        assert_eq!(window.acknowledge(id), Some(5));
        assert_eq!(window.acknowledge(id), None);
        assert_eq!(window.acknowledge(PacketId::new(60_000).unwrap()), None);
        assert!(window.is_idle());
    }

    #[test]
    fn qos_2_takes_both_steps_in_order() {
        let mut window = Window::new(1);
        let id = window.publish(5).unwrap();
        assert_eq!(window.complete(id), None, "PUBCOMP before PUBREC");
        assert!(window.release(id));
        assert!(!window.release(id), "PUBREC twice");
        assert_eq!(window.acknowledge(id), None, "PUBACK after PUBREC");
        assert_eq!(window.complete(id), Some(5));
        assert_eq!(window.room(), 1);
    }
}
