"""aiomqtt: an asyncio client on top of paho-mqtt's protocol code."""

import asyncio
import base64
import socket
import ssl

import aiomqtt
import values
from lines import Refused, serve
from paho.mqtt.packettypes import PacketTypes


class Connection:
    def __init__(self, options, say):
        self._say = say
        self._is_v5 = options["version"] == "5.0"
        self._client = _client(options)
        # A burst of messages is meant, and not worth a warning.
        self._client.pending_calls_threshold = 1000
        self._reading = None

    async def connect(self):
        try:
            await self._client.__aenter__()
        except aiomqtt.exceptions.MqttConnectError as error:
            raise Refused(_code(error.rc)) from None
        self._reading = asyncio.create_task(self._read())
        # aiomqtt does not show the flag.
        return {"session_present": None}

    async def _read(self):
        try:
            async for message in self._client.messages:
                self._say(message=values.message(message))
        except aiomqtt.MqttError as error:
            self._say(closed=_code(getattr(error.__cause__, "rc", None)))

    async def subscribe(
        self, filter, qos, subscription_id=None, no_local=False, retain_as_published=False, retain_handling=0
    ):
        if self._is_v5:
            granted = await self._client.subscribe(
                filter,
                options=values.subscribe_options(qos, no_local, retain_as_published, retain_handling),
                properties=values.subscribe_properties(subscription_id),
            )
        else:
            granted = await self._client.subscribe(filter, qos)
        return {"granted": _code(granted[0])}

    async def unsubscribe(self, filter):
        await self._client.unsubscribe(filter)

    async def publish(self, topic, payloads, qos, retain, properties):
        made = values.properties(properties)
        payloads = [base64.b64decode(payload) for payload in payloads]
        await asyncio.gather(
            *(self._client.publish(topic, payload, qos, retain, made) for payload in payloads)
        )
        # aiomqtt does not show reason codes of what was published.
        return {"reason": None}

    async def disconnect(self):
        self._reading.cancel()
        await self._client.__aexit__(None, None, None)

    async def abort(self):
        connection = self._client._client.socket()
        getattr(connection, "_socket", connection).shutdown(socket.SHUT_RDWR)
        await self._reading


def _client(options):
    is_v5 = options["version"] == "5.0"
    transport = options["transport"]
    will = options.get("will")
    return aiomqtt.Client(
        options["host"],
        options["port"],
        identifier=options["client_id"],
        username=options.get("username"),
        password=options.get("password"),
        protocol=aiomqtt.ProtocolVersion.V5 if is_v5 else aiomqtt.ProtocolVersion.V311,
        clean_session=None if is_v5 else options["clean"],
        **({"clean_start": options["clean"]} if is_v5 else {}),
        properties=values.connect_properties(options),
        transport="websockets" if transport in ("ws", "wss") else "tcp",
        websocket_path=options["path"] if transport in ("ws", "wss") else None,
        tls_context=ssl.create_default_context(cafile=options["ca"]) if transport in ("tls", "wss") else None,
        will=will
        and aiomqtt.Will(
            will["topic"],
            base64.b64decode(will["payload"]),
            will["qos"],
            will["retain"],
            values.properties(will.get("properties"), PacketTypes.WILLMESSAGE),
        ),
    )


def _code(reason):
    """A reason code is a number in MQTT 3.1.1 and a class of paho-mqtt in 5.0."""
    return getattr(reason, "value", reason)


asyncio.run(serve(Connection))
