//! A real store in a temporary folder, a real broker and bridge on top of it, and HTTP targets on loopback
//! that behave as a test wants.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::{Router, body::Bytes, extract::State, response::IntoResponse, routing::post};
use causeway::auth::{Authenticator, Rights};
use causeway::bridge::{Bridge, DeadLetterFilter, DeadLetters, FiledLetter};
use causeway::broker::{AttachRequest, Broker, BrokerLimits, Link, PublishContext, Slot, Source};
use causeway::codec::{Connect, PacketId, Publish, PublishProperties, Qos, ReasonCode, Version};
use causeway::config::{AuthConfig, Config, Order, RouteConfig, TargetConfig};
use causeway::record::Lsn;
use causeway::session::{Offer, Receipt, SessionLimits, Terms};
use causeway::store::{Store, StoreSettings};
use causeway::telemetry::Metrics;
use causeway::topic::TopicName;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Long enough for a busy machine: no test waits for it unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);

pub const NOW: Duration = Duration::ZERO;

/// Waits until something is so.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A request that a server has seen.
#[derive(Clone, Debug)]
pub struct Seen {
    pub headers: HeaderMap,
    pub body: String,
    pub at: Instant,
    /// Requests under way when it came, itself included.
    pub under_way: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    /// 429 with a Retry-After in seconds.
    Busy(u32),
    /// Nothing, until the server is told to answer something else.
    Hold,
}

