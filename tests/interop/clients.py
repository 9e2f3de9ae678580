"""The clients that others wrote, as the cases see them: a driver process that speaks lines of JSON.

What a driver is asked and what it answers is in README.md. The clients of mosquitto are programs already and
have a driver of their own in mosquitto.py; it has the same methods.
"""

import asyncio
import base64
import json
import os

# How long a client may take for one step. Everything happens on this machine.
STEP_SECONDS = 10.0


class ClientError(Exception):
    """A client could not do what it was asked, or what it waited for did not come."""


class Refused(ClientError):
    """The broker refused the connection, for the reason code that the client shows."""

    def __init__(self, code):
        super().__init__(f"refused with {code}")
        self.code = code


class Message:
    """A message as a client shows it. `properties` has the names of README.md; absent ones are left out."""

    def __init__(self, topic, payload, qos, retain, properties):
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties


class Inbox:
    """What has arrived on one connection and was not asked for yet."""

    def __init__(self):
        self._messages = asyncio.Queue()
        self._closed = asyncio.get_running_loop().create_future()

    def put(self, message):
        self._messages.put_nowait(message)

    def close(self, reason):
        if not self._closed.done():
            self._closed.set_result(reason)

    async def receive(self):
        """The next message, in the order in which they came."""
        return await within("a message", self._messages.get())

    async def closed(self):
        """Waits until the broker has closed the connection; the reason code, where the client shows one."""
        return await within("the end of the connection", asyncio.shield(self._closed))


async def within(what, awaitable):
    """Awaits it for as long as a step may take."""
    try:
        return await asyncio.wait_for(awaitable, STEP_SECONDS)
    except asyncio.TimeoutError:
        raise ClientError(f"{what} did not come within {STEP_SECONDS:.0f} s") from None


class Driver:
    """A process in which connections of one client library live. It ends when its standard input does."""

    def __init__(self, command, environment=None):
        self._command = command
        self._environment = {**os.environ, **(environment or {})}
        self._answers = {}
        self._inboxes = {}
        self._last = 0

    async def start(self, log):
        """Starts it; what it says besides goes to the file `log`."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=self._environment,
            # A line holds a whole message.
            limit=16 << 20,
        )
        self._reader = asyncio.create_task(self._read())

    async def stop(self):
        """Closes its input, and ends it by force if that does not end it."""
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), STEP_SECONDS)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader

    async def connect(self, options):
        """A new connection; raises `Refused`."""
        self._last += 1
        on = f"c{self._last}"
        inbox = self._inboxes[on] = Inbox()
        answer = await self.ask("connect", on, options=options)
        return Connection(self, on, inbox, answer["session_present"])

    async def ask(self, what, on, **more):
        """One request and its answer."""
        if self._reader.done():
            raise ClientError("the client's process has ended")
        self._last += 1
        answer = self._answers[self._last] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": self._last, "do": what, "on": on, **more})
        self._process.stdin.write(line.encode() + b"\n")
        answer = await within(f"the answer to «{what}»", answer)
        if "refused" in answer:
            raise Refused(answer["refused"])
        if "error" in answer:
            raise ClientError(f"{what}: {answer['error']}")
        return answer["ok"]

    async def _read(self):
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            if "id" in said:
                waiting = self._answers.pop(said["id"])
                if not waiting.done():
                    waiting.set_result(said)
            elif "message" in said:
                self._inboxes[said["on"]].put(_message(said["message"]))
            else:
                self._inboxes[said["on"]].close(said["closed"])
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(ClientError("the client's process has ended"))


class Connection:
    """One MQTT connection of a driver."""

    def __init__(self, driver, on, inbox, session_present):
        self._driver = driver
        self._on = on
        self.session_present = session_present
        self.receive = inbox.receive
        self.closed = inbox.closed

    async def subscribe(self, filter, qos, **options):
        """The granted QoS, or the reason code of a refusal."""
        return (await self._driver.ask("subscribe", self._on, filter=filter, qos=qos, **options))["granted"]

    async def unsubscribe(self, filter):
        await self._driver.ask("unsubscribe", self._on, filter=filter)

    async def publish(self, topic, payload, qos=0, retain=False, properties=None):
        """Comes back when the message is acknowledged, with the reason code if the client shows it."""
        return await self.publish_all(topic, [payload], qos, retain, properties)

    async def publish_all(self, topic, payloads, qos=0, retain=False, properties=None):
        """Publishes them without waiting in between, then waits until all are acknowledged."""
        payloads = [base64.b64encode(payload).decode() for payload in payloads]
        return (
            await self._driver.ask(
                "publish",
                self._on,
                topic=topic,
                payloads=payloads,
                qos=qos,
                retain=retain,
                properties=properties or {},
            )
        )["reason"]

    async def publish_by_alias(self, topic, payloads):
        """Publishes with QoS 1, the first with topic and topic alias, the others with the alias alone."""
        for payload in payloads:
            await self.publish(topic, payload, 1, properties={"topic_alias": 1})
            topic = ""

    async def request(self, topic, payload, response_topic, properties=None):
        """Publishes a request and gives back the first response."""
        await self.subscribe(response_topic, 1)
        properties = {**properties, "response_topic": response_topic} if properties is not None else None
        await self.publish(topic, payload, 1, properties=properties)
        return await self.receive()

    async def disconnect(self):
        """Leaves with a DISCONNECT."""
        await self._driver.ask("disconnect", self._on)

    async def abort(self):
        """Leaves without one, as a client does that loses its network."""
        await self._driver.ask("abort", self._on)


def _message(said):
    return Message(
        said["topic"],
        base64.b64decode(said["payload"]),
        said["qos"],
        said["retain"],
        said.get("properties", {}),
    )
