//! `bench pair`: both sides of every message, so that each one is accounted for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::args::PairArgs;
use super::client::Client;
use super::error::BenchError;
use super::fleet::{Bench, Fleet};
use super::flow::Flow;
use super::latency::Latencies;
use super::message::{MessagePlan, topic_name};
use super::process::Meter;
use super::publisher::{self, Published, PublisherPlan};
use super::report::{PublishReport, ReceiveReport, Report, Scenario};
use super::sequence::SequenceTotals;
use super::stage::Stage;
use super::subscriber::{self, SubscriberPlan};
use crate::codec::Qos;

/// Who publishes to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    publishers: u32,
    subscribers: u32,
    /// Whether each publisher has a topic and a subscriber of its own; else there is one topic for all.
    own_topics: bool,
}

/// Runs `bench pair`.
///
/// # Errors
/// When the clients cannot all connect and subscribe.
pub async fn run(mut bench: Bench, args: &PairArgs) -> Result<Report, BenchError> {
    let shape = Shape::of(args);
    let sides = (Arc::new(Latencies::new(bench.threads)), Arc::new(Latencies::new(bench.threads)));
    let flow = || Flow::new(args.outstanding, shape.deliveries());
    let flows: Arc<[Flow]> = (0..shape.publishers).map(|_| flow()).collect();
    let subscribers = start_subscribers(&bench, args, shape, &flows, &sides.1);
    bench.prepare(shape.subscribers.into()).await?;
    let publishers = start_publishers(&bench, args, shape, &flows, &sides.0);
    bench.prepare(u64::from(shape.subscribers) + u64::from(shape.publishers)).await?;

    let meter = Meter::start(bench.pid)?;
    let stage = Arc::clone(&bench.stage);
    let running = publishers.running();
    let all_arrived = || {
        let distinct = stage.counters.distinct.load(Ordering::Acquire);
        running.load(Ordering::Acquire) == 0 && distinct >= expected(&stage, shape)
    };
    let ended = bench.load(args.load.duration(), all_arrived).await;
    let received = stage.counters.received.load(Ordering::Acquire);
    let mut report = bench.report(scenario(&bench, args, shape), ended, &meter, received);

    let published = publishers.join().await;
    let totals = SequenceTotals::sum(&subscribers.join().await);
    if args.durable.durable {
        discard_sessions(&bench, shape).await?;
    }
    let (acknowledgements, deliveries) = (sides.0.summary(), sides.1.summary());
    let (since, span) = (stage.started_ns(), &stage.counters.received_span);
    report.publish = Some(PublishReport::new(&stage, &published, acknowledgements));
    report.receive =
        Some(ReceiveReport::new(&totals, Some(expected(&stage, shape)), since, span, deliveries));
    Ok(report)
}

/// How many connections a pair load opens.
pub fn connections(args: &PairArgs) -> u64 {
    let shape = Shape::of(args);
    u64::from(shape.publishers) + u64::from(shape.subscribers)
}

impl Shape {
    fn of(args: &PairArgs) -> Self {
        match (args.fanout, args.fanin) {
            (Some(subscribers), _) => Self { publishers: 1, subscribers, own_topics: false },
            (_, Some(publishers)) => Self { publishers, subscribers: 1, own_topics: false },
            _ => Self { publishers: args.pairs, subscribers: args.pairs, own_topics: true },
        }
    }

    /// How many subscribers get each message.
    fn deliveries(&self) -> u64 {
        if self.own_topics { 1 } else { self.subscribers.into() }
    }

    fn topic(&self, template: &str, client: u32) -> String {
        topic_name(template, if self.own_topics { client } else { 0 }, 0)
    }
}

/// Deliveries that follow from what was sent and not refused.
fn expected(stage: &Stage, shape: Shape) -> u64 {
    let sent = stage.counters.sent.load(Ordering::Acquire);
    let refused = stage.counters.refused.load(Ordering::Acquire);
    sent.saturating_sub(refused) * shape.deliveries()
}

fn start_subscribers(
    bench: &Bench,
    args: &PairArgs,
    shape: Shape,
    flows: &Arc<[Flow]>,
    latencies: &Arc<Latencies>,
) -> Fleet<SequenceTotals> {
    let mut fleet = Fleet::new(&bench.stage);
    for number in 0..shape.subscribers {
        let plan = SubscriberPlan {
            version: bench.target.version,
            number,
            filter: shape.topic(&args.topic, number),
            qos: args.load.qos.into(),
            only_run: Some(bench.stage.run),
            flows: Some(Arc::clone(flows)),
        };
        let identity = bench.durable_identity(number, &args.durable);
        let (stage, target) = (Arc::clone(&bench.stage), Arc::clone(&bench.target));
        fleet.spawn(subscriber::subscribe(stage, target, identity, plan, Arc::clone(latencies)));
    }
    fleet
}

fn start_publishers(
    bench: &Bench,
    args: &PairArgs,
    shape: Shape,
    flows: &Arc<[Flow]>,
    latencies: &Arc<Latencies>,
) -> Fleet<Published> {
    let mut fleet = Fleet::new(&bench.stage);
    for number in 0..shape.publishers {
        let topic = shape.topic(&args.topic, number);
        let message = MessagePlan { topic, ..publisher::message_plan(bench, &args.load, number) };
        let mut plan = PublisherPlan::new(&args.load, message, number, shape.publishers);
        plan.flows = Some((Arc::clone(flows), number as usize));
        let identity = bench.identity('p', number);
        let (stage, target) = (Arc::clone(&bench.stage), Arc::clone(&bench.target));
        fleet.spawn(publisher::publish(stage, target, identity, plan, Arc::clone(latencies)));
    }
    fleet
}

/// A pair's sessions are of no use to a later run: connecting with a clean start discards each.
async fn discard_sessions(bench: &Bench, shape: Shape) -> Result<(), BenchError> {
    for number in 0..shape.subscribers {
        let identity = bench.identity('s', number);
        Client::open(&bench.target, &identity, &bench.stage).await?.close().await;
    }
    Ok(())
}

fn scenario(bench: &Bench, args: &PairArgs, shape: Shape) -> Scenario {
    Scenario {
        publishers: shape.publishers,
        subscribers: shape.subscribers,
        qos: Some(Qos::from(args.load.qos) as u8),
        payload_bytes: Some(args.load.payload),
        rate: Some(args.load.rate),
        durable: args.durable.durable,
        ..Scenario::new("pair", &bench.target)
    }
}
