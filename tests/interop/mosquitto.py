"""The clients of mosquitto, each a program: mosquitto_sub receives, mosquitto_pub publishes, mosquitto_rr asks.

A connection here is a client identifier and how to connect; a program runs for it while something is
subscribed to or a will is to be kept. It has the methods of `clients.Driver` and `clients.Connection`.
"""

import asyncio
import base64
import re

from clients import ClientError, Inbox, Message, Refused, within

# What mosquitto_sub prints for a message; the parts are separated by what no test puts into them.
FORMAT = "|".join(["message", "%t", "%q", "%r", "%x", "%C", "%D", "%E", "%F", "%P", "%R", "%S"])
VERSIONS = {"3.1.1": "311", "5.0": "5"}
PROPERTIES = {
    "content_type": "content-type",
    "response_topic": "response-topic",
    "message_expiry": "message-expiry-interval",
    "payload_format": "payload-format-indicator",
    "topic_alias": "topic-alias",
    "will_delay": "will-delay-interval",
}


class Mosquitto:
    def __init__(self):
        # By client identifier: what a session that is kept has subscribed to.
        self.sessions = {}
        self.started = []

    async def start(self, _log):
        pass

    async def stop(self):
        for process in self.started:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def connect(self, options):
        connection = Connection(self, options)
        filters = self.sessions.get(options["client_id"]) if not options["clean"] else None
        if filters or options.get("will"):
            await connection.start(filters or [connection.idle])
        elif options.get("username"):
            # Nothing else would show whether it is let in.
            await connection.publish(connection.idle, b"")
        return connection


