//! The publishing side: `bench pub`, and the publishers of `bench pair`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;

use super::args::{LoadArgs, PubArgs};
use super::client::{BATCH_BYTES, Client, Due, Identity, Role, Target, unexpected};
use super::error::BenchError;
use super::fleet::{Bench, Fleet};
use super::flow::Flow;
use super::latency::{Latencies, LatencyRun};
use super::message::{MessagePlan, MessageWriter};
use super::pace::{Pace, share};
use super::process::Meter;
use super::report::{PublishReport, Report, Scenario};
use super::stage::{Phase, Stage};
use super::window::Window;
use crate::codec::{Ack, MAX_PACKET_SIZE, Packet, Qos, ReasonCode, encode};

/// What one publisher is to do.
#[derive(Clone, Debug)]
pub struct PublisherPlan {
    /// What its messages are like.
    pub message: MessagePlan,
    /// How many messages; `u64::MAX` for as many as there is time.
    pub count: u64,
    /// How many QoS 1 or 2 messages may be unacknowledged.
    pub window: u16,
    /// `None` is flat out.
    pub pace: Option<Pace>,
    /// Back-pressure from the subscribers of a pair: all flows, of which this publisher has one.
    pub flows: Option<(Arc<[Flow]>, usize)>,
}

/// What one publisher has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Published {
    /// Messages handed to the connection.
    pub sent: u64,
    /// By PUBACK or PUBCOMP; QoS 0: all that was sent, once the last PINGRESP is there.
    pub acknowledged: u64,
    /// Acknowledged with a reason code that says no.
    pub refused: u64,
    /// How many could be unacknowledged: no more than the broker's Receive Maximum.
    pub window: u16,
}

/// Runs `bench pub`.
///
/// # Errors
/// When the publishers cannot all connect.
pub async fn run(mut bench: Bench, args: &PubArgs) -> Result<Report, BenchError> {
    let latencies = Arc::new(Latencies::new(bench.threads));
    let mut fleet = Fleet::new(&bench.stage);
    for number in 0..args.clients {
        let message = MessagePlan {
            topic: args.topic.clone(),
            topics: args.topics,
            retain: args.retain,
            ..message_plan(&bench, &args.load, number)
        };
        let plan = PublisherPlan::new(&args.load, message, number, args.clients);
        let identity = bench.identity('p', number);
        let (stage, target) = (Arc::clone(&bench.stage), Arc::clone(&bench.target));
        fleet.spawn(publish(stage, target, identity, plan, Arc::clone(&latencies)));
    }
    bench.prepare(args.clients.into()).await?;
    let meter = Meter::start(bench.pid)?;
    let running = fleet.running();
    let ended = bench.load(args.load.duration(), || running.load(Ordering::Acquire) == 0).await;
    let acknowledged = bench.stage.counters.acknowledged.load(Ordering::Acquire);
    let mut report = bench.report(scenario(&bench, args), ended, &meter, acknowledged);
    let published = fleet.join().await;
    report.publish = Some(PublishReport::new(&bench.stage, &published, latencies.summary()));
    Ok(report)
}

/// The messages that `load` asks of publisher `number`, on a topic yet to be named.
pub fn message_plan(bench: &Bench, load: &LoadArgs, number: u32) -> MessagePlan {
    MessagePlan {
        version: bench.target.version,
        qos: load.qos.into(),
        retain: false,
        payload_bytes: load.payload,
        topic: String::new(),
        topics: 1,
        run: bench.stage.run,
        publisher: number,
    }
}

impl PublisherPlan {
    /// The share of publisher `number` of `publishers` in what `load` asks for.
    pub fn new(load: &LoadArgs, message: MessagePlan, number: u32, publishers: u32) -> Self {
        let count = load.count.map_or(u64::MAX, |count| share(count, number, publishers));
        let pace = (load.rate > 0).then(|| Pace::new(load.rate, number, publishers));
        Self { message, count, window: load.window, pace, flows: None }
    }
}

