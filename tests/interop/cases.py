"""What every client is put through. A case is a function; its name is its column in the table.

It gets a `World` to open connections in, and fails by raising. Nothing here waits for time to pass: that
nothing more arrives is shown by what is published afterwards and arrives first.
"""

import asyncio
import base64

from clients import Refused

V5_ONLY = set()
CASES = {}


class World:
    """One client, version and transport, and topics and client identifiers that no other case uses."""

    def __init__(self, driver, place, name):
        self._driver = driver
        self._place = place
        self._name = name
        self._open = []
        self.is_v5 = place["version"] == "5.0"

    def topic(self, rest="topic"):
        return f"{self._name}/{rest}"

    async def connect(self, id="client", clean=True, will=None, **more):
        """A connection of this case's client."""
        if will is not None:
            text = will.pop("text")
            will = {"retain": False, "qos": 1, **will, "text": text, "payload": encoded(text.encode())}
        options = {
            **self._place,
            "client_id": self.topic(id).replace("/", "-"),
            "clean": clean,
            "will": will,
            **more,
        }
        connection = await self._driver.connect(options)
        self._open.append(connection)
        return connection

    async def subscriber(self, *filters, qos=2, id="subscriber", **options):
        connection = await self.connect(id)
        for filter in filters:
            expect("granted QoS", await connection.subscribe(filter, qos, **options), qos)
        return connection

    async def publisher(self, id="publisher"):
        return await self.connect(id)

    async def close(self):
        """Leaves nothing behind, whatever the case has left open."""
        for connection in self._open:
            try:
                await connection.disconnect()
            except Exception:  # It may have been closed in the case.
                pass


def case(function):
    CASES[function.__name__] = function
    return function


def v5(function):
    V5_ONLY.add(function.__name__)
    return case(function)


def expect(what, got, wanted):
    if got != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, got {got!r}")


def encoded(data):
    return base64.b64encode(data).decode()


async def expect_message(connection, topic, payload, qos, retain=False):
    message = await connection.receive()
    expect("topic", message.topic, topic)
    expect("payload", message.payload, payload)
    expect("QoS", message.qos, qos)
    expect("retain", message.retain, retain)
    return message


async def each_qos(world, qos):
    """Publishes with one QoS to subscriptions of all three; the lower one counts."""
    publisher = await world.publisher()
    for granted in (0, 1, 2):
        topic = world.topic(f"granted{granted}")
        subscriber = await world.subscriber(topic, qos=granted, id=f"subscriber{granted}")
        for payload in (b"one", b"", b"\x00\xff\n\xc3\xa9"):
            await publisher.publish(topic, payload, qos)
            await expect_message(subscriber, topic, payload, min(qos, granted))


@case
async def qos0(world):
    await each_qos(world, 0)


@case
async def qos1(world):
    await each_qos(world, 1)


@case
async def qos2(world):
    await each_qos(world, 2)


@case
async def burst(world):
    """Many messages under way at once arrive once each and in order, also through a small window."""
    topic = world.topic()
    subscriber = await world.connect("subscriber", receive_maximum=3)
    await subscriber.subscribe(topic, 2)
    publisher = await world.publisher()
    for qos in (1, 2):
        payloads = [f"{qos}-{number}".encode() for number in range(200)]
        await publisher.publish_all(topic, payloads, qos)
        expect("messages", [(await subscriber.receive()).payload for _ in payloads], payloads)


@case
async def large(world):
    """A packet that takes many reads, and many WebSocket frames where the client makes them."""
    topic = world.topic()
    payload = bytes(range(256)) * 2000
    subscriber = await world.subscriber(topic)
    await (await world.publisher()).publish(topic, payload, 1)
    await expect_message(subscriber, topic, payload, 1)


@case
async def wildcards(world):
    plus = await world.subscriber(world.topic("+/b"), id="plus")
    hash = await world.subscriber(world.topic("#"), id="hash")
    publisher = await world.publisher()
    await publisher.publish(world.topic("a/c"), b"not for plus", 1)
    await publisher.publish(world.topic("a/b"), b"both", 1)
    await expect_message(hash, world.topic("a/c"), b"not for plus", 1)
    await expect_message(hash, world.topic("a/b"), b"both", 1)
    await expect_message(plus, world.topic("a/b"), b"both", 1)


