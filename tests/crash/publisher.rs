//! A client that publishes QoS 1 or QoS 2, keeps its own side of every exchange over reconnects, and writes
//! down what was acknowledged.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use causeway::codec::{Qos, ReasonCode};
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::gate::Gate;
use crate::history::Published;
use crate::wire::{Event, Message, Terms, Wire};

/// Exchanges that it has open at once.
const WINDOW: usize = 16;

/// Everything one publisher has published, in order.
pub type Log = Arc<Mutex<Vec<Published>>>;

pub struct Publisher {
    number: usize,
    round: usize,
    qos: Qos,
    rng: StdRng,
    gate: Arc<Gate>,
    pub log: Log,
    open: VecDeque<Exchange>,
    next_id: u16,
    connected: bool,
    /// From one window of messages to the next.
    pace: Duration,
}

struct Exchange {
    id: u16,
    /// Where it stands in the log.
    index: usize,
    /// PUBREC has come: what is repeated is PUBREL.
    received: bool,
}

impl Publisher {
    pub fn new(number: usize, round: usize, rng: StdRng, gate: &Arc<Gate>) -> Self {
        let qos = if number.is_multiple_of(2) { Qos::AtLeastOnce } else { Qos::ExactlyOnce };
        let (gate, log, open) = (Arc::clone(gate), Log::default(), VecDeque::new());
        let (connected, pace) = (round > 0, Duration::ZERO);
        Self { number, round, qos, rng, gate, log, open, next_id: 1, connected, pace }
    }

    /// Publishes no more than a window of messages in this time.
    pub fn paced(self, pace: Duration) -> Self {
        Self { pace, ..self }
    }

    /// Publishes until the gate winds up and every exchange is complete.
    pub fn spawn(mut self) -> JoinHandle<()> {
        let seat = self.gate.join();
        std::thread::spawn(move || {
            let _seat = seat;
            while let Some(address) = self.gate.enter() {
                // An error is the end of the connection.
                if self.connection(address).unwrap_or(false) {
                    return;
                }
            }
        })
    }

    /// One connection; true when there is nothing more to do.
    fn connection(&mut self, address: SocketAddr) -> io::Result<bool> {
        let mut wire = Wire::connect(address, &Terms::durable(&format!("publisher-{}", self.number)))?;
        assert!(wire.session_present || !self.connected, "publisher {} lost its session", self.number);
        self.connected = true;
        self.repeat(&mut wire);
        let mut next_at = Instant::now();
        loop {
            if Instant::now() >= next_at {
                next_at = Instant::now() + self.pace;
                while self.open.len() < WINDOW && !self.gate.is_winding_up() {
                    self.publish(&mut wire);
                }
            }
            wire.flush()?;
            if self.open.is_empty() && self.gate.is_winding_up() {
                wire.disconnect();
                return Ok(true);
            }
            let mut next = wire.next(Duration::from_millis(50))?;
            while let Some(event) = next {
                self.hear(event, &mut wire);
                next = wire.buffered();
            }
            if self.rng.random_ratio(1, 1000) {
                // What it would say next is lost.
                return Ok(false);
            }
        }
    }

    /// [MQTT-4.4.0-1]
    fn repeat(&self, wire: &mut Wire) {
        let mut log = self.log.lock().unwrap();
        for exchange in &self.open {
            let Some(published) = log.get_mut(exchange.index) else { continue };
            if exchange.received {
                wire.pubrel(exchange.id);
            } else {
                published.sends += 1;
                wire.publish(&published.message().id(exchange.id).repeated());
            }
        }
    }

    fn publish(&mut self, wire: &mut Wire) {
        let id = self.unused_id();
        let mut log = self.log.lock().unwrap();
        let index = log.len();
        let retain = self.rng.random_ratio(1, 10);
        let topic = match retain {
            true => format!("keep/{}/{}", self.number, self.rng.random_range(0..4)),
            false => format!("load/{}", self.rng.random_range(0..3)),
        };
        let delete = retain && self.rng.random_ratio(1, 4);
        let payload =
            if delete { String::new() } else { format!("r{}.p{}.{index}", self.round, self.number) };
        let published = Published {
            qos: self.qos,
            topic,
            payload,
            retain,
            acknowledged: false,
            sends: 1,
            source: self.number,
        };
        wire.publish(&published.message().id(id));
        log.push(published);
        self.open.push_back(Exchange { id, index, received: false });
    }

    fn unused_id(&mut self) -> u16 {
        let ids = self.next_id..=u16::MAX;
        let unused = ids.chain(1..).find(|id| self.open.iter().all(|exchange| exchange.id != *id)).unwrap();
        self.next_id = unused.wrapping_add(1).max(1);
        unused
    }

    fn hear(&mut self, event: Event, wire: &mut Wire) {
        match event {
            Event::Puback(id, reason) => {
                self.acknowledged(id, Qos::AtLeastOnce, reason);
                self.open.retain(|exchange| exchange.id != id);
            }
            Event::Pubrec(id, reason) => {
                self.acknowledged(id, Qos::ExactlyOnce, reason);
                wire.pubrel(id);
            }
            Event::Pubcomp(id, _) => {
                let index = self.open.iter().position(|exchange| exchange.id == id && exchange.received);
                assert!(index.is_some(), "PUBCOMP for {id}, which was not released");
                self.open.retain(|exchange| exchange.id != id);
            }
            Event::Other => {}
            unexpected => panic!("a publisher hears {unexpected:?}"),
        }
    }

    fn acknowledged(&mut self, id: u16, qos: Qos, reason: ReasonCode) {
        assert!(!reason.is_error(), "{id} was refused: {reason:?}");
        assert_eq!(qos, self.qos);
        let exchange = self.open.iter_mut().find(|exchange| exchange.id == id);
        let exchange = exchange.unwrap_or_else(|| panic!("{id} is acknowledged and not open"));
        exchange.received = true;
        self.log.lock().unwrap()[exchange.index].acknowledged = true;
    }
}

impl Published {
    fn message(&self) -> Message {
        let message = Message::new(self.qos, &self.topic, &self.payload);
        if self.retain { message.retained() } else { message }
    }
}