/// Runs one publisher: connects, waits for the start, sends, waits for what is unacknowledged.
///
/// # Errors
/// When the connection fails or the broker breaks the protocol.
pub async fn publish(
    stage: Arc<Stage>,
    target: Arc<Target>,
    identity: Identity,
    plan: PublisherPlan,
    latencies: Arc<Latencies>,
) -> Result<Published, BenchError> {
    let mut client = Client::open(&target, &identity, &stage).await?;
    stage.client_ready();
    let window = plan.window.min(client.connack().properties.receive_maximum.unwrap_or(u16::MAX));
    let mut publisher = Publisher::new(&stage, plan, window, &latencies)?;
    if stage.started().await
        && let Err(error) = client.drive(&stage, &mut publisher).await
    {
        stage.client_failed(error);
    }
    client.close().await;
    Ok(publisher.published)
}

fn scenario(bench: &Bench, args: &PubArgs) -> Scenario {
    Scenario {
        publishers: args.clients,
        qos: Some(Qos::from(args.load.qos) as u8),
        payload_bytes: Some(args.load.payload),
        rate: Some(args.load.rate),
        ..Scenario::new("pub", &bench.target)
    }
}

struct Publisher<'a> {
    stage: &'a Stage,
    latencies: &'a Latencies,
    plan: PublisherPlan,
    messages: MessageWriter,
    window: Window,
    published: Published,
    /// Acknowledged and refused since the counters were last told.
    news: (u64, u64),
    run: LatencyRun,
    closing: Closing,
}

/// How far a publisher with nothing more to send has come. The answer to a PINGREQ says that the broker
/// has taken everything before it, which for QoS 0 nothing else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    NotYet,
    Pinged,
    Answered,
}

impl<'a> Publisher<'a> {
    fn new(
        stage: &'a Stage,
        plan: PublisherPlan,
        window: u16,
        latencies: &'a Latencies,
    ) -> Result<Self, BenchError> {
        Ok(Self {
            stage,
            latencies,
            messages: MessageWriter::new(plan.message.clone())?,
            window: Window::new(if plan.message.qos == Qos::AtMostOnce { 1 } else { window }),
            published: Published { window, ..Published::default() },
            plan,
            news: (0, 0),
            run: LatencyRun::default(),
            closing: Closing::NotYet,
        })
    }

    fn qos(&self) -> Qos {
        self.plan.message.qos
    }

    /// What may be sent now, and when more may be if that is nothing.
    fn allowance(&self, context: &Context<'_>, now_ns: u64) -> (u64, Due) {
        let sent = self.published.sent;
        let mut allowed = self.plan.count - sent;
        if let Some(pace) = &self.plan.pace {
            let started = self.stage.started_ns();
            let due = pace.due(now_ns.saturating_sub(started)).saturating_sub(sent);
            if due == 0 {
                return (0, Due::At(started.saturating_add(pace.due_at_ns(sent))));
            }
            allowed = allowed.min(due);
        }
        if self.qos() > Qos::AtMostOnce {
            allowed = allowed.min(self.window.room() as u64);
        }
        if allowed > 0
            && let Some(flow) = self.flow()
        {
            allowed = allowed.min(flow.room(sent, context));
        }
        (allowed, Due::Input)
    }

    fn flow(&self) -> Option<&Flow> {
        let (flows, own) = self.plan.flows.as_ref()?;
        flows.get(*own)
    }

    fn send(&mut self, count: u64, now_ns: u64, out: &mut Vec<u8>) {
        for _ in 0..count {
            let packet_id = match self.qos() {
                Qos::AtMostOnce => None,
                _ => self.window.publish(now_ns),
            };
            self.messages.append(self.published.sent, packet_id, now_ns, out);
            self.published.sent += 1;
        }
        self.stage.counters.sent.fetch_add(count, Ordering::Relaxed);
    }

    /// Nothing more is to be sent: waits for what is out.
    fn finish(&mut self) -> Due {
        match (self.qos(), self.closing) {
            (Qos::AtMostOnce, Closing::NotYet) => {
                self.closing = Closing::Pinged;
                Due::Ping
            }
            (Qos::AtMostOnce, Closing::Pinged) => Due::Input,
            (Qos::AtMostOnce, Closing::Answered) => Due::Finished,
            _ if self.window.is_idle() => Due::Finished,
            _ => Due::Input,
        }
    }

