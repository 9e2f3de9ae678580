//! The receiving side: `bench sub`, and the subscribers of `bench pair`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;

use super::args::SubArgs;
use super::client::{Client, Due, Identity, Role, Target, unexpected};
use super::error::BenchError;
use super::fleet::{Bench, Fleet};
use super::flow::Flow;
use super::latency::{Latencies, LatencyRun};
use super::message::{Header, topic_name};
use super::process::Meter;
use super::report::{ReceiveReport, Report, Scenario};
use super::sequence::{Origin, SequenceBook, SequenceTotals};
use super::stage::Stage;
use crate::codec::{
    MAX_PACKET_SIZE, Packet, PacketId, Publish, Qos, ReasonCode, Subscribe, SubscribeFilter,
    SubscribeOptions, Version, encode,
};

/// The identifier of the one SUBSCRIBE that a client sends.
const SUBSCRIBE_ID: u16 = 1;

/// What one subscriber is to do.
#[derive(Clone, Debug)]
pub struct SubscriberPlan {
    /// Decides how SUBSCRIBE and the acknowledgements are encoded.
    pub version: Version,
    /// The number of the subscriber.
    pub number: u32,
    /// One Topic Filter, with the subscriber's number filled in.
    pub filter: String,
    /// The highest QoS asked for; the broker may grant less.
    pub qos: Qos,
    /// Only messages of this run count as expected; those of others as untracked.
    pub only_run: Option<u16>,
    /// The flows of the publishers of a pair, by their number.
    pub flows: Option<Arc<[Flow]>>,
}

/// Runs `bench sub`.
///
/// # Errors
/// When the subscribers cannot all connect and subscribe.
pub async fn run(mut bench: Bench, args: &SubArgs) -> Result<Report, BenchError> {
    let latencies = Arc::new(Latencies::new(bench.threads));
    // Before the first connects: what waits in a durable session arrives at once.
    let meter = Meter::start(bench.pid)?;
    let mut fleet = Fleet::new(&bench.stage);
    for number in 0..args.clients {
        let identity = bench.durable_identity(number, &args.durable);
        let plan = SubscriberPlan {
            version: bench.target.version,
            number,
            filter: topic_name(&args.topic, number, 0),
            qos: args.qos.into(),
            only_run: None,
            flows: None,
        };
        let (stage, target) = (Arc::clone(&bench.stage), Arc::clone(&bench.target));
        fleet.spawn(subscribe(stage, target, identity, plan, Arc::clone(&latencies)));
    }
    bench.prepare(args.clients.into()).await?;
    let stage = Arc::clone(&bench.stage);
    let enough = || args.count.is_some_and(|count| stage.counters.received.load(Ordering::Acquire) >= count);
    let ended = bench.listen(args.duration(), enough).await;
    let received = stage.counters.received.load(Ordering::Acquire);
    let mut report = bench.report(scenario(&bench, args), ended, &meter, received);
    let totals = SequenceTotals::sum(&fleet.join().await);
    let span = &stage.counters.received_span;
    report.receive = Some(ReceiveReport::new(&totals, None, span.first_ns(), span, latencies.summary()));
    Ok(report)
}

/// Runs one subscriber until the run ends, and gives what it counted.
///
/// # Errors
/// When the connection fails, the subscription is refused, or the broker breaks the protocol.
pub async fn subscribe(
    stage: Arc<Stage>,
    target: Arc<Target>,
    identity: Identity,
    plan: SubscriberPlan,
    latencies: Arc<Latencies>,
) -> Result<SequenceTotals, BenchError> {
    let mut client = Client::open(&target, &identity, &stage).await?;
    encode::subscribe(plan.version, &subscribe_packet(&plan)?, client.out())?;
    let mut subscriber = Subscriber::new(&stage, plan, &latencies);
    if let Err(error) = client.drive(&stage, &mut subscriber).await {
        stage.client_failed(error);
    }
    client.close().await;
    Ok(subscriber.book.totals())
}