@case
async def unsubscribe(world):
    dropped, kept = world.topic("dropped"), world.topic("kept")
    subscriber = await world.subscriber(dropped, kept)
    await subscriber.unsubscribe(dropped)
    publisher = await world.publisher()
    await publisher.publish(dropped, b"nobody wants it", 1)
    await publisher.publish(kept, b"wanted", 1)
    await expect_message(subscriber, kept, b"wanted", 1)


@case
async def retained(world):
    """Kept for those who come, not marked for those who were there, gone when cleared."""
    topic = world.topic()
    early = await world.subscriber(topic, id="early")
    publisher = await world.publisher()
    await publisher.publish(topic, b"kept", 1, retain=True)
    await expect_message(early, topic, b"kept", 1, retain=False)
    late = await world.subscriber(topic, id="late")
    await expect_message(late, topic, b"kept", 1, retain=True)
    await publisher.publish(topic, b"", 1, retain=True)
    last = await world.subscriber(topic, id="last")
    await publisher.publish(topic, b"live", 1)
    await expect_message(last, topic, b"live", 1, retain=False)


@case
async def will(world):
    """Published for a client that vanishes, not for one that says goodbye."""
    topic = world.topic("will")
    watcher = await world.subscriber(topic, id="watcher")
    polite = await world.connect("polite", will={"topic": topic, "text": "never"})
    await polite.disconnect()
    properties = (
        {"content_type": "text/plain", "user_properties": [["reason", "storm"]]} if world.is_v5 else {}
    )
    doomed = await world.connect(
        "doomed", will={"topic": topic, "text": "gone", "retain": True, "properties": properties}
    )
    await doomed.abort()
    message = await expect_message(watcher, topic, b"gone", 1)
    expect("properties of the will", {name: message.properties.get(name) for name in properties}, properties)
    late = await world.subscriber(topic, id="late")
    await expect_message(late, topic, b"gone", 1, retain=True)
    await (await world.publisher()).publish(topic, b"", 1, retain=True)


@v5
async def will_delay(world):
    """A client that is back before its will was due has sent none."""
    topic = world.topic("will")
    watcher = await world.subscriber(topic, id="watcher")
    for text in ("back in time", "gone"):
        will = {"topic": topic, "text": text, "properties": {"will_delay": 1}}
        doomed = await world.connect("doomed", clean=False, session_expiry=60, will=will)
        await doomed.abort()
    await expect_message(watcher, topic, b"gone", 1)


@case
async def session(world):
    """A session outlives its connection, however that ended, and gets what was published meanwhile, in order
    for each QoS: between them many clients show QoS 2 later, at its PUBREL."""
    topic = world.topic()
    durable = {"clean": False, "session_expiry": 300}
    subscriber = await world.connect("durable", **durable)
    expect("session present at first", subscriber.session_present or False, False)
    await subscriber.subscribe(topic, 2)
    publisher = await world.publisher()
    for leave in ("disconnect", "abort"):
        await getattr(subscriber, leave)()
        away = [(qos, f"{leave}-{number}".encode()) for number in range(3) for qos in (1, 2)]
        for qos, payload in away:
            await publisher.publish(topic, payload, qos)
        subscriber = await world.connect("durable", **durable)
        expect("session present", subscriber.session_present in (True, None), True)
        got = [await subscriber.receive() for _ in away]
        for qos in (1, 2):
            expect(f"QoS {qos}", [m.payload for m in got if m.qos == qos], [p for q, p in away if q == qos])
        await publisher.publish(topic, b"live", 1)
        await expect_message(subscriber, topic, b"live", 1)
    await subscriber.disconnect()
    await publisher.publish(topic, b"for a session that is given up", 1)
    await (await world.connect("durable")).disconnect()
    fresh = await world.connect("durable", session_expiry=0)
    expect("session present after a clean start", fresh.session_present or False, False)