    fn acknowledged(&mut self, sent_at_ns: Option<u64>, ack: &Ack, now_ns: u64) -> Result<(), BenchError> {
        let Some(sent_at) = sent_at_ns else {
            return Err(BenchError::Protocol(format!(
                "an acknowledgement of packet identifier {}, which is not in use",
                ack.packet_id.get()
            )));
        };
        if ack.reason.is_error() {
            self.published.refused += 1;
            self.news.1 += 1;
            return Ok(());
        }
        self.published.acknowledged += 1;
        self.news.0 += 1;
        self.run.add(now_ns.saturating_sub(sent_at), self.plan.message.publisher, self.latencies);
        Ok(())
    }

    /// PUBREC: the second half of QoS 2 follows, unless it refuses.
    fn received(&mut self, ack: &Ack, now_ns: u64, out: &mut Vec<u8>) -> Result<(), BenchError> {
        if ack.reason.is_error() {
            let sent_at = self.window.acknowledge(ack.packet_id);
            return self.acknowledged(sent_at, ack, now_ns);
        }
        if !self.window.release(ack.packet_id) {
            return self.acknowledged(None, ack, now_ns);
        }
        let version = self.plan.message.version;
        Ok(encode::pubrel(version, ack.packet_id, ReasonCode::Success, None, MAX_PACKET_SIZE, out)?)
    }
}

