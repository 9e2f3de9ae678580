//! What a run is: limits, clients, what they do and how often something goes wrong. All of it follows from the
//! seed.

use super::history::SHARE;
use crate::broker::BrokerLimits;
use crate::broker::tests::{LIMITS, STORE};
use crate::config::QueueConfig;
use crate::session::SessionLimits;
use crate::store::StoreSettings;
use crate::store::tests::Dice;

/// Everything that is drawn before a run begins.
#[derive(Debug)]
pub struct Plan {
    pub limits: BrokerLimits,
    pub store: StoreSettings,
    pub clients: Vec<Profile>,
    /// Members of the shared group come and go, but for the first client.
    pub is_group_loose: bool,
    /// Whether there is a route with a target.
    pub has_route: bool,
    /// Steps until everything that goes wrong stops.
    pub steps: usize,
    /// One step in so many cuts a connection.
    pub cuts: usize,
    /// One step in so many kills the process.
    pub kills: usize,
    /// Writes and syncs of the disk after which it fails, at most; 0 for a disk that does not.
    pub disk_faults: usize,
    /// One step in so many fills the disk, or makes room.
    pub fills: usize,
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
    /// QoS of its will, and seconds that it waits.
    pub will: Option<(u8, u32)>,
    /// Filter and QoS.
    pub subscriptions: Vec<(String, u8)>,
    /// It is a member of the shared group and does not leave it: what it has in hand would be nobody's.
    pub must_stay: bool,
    /// It acknowledges what came on the connection before.
    pub answers_late: bool,
    /// It leaves subscriptions and comes back to them.
    pub is_fickle: bool,
    /// Topics that it publishes to.
    pub topics: Vec<String>,
    /// Messages that it publishes.
    pub messages: usize,
    /// Bytes of a payload at most.
    pub payload_max: usize,
    /// One message in so many expires.
    pub perishable: usize,
    /// One turn in so many lets go of the connection.
    pub restless: usize,
}

/// The shared group of a run.
struct Group {
    subscription: (String, u8),
    is_loose: bool,
}

/// More messages than a run has.
const LONG_QUEUE: u64 = 1000;

/// Seconds.
pub const DAY: u32 = 86_400;

impl Plan {
    pub fn draw(dice: &mut Dice) -> Self {
        let limits = BrokerLimits {
            session: SessionLimits {
                receive_maximum: [1, 2, 10][dice.roll(3)],
                inflight: [1, 2, 10, 100][dice.roll(4)],
                session_expiry: DAY,
                ..LIMITS.session
            },
            queue: QueueConfig { messages: [LONG_QUEUE, LONG_QUEUE, 3][dice.roll(3)], ..LIMITS.queue },
            outbox_bytes: [1, 300, 4096, 1 << 20][dice.roll(4)],
            ..LIMITS
        };
        let store = StoreSettings {
            batch_bytes_max: [1, 500, 1 << 20][dice.roll(3)],
            queue_bytes_max: [200, 1 << 20, 1 << 20][dice.roll(3)],
            recent_max: [1, 5, 30, 1 << 20][dice.roll(4)],
            ..STORE
        };
        let share = format!("{SHARE}s/+");
        let shared = dice.one_in(2).then(|| (share, dice.roll(3) as u8));
        let group = shared.map(|subscription| Group { subscription, is_loose: dice.one_in(2) });
        let clients =
            (0..2 + dice.roll(4)).map(|number| Profile::draw(number, group.as_ref(), dice)).collect();
        Self {
            limits,
            store,
            clients,
            is_group_loose: group.is_some_and(|group| group.is_loose),
            has_route: dice.one_in(2),
            steps: 300 + dice.roll(1200),
            cuts: [40, 150, 1000][dice.roll(3)],
            kills: [200, 600, 100_000][dice.roll(3)],
            disk_faults: [0, 100, 600][dice.roll(3)],
            fills: [50, 10_000][dice.roll(2)],
            jumps: [100, 1000][dice.roll(2)],
        }
    }
}

impl Plan {
    /// Whether queues may be full.
    pub fn has_short_queues(&self) -> bool {
        self.limits.queue.messages < LONG_QUEUE
    }
}

impl Profile {
    fn draw(number: usize, group: Option<&Group>, dice: &mut Dice) -> Self {
        let is_durable = number == 0 || !dice.one_in(3);
        let is_fickle = number > 0 && dice.one_in(3);
        let mut subscriptions = Vec::new();
        if number == 0 || dice.one_in(2) {
            let filters = ["t/#", "t/+", "t/0"];
            let at = dice.roll(3);
            subscriptions.push((filters[at].to_owned(), dice.roll(3) as u8));
            if dice.one_in(4) {
                // Both match the same, and it comes once.
                subscriptions.push((filters[(at + 1) % 3].to_owned(), dice.roll(3) as u8));
            }
        }
        for filter in ["r/#", "w/#"] {
            if dice.one_in(3) {
                subscriptions.push((filter.to_owned(), dice.roll(3) as u8));
            }
        }
        // Where members may go one stays, so that the group does.
        let is_loose = group.is_some_and(|group| group.is_loose);
        let is_member = if is_loose { number == 0 || dice.one_in(2) } else { is_durable && dice.one_in(2) };
        let joins = group.filter(|_| is_member);
        subscriptions.extend(joins.map(|group| group.subscription.clone()));
        let must_stay = is_member && (!is_loose || number == 0);
        let all = ["t/0".to_owned(), "t/1".to_owned(), "s/0".to_owned(), format!("r/{number}")];
        let topics = (0..1 + dice.roll(3)).filter_map(|_| dice.pick(&all).cloned()).collect();
        let expires = is_durable && !must_stay && dice.one_in(3);
        Self {
            name: format!("c{number}"),
            version: if dice.one_in(3) { 4 } else { 5 },
            is_durable,
            expiry: if expires { 1 + dice.roll(40) as u32 } else { DAY },
            receive_maximum: [1, 2, 5, u16::MAX][dice.roll(4)],
            will: dice.one_in(2).then(|| (dice.roll(3) as u8, [0, 0, 1, 20][dice.roll(4)])),
            subscriptions,
            must_stay,
            answers_late: dice.one_in(2),
            is_fickle,
            topics,
            messages: if number == 1 { 10 + dice.roll(30) } else { dice.roll(20) },
            payload_max: [10, 100, 2000][dice.roll(3)],
            perishable: [5, 1000][dice.roll(2)],
            restless: [30, 200, 2000][dice.roll(3)],
        }
    }

    /// Whether it may discard its session and have a new one. Before 5.0 that would end with the connection.
    pub fn may_begin_anew(&self) -> bool {
        self.is_durable && self.version > 4 && !self.must_stay
    }

    /// Whether its session may expire within the run.
    pub fn may_expire(&self) -> bool {
        self.is_durable && self.version > 4 && self.expiry < DAY
    }

    /// A client that has only come to look at what is retained.
    pub fn inspector() -> Self {
        Self {
            name: "inspector".into(),
            version: 5,
            is_durable: false,
            expiry: 0,
            receive_maximum: u16::MAX,
            will: None,
            subscriptions: vec![("r/#".into(), 2)],
            must_stay: false,
            answers_late: false,
            is_fickle: false,
            topics: Vec::new(),
            messages: 0,
            payload_max: 0,
            perishable: 1,
            restless: 1,
        }
    }
}
