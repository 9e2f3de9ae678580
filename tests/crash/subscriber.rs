//! A client that receives, keeps its own side of every QoS 2 exchange over reconnects, and writes down what
//! it was given: what is in its log twice, the broker has given it twice.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use causeway::codec::Qos;
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::gate::Gate;
use crate::history::{Inbox, Received};
use crate::wire::{Event, Message, Terms, Wire};

/// What a subscriber was given, in order.
type Log = Arc<Mutex<Vec<Received>>>;

pub struct Subscriber {
    terms: Terms,
    qos: Qos,
    log: Log,
    /// QoS 2: what came under identifiers that were not released yet.
    open: HashMap<u16, String>,
    rng: StdRng,
}

/// A subscriber that receives.
pub struct Running {
    log: Log,
    pub thread: JoinHandle<Subscriber>,
}

impl Running {
    /// Strikes out what it has received.
    pub fn strike(&self, missing: &mut HashSet<&str>) {
        for received in &*self.log.lock().unwrap() {
            missing.remove(received.payload.as_str());
        }
    }
}

impl Subscriber {
    /// With a session of these terms, which has to be durable.
    pub fn new(terms: Terms, qos: Qos, rng: StdRng) -> Self {
        Self { terms, qos, log: Log::default(), open: HashMap::new(), rng }
    }

    /// Makes the session and subscribes; it is offline from here on.
    pub fn subscribe(&self, address: SocketAddr, filter: &str) {
        let mut wire = Wire::connect(address, &self.terms).unwrap();
        wire.subscribe(filter, self.qos);
        wire.flush().unwrap();
        assert!(matches!(wire.expect(), Event::Suback(_)));
        wire.disconnect();
    }

    /// Receives until the gate says that it is over.
    pub fn spawn(mut self, gate: &Arc<Gate>) -> Running {
        let (gate, seat, log) = (Arc::clone(gate), gate.join(), Arc::clone(&self.log));
        let thread = std::thread::spawn(move || {
            let _seat = seat;
            while let Some(address) = gate.enter() {
                // An error is the end of the connection.
                let _ = self.connection(address, &gate);
            }
            self
        });
        Running { log, thread }
    }

    /// What it was given since the last time.
    pub fn empty_inbox(&self) -> Inbox {
        let received = std::mem::take(&mut *self.log.lock().unwrap());
        Inbox { name: self.terms.client_id.clone(), qos: self.qos, is_group: false, received }
    }

    fn connection(&mut self, address: SocketAddr, gate: &Gate) -> io::Result<()> {
        let mut wire = Wire::connect(address, &self.terms)?;
        assert!(wire.session_present, "{} lost its session", self.terms.client_id);
        while !gate.is_over() {
            let mut next = wire.next(Duration::from_millis(50))?;
            while let Some(event) = next {
                self.hear(event, &mut wire);
                next = wire.buffered();
            }
            if self.rng.random_ratio(1, 200) {
                // Its acknowledgements are lost.
                return Ok(());
            }
            wire.flush()?;
        }
        Ok(())
    }

    fn hear(&mut self, event: Event, wire: &mut Wire) {
        match event {
            Event::Publish(message) => self.receive(message, wire),
            Event::Pubrel(id) => {
                self.open.remove(&id);
                wire.pubcomp(id);
            }
            Event::Other => {}
            unexpected => panic!("{} hears {unexpected:?}", self.terms.client_id),
        }
    }

    fn receive(&mut self, message: Message, wire: &mut Wire) {
        let Message { topic, payload, qos, dup, packet_id, .. } = message;
        match qos {
            Qos::AtMostOnce => panic!("{payload} came with QoS 0"),
            Qos::AtLeastOnce => wire.puback(packet_id),
            Qos::ExactlyOnce => {
                wire.pubrec(packet_id);
                // [MQTT-4.3.3-10]
                if let Some(known) = self.open.insert(packet_id, payload.clone()) {
                    let client_id = &self.terms.client_id;
                    assert_eq!(known, payload, "{client_id}: {packet_id} names two messages");
                    return;
                }
            }
        }
        self.log.lock().unwrap().push(Received { topic, payload, qos, dup });
    }
}