@case
async def shared(world):
    """Each message goes to one member of the group, and to everyone who subscribes for himself."""
    topic, end = world.topic("work"), world.topic("end")
    members = [
        await world.subscriber(f"$share/group/{world.topic('#')}", id=f"member{number}") for number in (1, 2)
    ]
    alone = await world.subscriber(topic, id="alone")
    payloads = [str(number).encode() for number in range(20)]
    publisher = await world.publisher()
    await publisher.publish_all(topic, payloads, 1)
    expect(
        "messages of an ordinary subscription", [(await alone.receive()).payload for _ in payloads], payloads
    )
    got = await collect(members, len(payloads))
    expect("messages of the group", sorted(got), sorted((payload, 1) for payload in payloads))
    await publisher.publish(end, b"end", 1)
    expect("after the last", await collect(members, 1), [(b"end", 1)])


async def collect(connections, count):
    """Payload and QoS of the next messages on any of these connections."""
    got, waiting = [], {asyncio.ensure_future(one.receive()): one for one in connections}
    while len(got) < count:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            message = task.result()
            got.append((message.payload, message.qos))
            one = waiting.pop(task)
            waiting[asyncio.ensure_future(one.receive())] = one
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    return got


@case
async def request(world):
    """A request and its response, matched by their correlation data in MQTT 5.0."""
    questions, answers = world.topic("questions"), world.topic("answers")
    responder = await world.subscriber(questions, id="responder")
    asking = await world.connect("asking")
    known = {"correlation_data": encoded(b"42")} if world.is_v5 else {}
    answer = asyncio.ensure_future(
        asking.request(questions, b"depth?", answers, known if world.is_v5 else None)
    )
    question = await responder.receive()
    expect("question", question.payload, b"depth?")
    expect("response topic", question.properties.get("response_topic"), answers if world.is_v5 else None)
    back = {name: question.properties.get(name) for name in known}
    await (await world.publisher()).publish(answers, b"12 m", 1, properties=back)
    answer = await answer
    expect("answer", answer.payload, b"12 m")
    expect("correlation data", {name: answer.properties.get(name) for name in known}, known)


@case
async def takeover(world):
    """Who connects with the identifier of another takes its place, and the other is told."""
    first = await world.connect("same")
    second = await world.connect("same")
    reason = await first.closed()
    if world.is_v5 and reason is not None:
        expect("reason", reason, 0x8E)
    topic = world.topic()
    await second.subscribe(topic, 1)
    await second.publish(topic, b"mine", 1)
    await expect_message(second, topic, b"mine", 1)


@case
async def login(world):
    """A password that is right and one that is not."""
    await (await world.connect("right", username="skipper", password="rowboat")).disconnect()
    try:
        await world.connect("wrong", username="skipper", password="sunk")
    except Refused as refused:
        # Some clients show the code of MQTT 3.1.1 as that of 5.0.
        known = (0x86,) if world.is_v5 else (4, 0x86)
        expect("reason", refused.code if refused.code not in known else known[0], known[0])
    else:
        raise AssertionError("a wrong password was let in")


PROPERTIES = {
    "content_type": "application/json",
    "response_topic": "answers/here",
    "correlation_data": encoded(b"four words of data"),
    "user_properties": [["key", "first"], ["key", "second"], ["other", "\N{SAILBOAT}"]],
    "payload_format": 1,
}


@v5
async def properties(world):
    """Everything a publisher says about a message arrives as it was said; expiry counts down."""
    topic = world.topic()
    subscriber = await world.subscriber(topic)
    publisher = await world.publisher()
    for qos in (0, 1, 2):
        await publisher.publish(topic, b"{}", qos, properties={**PROPERTIES, "message_expiry": 100})
        message = await expect_message(subscriber, topic, b"{}", qos)
        expiry = message.properties.pop("message_expiry", None)
        expect("message expiry", expiry in range(90, 101), True)
        expect("properties", message.properties, PROPERTIES)


@v5
async def subscription_id(world):
    """Shows which subscription a message comes by, also one that is kept or retained."""
    topic = world.topic()
    publisher = await world.publisher()
    await publisher.publish(topic, b"kept", 1, retain=True)
    subscriber = await world.connect("subscriber")
    await subscriber.subscribe(topic, 2, subscription_id=268_435_455)
    message = await expect_message(subscriber, topic, b"kept", 1, retain=True)
    expect("identifiers", message.properties.get("subscription_ids"), [268_435_455])
    await publisher.publish(topic, b"", 2, retain=True)
    message = await expect_message(subscriber, topic, b"", 2)
    expect("identifiers", message.properties.get("subscription_ids"), [268_435_455])