struct Subscriber<'a> {
    stage: &'a Stage,
    latencies: &'a Latencies,
    plan: SubscriberPlan,
    book: SequenceBook,
    /// Messages, and different messages, that the counters have not been told of.
    news: (u64, u64),
    run: LatencyRun,
    /// Deliveries of one publisher since its flow was last told.
    credit: (u32, u64),
}

impl<'a> Subscriber<'a> {
    fn new(stage: &'a Stage, plan: SubscriberPlan, latencies: &'a Latencies) -> Self {
        let origin = if plan.only_run.is_some() { Origin::Zero } else { Origin::FirstSeen };
        let book = SequenceBook::new(origin);
        Self { stage, latencies, plan, book, news: (0, 0), run: LatencyRun::default(), credit: (0, 0) }
    }

    fn publish(&mut self, publish: &Publish<'_>, now_ns: u64, out: &mut Vec<u8>) -> Result<(), BenchError> {
        self.count(publish, now_ns);
        let Some(packet_id) = publish.packet_id else {
            return Ok(());
        };
        let encode = if publish.qos == Qos::ExactlyOnce { encode::pubrec } else { encode::puback };
        Ok(encode(self.plan.version, packet_id, ReasonCode::Success, None, MAX_PACKET_SIZE, out)?)
    }

    fn count(&mut self, publish: &Publish<'_>, now_ns: u64) {
        self.news.0 += 1;
        let header = Header::read(publish.payload);
        let ours = |header: &Header| self.plan.only_run.is_none_or(|run| run == header.run);
        let Some(header) = header.filter(ours) else {
            return self.book.record_untracked();
        };
        let is_new = self.book.record(header.stream_key(), header.sequence);
        self.news.1 += u64::from(is_new);
        self.run.add(now_ns.saturating_sub(header.sent_at_ns), self.plan.number, self.latencies);
        if self.plan.flows.is_some() {
            if self.credit.0 != header.stream {
                self.give_credit();
                self.credit.0 = header.stream;
            }
            self.credit.1 += 1;
        }
    }

    fn give_credit(&mut self) {
        let (publisher, count) = self.credit;
        let flow = self.plan.flows.as_ref().and_then(|flows| flows.get(publisher as usize));
        if let Some(flow) = flow.filter(|_| count > 0) {
            flow.delivered(count);
        }
        self.credit.1 = 0;
    }

    fn subscribed(&self, reason: Option<&ReasonCode>) -> Result<(), BenchError> {
        match reason {
            Some(reason) if !reason.is_error() => {
                self.stage.client_ready();
                Ok(())
            }
            reason => Err(BenchError::SubscriptionRefused {
                filter: self.plan.filter.clone(),
                reason: reason.copied().unwrap_or(ReasonCode::UnspecifiedError),
            }),
        }
    }
}

impl Role for Subscriber<'_> {
    fn handle(&mut self, packet: &Packet<'_>, now_ns: u64, out: &mut Vec<u8>) -> Result<(), BenchError> {
        match packet {
            Packet::Publish(publish) => self.publish(publish, now_ns, out),
            Packet::Pubrel(release) => {
                let (version, id) = (self.plan.version, release.packet_id);
                Ok(encode::pubcomp(version, id, ReasonCode::Success, None, MAX_PACKET_SIZE, out)?)
            }
            Packet::Suback(suback) => self.subscribed(suback.reasons.first()),
            Packet::Pingresp => Ok(()),
            packet => Err(unexpected(packet, "for a subscriber")),
        }
    }

    fn handled(&mut self, now_ns: u64) {
        let (received, distinct) = std::mem::take(&mut self.news);
        if received > 0 {
            self.stage.counters.received.fetch_add(received, Ordering::Relaxed);
            self.stage.counters.distinct.fetch_add(distinct, Ordering::Relaxed);
            self.stage.counters.received_span.note(now_ns);
        }
        self.run.flush(self.plan.number, self.latencies);
        self.give_credit();
    }

    fn fill(&mut self, _: &Context<'_>, _: u64, _: &mut Vec<u8>) -> Result<Due, BenchError> {
        Ok(Due::Input)
    }
}

