//! The user name of a publisher is in the messages that a route takes, and in no others.

use super::*;
use crate::config::RouteConfig;
use crate::topic::TopicFilter;

impl World {
    fn route_from_a(&self) -> Arc<Route> {
        let config = RouteConfig { queue: LIMITS.queue, ..RouteConfig::new("r", "a", "t") };
        let topics = vec![TopicFilter::parse("a", 9).unwrap()];
        self.broker.add_route(&config, RouteFilters { topics, exclude: Vec::new() }).unwrap()
    }

    fn publish_as(&self, user_name: &str, client: &Client, retain: bool) {
        let publish = Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain,
            topic: "a",
            packet_id: PacketId::new(1),
            properties: PublishProperties::default(),
            payload: b"x",
        };
        let (slot, rights) = (&client.attachment.slot, self.rights());
        let source = Source { slot, durable: None, rights: &rights, user_name: Some(user_name) };
        let topic = TopicName::parse("a", 10).unwrap();
        let now = self.broker.clock.now();
        self.broker.publish(&mut PublishContext::default(), &source, &publish, &topic, now);
    }

    /// Who published what this one is owed, each with its user name.
    async fn publishers(&self, recipient: RecipientNo) -> Vec<(String, Option<String>)> {
        let store = &self.broker.store;
        let last = store.submit(Default::default()).unwrap().lsn;
        store.durable(last).await.unwrap();
        let page = store.read_after(recipient, (Lsn::ZERO, last), 10, |_| false).unwrap();
        let of = |message: &Message| (message.publisher().to_owned(), message.user_name().map(str::to_owned));
        page.messages.iter().map(|stored| of(&stored.message)).collect()
    }
}

#[tokio::test]
async fn a_route_knows_who_published_a_session_does_not() {
    let world = World::new();
    let (publisher, subscriber) = (world.live("pump").await, world.attach("subscriber").await);
    world.subscribe(&subscriber, "a");
    let session = subscriber.attachment.slot.durable().unwrap().recipient;
    world.publish_as("ada", &publisher, false);
    assert_eq!(world.publishers(session).await, [("pump".to_owned(), None)]);

    let route = world.route_from_a();
    world.publish_as("ada", &publisher, false);
    world.publish_as("bob", &publisher, true);
    let mut touched = Touched::default();
    let will = retained_message(UnixMillis::NEVER);
    assert!(world.broker.route_will(will, Some("eve".into()), Vec::new(), &mut touched));
    let names: Vec<_> =
        world.publishers(route.recipient).await.into_iter().map(|(_, name)| name.unwrap()).collect();
    assert_eq!(names, ["ada", "bob", "eve"]);
    let topic = TopicName::parse("a", 10).unwrap();
    assert_eq!(world.broker.retained.get(&topic).unwrap().message.payload(), b"x");
}