@v5
async def overlapping(world):
    """Two subscriptions that both match: one copy with both identifiers."""
    topic = world.topic()
    subscriber = await world.connect("subscriber")
    await subscriber.subscribe(topic, 1, subscription_id=1)
    await subscriber.subscribe(world.topic("#"), 2, subscription_id=2)
    publisher = await world.publisher()
    await publisher.publish(topic, b"once", 2)
    message = await expect_message(subscriber, topic, b"once", 2)
    expect("identifiers", sorted(message.properties.get("subscription_ids", [])), [1, 2])
    await publisher.publish(topic, b"next", 1)
    await expect_message(subscriber, topic, b"next", 1)


@v5
async def alias_up(world):
    """The client names a topic by its alias."""
    topic = world.topic()
    subscriber = await world.subscriber(topic)
    publisher = await world.publisher()
    await publisher.publish_by_alias(topic, [b"name and alias", b"alias", b"again"])
    await expect_message(subscriber, topic, b"name and alias", 1)
    await expect_message(subscriber, topic, b"alias", 1)
    await expect_message(subscriber, topic, b"again", 1)


@v5
async def alias_down(world):
    """A client that allows the broker topic aliases shows the topic of every message."""
    topics = [world.topic(f"t{number}") for number in range(4)]
    subscriber = await world.connect("subscriber", topic_alias_maximum=2)
    await subscriber.subscribe(world.topic("#"), 1)
    publisher = await world.publisher()
    for round in (b"first", b"second", b"third"):
        for topic in topics:
            await publisher.publish(topic, round, 1)
            await expect_message(subscriber, topic, round, 1)


@v5
async def no_local(world):
    """A subscription that does not want its own client's messages."""
    topic = world.topic()
    both = await world.connect("both")
    await both.subscribe(topic, 1, no_local=True)
    await both.publish(topic, b"mine", 1)
    await (await world.publisher()).publish(topic, b"another's", 1)
    await expect_message(both, topic, b"another's", 1)


@v5
async def retain_as_published(world):
    """A subscription that wants the retain flag as the publisher set it."""
    topic = world.topic()
    subscriber = await world.subscriber(topic, retain_as_published=True)
    publisher = await world.publisher()
    await publisher.publish(topic, b"kept", 1, retain=True)
    await expect_message(subscriber, topic, b"kept", 1, retain=True)
    await publisher.publish(topic, b"", 1, retain=True)


@v5
async def retain_handling(world):
    """A subscription that wants retained messages never, or only when it is new."""
    topic = world.topic()
    publisher = await world.publisher()
    await publisher.publish(topic, b"kept", 1, retain=True)
    never = await world.subscriber(topic, id="never", retain_handling=2)
    once = await world.subscriber(topic, id="once", retain_handling=1)
    await expect_message(once, topic, b"kept", 1, retain=True)
    await once.subscribe(topic, 1, retain_handling=1)
    await publisher.publish(topic, b"", 1, retain=True)
    await expect_message(never, topic, b"", 1)
    await expect_message(once, topic, b"", 1)


@v5
async def unheard(world):
    """A message that nobody wants is acknowledged with 0x10, and no client takes that for a failure."""
    publisher = await world.publisher()
    reason = await publisher.publish(world.topic(), b"hello?", 1)
    expect("reason", reason in (0x10, None), True)
    await publisher.publish(world.topic(), b"hello?", 2)


async def across(world, publishers):
    """What one library publishes, in either version, another one receives."""
    topic = world.topic()
    subscriber = await world.subscriber(topic)
    for publishing in publishers:
        publisher = await publishing.publisher(f"publisher-{publishing.is_v5}")
        sent = PROPERTIES if publishing.is_v5 else {}
        for qos in (0, 1, 2):
            await publisher.publish(topic, b"{}", qos, properties=sent)
            message = await expect_message(subscriber, topic, b"{}", qos)
            expect("properties", message.properties, sent if world.is_v5 else {})