fn scenario(bench: &Bench, args: &SubArgs) -> Scenario {
    Scenario {
        subscribers: args.clients,
        qos: Some(Qos::from(args.qos) as u8),
        durable: args.durable.durable,
        ..Scenario::new("sub", &bench.target)
    }
}

fn subscribe_packet(plan: &SubscriberPlan) -> Result<Subscribe, BenchError> {
    let none = || BenchError::Protocol("packet identifier 0".to_owned());
    let options = SubscribeOptions { qos: plan.qos, ..SubscribeOptions::default() };
    Ok(Subscribe {
        packet_id: PacketId::new(SUBSCRIBE_ID).ok_or_else(none)?,
        subscription_id: None,
        filters: vec![SubscribeFilter { filter: plan.filter.clone(), options }],
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::cli::bench::message::{MessagePlan, MessageWriter};
    use crate::cli::bench::progress::Progress;
    use crate::cli::bench::stage::{Limits, Phase};

    fn messages(count: u64, now_ns: u64) -> Vec<u8> {
        let plan = MessagePlan {
            version: Version::V311,
            qos: Qos::AtLeastOnce,
            retain: false,
            payload_bytes: 64,
            topic: "t".to_owned(),
            topics: 1,
            run: 1,
            publisher: 0,
        };
        let mut writer = MessageWriter::new(plan).unwrap();
        let mut bytes = Vec::new();
        for number in 0..count {
            writer.append(number, PacketId::new(number as u16 + 1), now_ns, &mut bytes);
        }
        bytes
    }

    /// Plays a broker that resumes a session: messages come with the CONNACK, and cut anywhere.
    async fn resume(listener: TcpListener, now_ns: u64) {
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut scratch = [0; 256];
        assert!(peer.read(&mut scratch).await.unwrap() > 0, "CONNECT");
        let mut bytes = vec![0x20, 2, 1, 0];
        bytes.extend(messages(3, now_ns));
        let (first, rest) = bytes.split_at(30);
        peer.write_all(first).await.unwrap();
        assert!(peer.read(&mut scratch).await.unwrap() > 0, "SUBSCRIBE");
        peer.write_all(rest).await.unwrap();
        peer.write_all(&[0x90, 3, 0, 1, 1]).await.unwrap();
        // PUBACKs, DISCONNECT, and the end.
        while peer.read(&mut scratch).await.unwrap() > 0 {}
    }

    #[tokio::test]
    async fn messages_that_come_with_the_connack_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stage = Arc::new(Stage::new(1));
        let target = Target {
            address: listener.local_addr().unwrap(),
            version: Version::V311,
            tls: None,
            user_name: None,
            password: None,
            keep_alive: 0,
            timeout: Duration::from_secs(10),
            handshakes: Arc::new(Semaphore::new(1)),
        };
        let identity =
            Identity { client_id: "s".to_owned(), session_expiry: None, clean_start: false, from: None };
        let plan = SubscriberPlan {
            version: Version::V311,
            number: 0,
            filter: "t".to_owned(),
            qos: Qos::AtLeastOnce,
            only_run: Some(1),
            flows: None,
        };
        let broker = tokio::spawn(resume(listener, stage.clock.now_ns()));
        let latencies = Arc::new(Latencies::new(1));
        let client = subscribe(Arc::clone(&stage), Arc::new(target), identity, plan, Arc::clone(&latencies));
        let client = tokio::spawn(client);
        let limits = Limits { stall: Some(Duration::from_secs(10)), failures_end: true, until_ns: None };
        let arrived = || stage.ready() == 1 && stage.counters.distinct.load(Ordering::Acquire) == 3;
        stage.wait(limits, &mut Progress::new(true), arrived).await;
        stage.advance(Phase::End);
        let totals = client.await.unwrap().unwrap();
        broker.await.unwrap();
        assert_eq!(totals, SequenceTotals { unique: 3, ..SequenceTotals::default() });
        assert_eq!(stage.failed(), 0);
        assert_eq!(latencies.summary().unwrap().count, 3);
    }
}