impl Role for Publisher<'_> {
    fn handle(&mut self, packet: &Packet<'_>, now_ns: u64, out: &mut Vec<u8>) -> Result<(), BenchError> {
        match (packet, self.qos()) {
            (Packet::Puback(ack), Qos::AtLeastOnce) => {
                let sent_at = self.window.acknowledge(ack.packet_id);
                self.acknowledged(sent_at, ack, now_ns)
            }
            (Packet::Pubrec(ack), Qos::ExactlyOnce) => self.received(ack, now_ns, out),
            (Packet::Pubcomp(ack), Qos::ExactlyOnce) => {
                let sent_at = self.window.complete(ack.packet_id);
                self.acknowledged(sent_at, ack, now_ns)
            }
            (Packet::Pingresp, _) => {
                if self.closing == Closing::Pinged {
                    self.closing = Closing::Answered;
                    self.published.acknowledged = self.published.sent;
                    self.news.0 = self.published.sent;
                }
                Ok(())
            }
            (packet, _) => Err(unexpected(packet, "for a publisher")),
        }
    }

    fn handled(&mut self, now_ns: u64) {
        self.run.flush(self.plan.message.publisher, self.latencies);
        let (acknowledged, refused) = std::mem::take(&mut self.news);
        if acknowledged > 0 {
            self.stage.counters.acknowledged.fetch_add(acknowledged, Ordering::Relaxed);
            self.stage.counters.acknowledged_span.note(now_ns);
        }
        if refused > 0 {
            self.stage.counters.refused.fetch_add(refused, Ordering::Relaxed);
        }
    }

    fn fill(&mut self, context: &Context<'_>, now_ns: u64, out: &mut Vec<u8>) -> Result<Due, BenchError> {
        if self.published.sent >= self.plan.count || self.stage.phase() != Phase::Run {
            return Ok(self.finish());
        }
        let (allowed, otherwise) = self.allowance(context, now_ns);
        if allowed == 0 {
            return Ok(otherwise);
        }
        let room = BATCH_BYTES.saturating_sub(out.len()) / self.messages.message_bytes().max(1);
        self.send(allowed.min(room.max(1) as u64), now_ns, out);
        Ok(Due::Now)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::codec::{PacketId, Version};

    const START: u64 = 1_000;

    fn plan(qos: Qos, count: u64) -> PublisherPlan {
        let message = MessagePlan {
            version: Version::V5,
            qos,
            retain: false,
            payload_bytes: 64,
            topic: "t".to_owned(),
            topics: 1,
            run: 1,
            publisher: 0,
        };
        PublisherPlan { message, count, window: 2, pace: None, flows: None }
    }

    fn ack(id: u16, reason: ReasonCode) -> Ack {
        Ack { packet_id: PacketId::new(id).unwrap(), reason }
    }

    /// Asks for what is due; gives how many bytes that was.
    fn fill(publisher: &mut Publisher<'_>) -> (Due, usize) {
        let mut out = Vec::new();
        let due = publisher.fill(&Context::from_waker(Waker::noop()), START, &mut out).unwrap();
        (due, out.len())
    }

    fn running() -> Stage {
        let stage = Stage::new(1);
        stage.advance(Phase::Run);
        stage
    }

    #[test]
    fn qos_1_sends_a_window_and_goes_on_with_each_acknowledgement() {
        let (stage, latencies) = (running(), Latencies::new(1));
        let mut publisher = Publisher::new(&stage, plan(Qos::AtLeastOnce, 3), 2, &latencies).unwrap();
        assert_eq!(fill(&mut publisher).0, Due::Now);
        assert_eq!(fill(&mut publisher), (Due::Input, 0), "the window is full");
        for id in [1, 2] {
            let packet = Packet::Puback(ack(id, ReasonCode::Success));
            publisher.handle(&packet, START + 500, &mut Vec::new()).unwrap();
        }
        publisher.handled(START + 500);
        assert_eq!(fill(&mut publisher).0, Due::Now);
        assert_eq!(fill(&mut publisher), (Due::Input, 0), "the last is unacknowledged");
        let refusal = Packet::Puback(ack(1, ReasonCode::QuotaExceeded));
        publisher.handle(&refusal, START + 900, &mut Vec::new()).unwrap();
        assert_eq!(fill(&mut publisher), (Due::Finished, 0));
        let Published { sent, acknowledged, refused, .. } = publisher.published;
        assert_eq!((sent, acknowledged, refused), (3, 2, 1));
        let latency = latencies.summary().unwrap();
        assert_eq!((latency.count, latency.max_us), (2, 0.5), "a refusal is no latency");
    }

    #[test]
    fn qos_2_is_acknowledged_by_pubcomp_alone() {
        let (stage, latencies) = (running(), Latencies::new(1));
        let mut publisher = Publisher::new(&stage, plan(Qos::ExactlyOnce, 1), 2, &latencies).unwrap();
        fill(&mut publisher);
        let mut out = Vec::new();
        publisher.handle(&Packet::Pubrec(ack(1, ReasonCode::Success)), START, &mut out).unwrap();
        assert_eq!(out.first(), Some(&0x62), "PUBREL");
        assert_eq!(fill(&mut publisher), (Due::Input, 0));
        publisher.handle(&Packet::Pubcomp(ack(1, ReasonCode::Success)), START, &mut out).unwrap();
        assert_eq!(fill(&mut publisher), (Due::Finished, 0));
        assert_eq!(publisher.published.acknowledged, 1);
    }

    #[test]
    fn an_acknowledgement_of_nothing_is_an_error() {
        let (stage, latencies) = (running(), Latencies::new(1));
        let mut publisher = Publisher::new(&stage, plan(Qos::AtLeastOnce, 1), 2, &latencies).unwrap();
        let packet = Packet::Puback(ack(1, ReasonCode::Success));
        assert!(publisher.handle(&packet, START, &mut Vec::new()).is_err());
    }

    #[test]
    fn qos_0_counts_as_taken_once_a_ping_is_answered() {
        let (stage, latencies) = (running(), Latencies::new(1));
        let mut publisher = Publisher::new(&stage, plan(Qos::AtMostOnce, 5), 2, &latencies).unwrap();
        publisher.handle(&Packet::Pingresp, START, &mut Vec::new()).unwrap();
        assert_eq!(fill(&mut publisher).0, Due::Now, "a keep-alive is no end");
        assert_eq!(fill(&mut publisher).0, Due::Ping);
        assert_eq!(fill(&mut publisher).0, Due::Input, "one ping is enough");
        publisher.handle(&Packet::Pingresp, START, &mut Vec::new()).unwrap();
        assert_eq!(fill(&mut publisher).0, Due::Finished);
        assert_eq!(publisher.published.acknowledged, 5);
    }

    #[test]
    fn a_batch_is_bounded_and_the_end_of_the_run_ends_the_sending() {
        let (stage, latencies) = (running(), Latencies::new(1));
        let mut publisher = Publisher::new(&stage, plan(Qos::AtMostOnce, u64::MAX), 2, &latencies).unwrap();
        let (due, bytes) = fill(&mut publisher);
        assert_eq!(due, Due::Now);
        assert!(bytes <= BATCH_BYTES && bytes > BATCH_BYTES / 2, "{bytes}");
        stage.advance(Phase::Drain);
        assert_eq!(fill(&mut publisher), (Due::Ping, 0));
    }
}