/// An HTTP server. What it answers depends on the request and on how many with the same body came before.
pub struct Server {
    pub url: String,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    answer: watch::Sender<Rule>,
    under_way: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

type Rule = Arc<dyn Fn(&Seen, usize) -> Answer + Send + Sync>;

#[derive(Clone)]
struct Shared {
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: watch::Receiver<Rule>,
    under_way: Arc<AtomicUsize>,
}

impl Server {
    pub async fn new(rule: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), rule).await
    }

    pub async fn at(
        address: SocketAddr,
        rule: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap());
        let (answer, receiver) = watch::channel(Arc::new(rule) as Rule);
        let seen = Arc::default();
        let under_way = Arc::default();
        let shared = Shared { seen: Arc::clone(&seen), answer: receiver, under_way: Arc::clone(&under_way) };
        let router = Router::new().route("/in", post(handle)).with_state(shared);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen, answer, under_way, task }
    }

    pub async fn answering(status: u16) -> Self {
        Self::new(move |_, _| Answer::Status(status)).await
    }

    /// Changes what it answers, also to requests that it holds.
    pub fn now_answers(&self, rule: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) {
        self.answer.send_replace(Arc::new(rule));
    }

    pub fn count(&self) -> usize {
        self.seen.lock().len()
    }

    /// Requests that are not answered yet.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// The bodies in the order they came.
    pub fn bodies(&self) -> Vec<String> {
        self.seen.lock().iter().map(|seen| seen.body.clone()).collect()
    }

    /// The requests with this body.
    pub fn of(&self, body: &str) -> Vec<Seen> {
        self.seen.lock().iter().filter(|seen| seen.body == body).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts itself out also when the client has gone.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn handle(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let under_way = shared.under_way.fetch_add(1, Ordering::SeqCst) + 1;
    let _under_way = UnderWay(Arc::clone(&shared.under_way));
    let body = String::from_utf8(body.to_vec()).unwrap();
    let seen = Seen { headers, body, at: Instant::now(), under_way };
    let before = {
        let mut all = shared.seen.lock();
        all.push(seen.clone());
        all.iter().filter(|other| other.body == seen.body).count() - 1
    };
    let mut rule = shared.answer.clone();
    loop {
        let answer = (rule.borrow_and_update())(&seen, before);
        match answer {
            Answer::Status(status) => return (StatusCode::from_u16(status).unwrap(), HeaderMap::new()),
            Answer::Busy(seconds) => {
                let headers = HeaderMap::from_iter([(http::header::RETRY_AFTER, seconds.into())]);
                return (StatusCode::TOO_MANY_REQUESTS, headers);
            }
            Answer::Hold => rule.changed().await.unwrap(),
        }
    }
}

/// A target that is tried again fast.
pub fn target(url: &str) -> TargetConfig {
    let mut target = TargetConfig::new(url.parse().unwrap());
    target.retry.initial = Duration::from_millis(1);
    target.retry.max = Duration::from_millis(4);
    target.breaker.failures = 3;
    target.breaker.probe_interval = Duration::from_millis(5);
    target.breaker.probe_interval_max = Duration::from_millis(10);
    target
}

/// A route `r` from `plant/#` to this target.
pub fn config(target: TargetConfig) -> Config {
    let mut config = Config::default();
    config.targets.insert("t".into(), target);
    config.routes = vec![route("r", "plant/#", "t")];
    config
}

/// A route on which any message may overtake any other.
pub fn route(name: &str, topic: &str, target: &str) -> RouteConfig {
    RouteConfig { order: Order::None, ..RouteConfig::new(name, topic, target) }
}

/// A broker with its bridge, and a client that publishes.
pub struct World {
    pub broker: Arc<Broker>,
    pub bridge: Bridge,
    pub letters: DeadLetters,
    /// Messages that were owed to somebody when the store was opened.
    pub recovered_messages: u64,
    slot: Arc<Slot>,
    rights: Rights,
    context: Mutex<PublishContext>,
    folder: TempDir,
}

impl World {
    pub async fn new(config: &Config) -> Self {
        Self::at(tempfile::tempdir().unwrap(), config).await
    }

    async fn at(folder: TempDir, config: &Config) -> Self {
        let (broker, recovered_messages) = open(folder.path(), config);
        let bridge = Bridge::start(&broker, config).unwrap();
        let slot = attach(&broker, "publisher", None).await;
        let listener = ([127, 0, 0, 1], 1).into();
        let identity = broker.auth.authenticate(listener, None, None).unwrap();
        let rights = broker.auth.rights(&identity, "publisher").unwrap();
        let letters = DeadLetters::new(Arc::clone(&broker));
        let context = Mutex::default();
        Self { broker, bridge, letters, recovered_messages, slot, rights, context, folder }
    }

    /// Ends everything in order, and starts it again on the same folder.
    pub async fn restart(self, config: &Config, within: Duration) -> Self {
        let Self { broker, bridge, folder, slot, letters, .. } = self;
        bridge.shutdown(within).await;
        broker.store.close();
        drop((broker, bridge, slot, letters));
        Self::at(folder, config).await
    }

    /// Publishes a message and waits until it is safe.
    pub async fn publish(&self, qos: Qos, topic: &str, body: &str) -> Lsn {
        self.publish_expiring(qos, topic, body, None).await
    }

    /// Publishes a message of a user whose password was checked, and waits until it is safe.
    pub async fn publish_as(&self, user_name: &str, qos: Qos, topic: &str, body: &str) -> Lsn {
        self.publish_message(Some(user_name), qos, (topic, body), PublishProperties::default()).await
    }

    pub async fn publish_expiring(
        &self,
        qos: Qos,
        topic: &str,
        body: &str,
        message_expiry: Option<u32>,
    ) -> Lsn {
        let properties = PublishProperties { message_expiry, ..PublishProperties::default() };
        self.publish_with(qos, topic, body, properties).await
    }

    pub async fn publish_with(
        &self,
        qos: Qos,
        topic: &str,
        body: &str,
        properties: PublishProperties<'_>,
    ) -> Lsn {
        self.publish_message(None, qos, (topic, body), properties).await
    }

    async fn publish_message(
        &self,
        user_name: Option<&str>,
        qos: Qos,
        content: (&str, &str),
        properties: PublishProperties<'_>,
    ) -> Lsn {
        match self.receipt(user_name, qos, content, properties) {
            Receipt::Safe(ReasonCode::Success) if qos == Qos::AtMostOnce => Lsn::ZERO,
            Receipt::SafeWith(entry, ReasonCode::Success) => {
                self.broker.store.durable(entry.lsn).await.unwrap();
                entry.lsn
            }
            other => panic!("{other:?}"),
        }
    }

    /// Publishes a message that may become a dead letter at once, and gives what has to be durable for it.
    pub async fn offer(&self, qos: Qos, topic: &str, body: &str) -> Lsn {
        match self.receipt(None, qos, (topic, body), PublishProperties::default()) {
            Receipt::SafeAt(lsn, _) => lsn,
            Receipt::SafeWith(entry, _) => entry.lsn,
            other => panic!("{other:?}"),
        }
    }

    fn receipt(
        &self,
        user_name: Option<&str>,
        qos: Qos,
        (topic, body): (&str, &str),
        properties: PublishProperties<'_>,
    ) -> Receipt {
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id: PacketId::new(1).filter(|_| qos > Qos::AtMostOnce),
            properties,
            payload: body.as_bytes(),
        };
        let source = Source { slot: &self.slot, durable: None, rights: &self.rights, user_name };
        let topic = TopicName::parse(topic, 10).unwrap();
        let now = self.broker.clock.now();
        self.broker.publish(&mut self.context.lock(), &source, &publish, &topic, now)
    }

    /// Publishes `0`, `1` and so on.
    pub async fn publish_many(&self, count: usize) {
        for number in 0..count {
            self.publish(Qos::AtLeastOnce, "plant/1", &number.to_string()).await;
        }
    }

    /// Messages on disk that the route `r` is owed.
    pub fn owed(&self) -> u64 {
        self.bridge.states()[0].queued_messages
    }

    pub async fn nothing_owed(&self) {
        eventually("the route is owed nothing", || self.owed() == 0).await;
    }

    /// Waits for so many dead letters and gives them.
    pub async fn dead_letters(&self, count: usize) -> Vec<FiledLetter> {
        eventually("dead letters", || self.broker.store.dead_letters().0 >= count as u64).await;
        // They are counted when they are applied, and seen when that is committed.
        let last = self.broker.store.submit(Default::default()).unwrap().lsn;
        self.broker.store.durable(last).await.unwrap();
        let page = self.letters.list(Lsn::ZERO, 1000, DeadLetterFilter::default()).await.unwrap();
        assert_eq!(page.letters.len(), count);
        page.letters
    }
}

