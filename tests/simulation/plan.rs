//! What a run is: limits, clients, what they do and how often something goes wrong. All of it follows from the
//! seed.

use crate::broker::BrokerLimits;
use crate::broker::tests::{LIMITS, STORE};
use crate::session::SessionLimits;
use crate::store::StoreSettings;
use crate::store::tests::Dice;

/// Everything that is drawn before a run begins.
#[derive(Debug)]
pub struct Plan {
    pub limits: BrokerLimits,
    pub store: StoreSettings,
    pub clients: Vec<Profile>,
    /// Steps until everything that goes wrong stops.
    pub steps: usize,
    /// One step in so many cuts a connection.
    pub cuts: usize,
    /// One step in so many kills the process.
    pub kills: usize,
    /// Writes and syncs of the disk after which it fails, at most; 0 for a disk that does not.
    pub disk_faults: usize,
    /// One step in so many turns the clock on by a long time.
    pub jumps: usize,
}

/// What a client is like.
#[derive(Clone, Debug)]
pub struct Profile {
    pub name: String,
    /// Protocol Level.
    pub version: u8,
    /// Its session outlives its connections.
    pub is_durable: bool,
    /// Seconds that it does, for 5.0.
    pub expiry: u32,
    pub receive_maximum: u16,
    /// Filter and QoS.
    pub subscriptions: Vec<(String, u8)>,
    /// Topics that it publishes to.
    pub topics: Vec<String>,
    /// Messages that it publishes.
    pub messages: usize,
    /// Bytes of a payload at most.
    pub payload_max: usize,
    /// One turn in so many lets go of the connection.
    pub restless: usize,
}

const DAY: u32 = 86_400;

impl Plan {
    pub fn draw(dice: &mut Dice) -> Self {
        let limits = BrokerLimits {
            session: SessionLimits {
                receive_maximum: [1, 2, 10][dice.roll(3)],
                inflight: [1, 2, 10, 100][dice.roll(4)],
                session_expiry: DAY,
                ..LIMITS.session
            },
            outbox_bytes: [1, 300, 4096, 1 << 20][dice.roll(4)],
            ..LIMITS
        };
        let store = StoreSettings {
            batch_bytes_max: [1, 500, 1 << 20][dice.roll(3)],
            queue_bytes_max: [200, 1 << 20, 1 << 20][dice.roll(3)],
            ..STORE
        };
        let clients = (0..2 + dice.roll(4)).map(|number| Profile::draw(number, dice)).collect();
        Self {
            limits,
            store,
            clients,
            steps: 300 + dice.roll(1200),
            cuts: [40, 150, 1000][dice.roll(3)],
            kills: [200, 600, 100_000][dice.roll(3)],
            disk_faults: [0, 100, 600][dice.roll(3)],
            jumps: [100, 1000][dice.roll(2)],
        }
    }
}

impl Profile {
    fn draw(number: usize, dice: &mut Dice) -> Self {
        let mut subscriptions = Vec::new();
        if number == 0 || dice.one_in(2) {
            let filter = ["t/#", "t/+", "t/0", "#"][dice.roll(4)];
            subscriptions.push((filter.to_owned(), dice.roll(3) as u8));
        }
        let topics = (0..1 + dice.roll(2)).map(|_| format!("t/{}", dice.roll(3))).collect();
        let messages = if number == 1 { 10 + dice.roll(30) } else { dice.roll(20) };
        Self {
            name: format!("c{number}"),
            version: if dice.one_in(3) { 4 } else { 5 },
            is_durable: number == 0 || !dice.one_in(3),
            expiry: DAY,
            receive_maximum: [1, 2, 5, u16::MAX][dice.roll(4)],
            subscriptions,
            topics,
            messages,
            payload_max: [10, 100, 2000][dice.roll(3)],
            restless: [30, 200, 2000][dice.roll(3)],
        }
    }
}