class Connection:
    def __init__(self, owner, options):
        self._owner = owner
        self._options = options
        self._is_v5 = options["version"] == "5.0"
        self._process = None
        self._inbox = Inbox()
        self.id = options["client_id"]
        # For a program that needs a topic and not its messages.
        self.idle = f"{self.id}/idle"
        # mosquitto_sub does not show the flag.
        self.session_present = None
        self.receive = self._inbox.receive

    async def start(self, filters, qos=2, more=()):
        """Starts mosquitto_sub and waits for its SUBACK."""
        command = ["stdbuf", "-oL", "mosquitto_sub", *self._address(), *self._session()]
        command += ["-i", self.id, "-d", "-F", FORMAT, "-q", str(qos), *more]
        for filter in filters:
            command += ["-t", filter]
        self._process = await self._run(command)
        self._granted = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read())
        return await within("SUBACK", self._granted)

    async def subscribe(self, filter, qos, subscription_id=None, retain_as_published=False):
        more = ["--retain-as-published"] if retain_as_published else []
        if subscription_id is not None:
            more += ["-D", "subscribe", "subscription-identifier", str(subscription_id)]
        if not self._options["clean"]:
            self._owner.sessions[self.id] = [filter]
        if self._process is not None:
            raise ClientError("mosquitto_sub subscribes once, when it starts")
        return await self.start([filter], qos, more)

    async def publish(self, topic, payload, qos=0, retain=False, properties=None):
        source = "-s" if payload else "-n"
        command = ["mosquitto_pub", *self._publishing(topic, qos, retain, properties), source]
        return await self._publish(command, payload)

    async def publish_all(self, topic, payloads, qos=0, retain=False, properties=None):
        command = ["mosquitto_pub", *self._publishing(topic, qos, retain, properties), "-l"]
        return await self._publish(command, b"".join(payload + b"\n" for payload in payloads))

    async def publish_by_alias(self, topic, payloads):
        # With an alias it names the topic once.
        return await self.publish_all(topic, payloads, 1, properties={"topic_alias": 1})

    async def request(self, topic, payload, response_topic, properties=None):
        command = ["mosquitto_rr", *self._publishing(topic, 1, False, properties), "-e", response_topic]
        process = await self._run([*command, "-F", FORMAT, "-m", payload.decode()])
        output, _ = await within("the response", process.communicate())
        return _message(output.decode().strip())

    async def disconnect(self):
        """mosquitto_sub sends DISCONNECT when a signal ends it, in MQTT 5.0 one that asks for the will; with
        the last message it was to get it sends one that does not."""
        if self._process is None:
            return
        if self._options.get("will"):
            await self.publish(self.idle, b"", 1)
        else:
            self._process.terminate()
        await self._ended()

    async def abort(self):
        self._process.kill()
        await self._ended()

    async def _ended(self):
        await within("the end of mosquitto_sub", self._process.wait())
        await self._reader
        self._process = None

    async def _publish(self, command, input):
        process = await self._run(command, asyncio.subprocess.PIPE)
        output, _ = await within("the end of mosquitto_pub", process.communicate(input))
        output = output.decode()
        if refused := re.search(r"received CONNACK \(([1-9]\d*)\)", output):
            raise Refused(int(refused[1]))
        if process.returncode != 0:
            raise ClientError(f"mosquitto_pub ended with {process.returncode}: {output}")
        reasons = re.findall(r"received PUB(?:ACK|COMP) \(Mid: \d+, RC:(\d+)\)", output)
        return max(map(int, reasons), default=0)

    async def _run(self, command, input=asyncio.subprocess.DEVNULL):
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=input,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=16 << 20,
        )
        self._owner.started.append(process)
        return process

    async def _read(self):
        while line := await self._process.stdout.readline():
            line = line.decode().rstrip("\n")
            if granted := re.match(r"Subscribed \(mid: \d+\): (\d+)", line):
                if not self._granted.done():
                    self._granted.set_result(int(granted[1]))
            elif line.startswith("message|"):
                self._inbox.put(_message(line))
        if not self._granted.done():
            self._granted.set_exception(ClientError("mosquitto_sub has ended"))

    def _address(self):
        options = self._options
        address = ["-V", VERSIONS[options["version"]], "-h", options["host"], "-p", str(options["port"])]
        if options["transport"] == "tls":
            address += ["--cafile", options["ca"]]
        if options.get("username"):
            address += ["-u", options["username"], "-P", options["password"]]
        return address

    def _session(self):
        options, more = self._options, []
        if not options["clean"]:
            more += ["-c"]
        if self._is_v5 and options.get("session_expiry"):
            more += ["-x", str(options["session_expiry"])]
        if self._is_v5 and options.get("receive_maximum"):
            more += ["-D", "connect", "receive-maximum", str(options["receive_maximum"])]
        if will := options.get("will"):
            more += ["-C", "1", "--will-topic", will["topic"], "--will-qos", str(will["qos"])]
            more += ["--will-payload", will["text"]] + (["--will-retain"] if will["retain"] else [])
            more += _properties("will", will.get("properties"))
        return more

    def _publishing(self, topic, qos, retain, properties):
        more = [*self._address(), "-d", "-t", topic, "-q", str(qos), *_properties("publish", properties)]
        return more + (["-r"] if retain else [])


def _properties(packet, given):
    more = []
    for name, value in (given or {}).items():
        if name == "user_properties":
            for pair in value:
                more += ["-D", packet, "user-property", *pair]
        elif name == "correlation_data":
            more += ["-D", packet, "correlation-data", base64.b64decode(value).decode()]
        else:
            more += ["-D", packet, PROPERTIES[name], str(value)]
    return more


def _message(line):
    parts = line.split("|")[1:]
    if len(parts) != 11:
        raise ClientError(f"not a message: {line}")
    topic, qos, retain, payload, *rest = parts
    content_type, correlation, expiry, format, user, response, ids = rest
    properties = {"content_type": content_type, "response_topic": response}
    properties = {name: value for name, value in properties.items() if value}
    if correlation:
        properties["correlation_data"] = base64.b64encode(correlation.encode()).decode()
    if expiry:
        properties["message_expiry"] = int(expiry)
    if format:
        properties["payload_format"] = int(format)
    if user:
        properties["user_properties"] = [pair.split(":", 1) for pair in user.split(" ")]
    if ids:
        properties["subscription_ids"] = [int(id) for id in ids.split(" ")]
    return Message(topic, bytes.fromhex(payload), int(qos), retain == "1", properties)