/// Gives a client its session.
pub async fn attach(broker: &Broker, client_id: &str, session_expiry: Option<u32>) -> Arc<Slot> {
    let connect = Connect { clean_start: true, session_expiry, ..Connect::new(Version::V5, client_id) };
    let terms = Terms::agree(&connect, &broker.limits().session, String::new).unwrap();
    let link = Arc::new(Link::default());
    broker.attach(AttachRequest { terms: &terms, user_name: None, will: None, link }).await.unwrap().slot
}

fn open(folder: &Path, config: &Config) -> (Arc<Broker>, u64) {
    let settings = StoreSettings {
        cache_size: 1 << 20,
        commit_interval: Duration::ZERO,
        batch_bytes_max: 1 << 20,
        queue_bytes_max: 1 << 20,
        compact_at_start: false,
        recent_max: StoreSettings::RECENT_MAX,
    };
    let (store, recovered) = Store::open(folder, &settings).unwrap();
    let messages = recovered.messages;
    let auth = Arc::new(Authenticator::load(AuthConfig::default()).unwrap());
    let broker = Broker::new(store, recovered, auth, Arc::new(Metrics::new()), limits(config));
    (broker, messages)
}

fn limits(config: &Config) -> BrokerLimits {
    let limits = &config.limits;
    BrokerLimits {
        merge_overlapping: true,
        session: SessionLimits {
            receive_maximum: 100,
            inflight: 100,
            topic_alias_maximum: 0,
            topic_levels: 10,
            packet_size: 1 << 20,
            keep_alive_max: 0,
            session_expiry: 3600,
            offer: Offer::EVERYTHING,
            response_information: None,
        },
        memory: 1 << 30,
        outbox_bytes: 1 << 20,
        queue: limits.queue,
        sessions: 100,
        subscriptions_per_session: 100,
        retained_messages: 100,
        retained_bytes: 1 << 20,
        dead_letters: limits.dead_letters,
        dead_letter_bytes: limits.dead_letter_bytes,
        letters: Default::default(),
        takeover_timeout: Duration::from_secs(1),
        shared: Default::default(),
        checks_retained_source: false,
        clock_grace: Duration::from_secs(3600),
    }
}
