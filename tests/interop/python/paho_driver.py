"""paho-mqtt: callbacks from its own thread, handed to the event loop."""

import asyncio
import base64
import socket
import ssl

import paho.mqtt.client as mqtt
import values
from lines import Refused, serve
from paho.mqtt.packettypes import PacketTypes


class Connection:
    def __init__(self, options, say):
        self._options = options
        self._say = say
        self._is_v5 = options["version"] == "5.0"
        self._loop = asyncio.get_running_loop()
        self._connected = self._loop.create_future()
        self._closed = self._loop.create_future()
        # By packet identifier: the callback may come before `publish` has returned it.
        self._done = {}
        self._client = self._make()

    def _make(self):
        options = self._options
        client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=options["client_id"],
            clean_session=None if self._is_v5 else options["clean"],
            protocol=mqtt.MQTTv5 if self._is_v5 else mqtt.MQTTv311,
            transport="websockets" if options["transport"] in ("ws", "wss") else "tcp",
            reconnect_on_failure=False,
        )
        if options["transport"] in ("tls", "wss"):
            client.tls_set_context(ssl.create_default_context(cafile=options["ca"]))
        if options["transport"] in ("ws", "wss"):
            client.ws_set_options(path=options["path"])
        if options.get("username"):
            client.username_pw_set(options["username"], options["password"])
        if will := options.get("will"):
            properties = values.properties(will.get("properties"), PacketTypes.WILLMESSAGE)
            client.will_set(
                will["topic"], base64.b64decode(will["payload"]), will["qos"], will["retain"], properties
            )
        client.on_connect = lambda _c, _u, flags, reason, _p: self._later(self._on_connect, flags, reason)
        client.on_disconnect = lambda _c, _u, _f, reason, _p: self._later(self._on_disconnect, reason)
        client.on_message = lambda _c, _u, message: self._later(self._on_message, message)
        client.on_publish = lambda _c, _u, mid, reason, _p: self._later(self._on_done, mid, reason.value)
        client.on_subscribe = lambda _c, _u, mid, reasons, _p: self._later(
            self._on_done, mid, reasons[0].value
        )
        client.on_unsubscribe = lambda _c, _u, mid, _r, _p: self._later(self._on_done, mid, 0)
        return client

    def _later(self, call, *arguments):
        self._loop.call_soon_threadsafe(call, *arguments)

    def _on_connect(self, flags, reason):
        if not self._connected.done():
            self._connected.set_result((flags.session_present, reason))

    def _on_disconnect(self, reason):
        if not self._closed.done():
            self._closed.set_result(reason.value)
            self._say(closed=reason.value)

    def _on_message(self, message):
        self._say(message=values.message(message))

    def _on_done(self, mid, reason):
        self._waiting(mid).set_result(reason)

    def _waiting(self, mid):
        return self._done.setdefault(mid, self._loop.create_future())

    async def _until_done(self, mid):
        reason = await self._waiting(mid)
        del self._done[mid]
        return reason

    async def connect(self):
        options = self._options
        more = {"clean_start": options["clean"]} if self._is_v5 else {}
        self._client.connect_async(
            options["host"], options["port"], 30, properties=values.connect_properties(options), **more
        )
        self._client.loop_start()
        session_present, reason = await self._connected
        if reason.is_failure:
            raise Refused(reason.value)
        return {"session_present": session_present}

    async def subscribe(
        self, filter, qos, subscription_id=None, no_local=False, retain_as_published=False, retain_handling=0
    ):
        if self._is_v5:
            options = values.subscribe_options(qos, no_local, retain_as_published, retain_handling)
            _, mid = self._client.subscribe(
                filter, options=options, properties=values.subscribe_properties(subscription_id)
            )
        else:
            _, mid = self._client.subscribe(filter, qos)
        return {"granted": await self._until_done(mid)}

    async def unsubscribe(self, filter):
        _, mid = self._client.unsubscribe(filter)
        await self._until_done(mid)

    async def publish(self, topic, payloads, qos, retain, properties):
        made = values.properties(properties)
        payloads = [base64.b64decode(payload) for payload in payloads]
        sent = [self._client.publish(topic, payload, qos, retain, made).mid for payload in payloads]
        return {"reason": max([await self._until_done(mid) for mid in sent])}

    async def disconnect(self):
        self._client.disconnect()
        await self._closed
        self._client.loop_stop()

    async def abort(self):
        connection = self._client.socket()
        # Below paho's own WebSocket there is the socket.
        getattr(connection, "_socket", connection).shutdown(socket.SHUT_RDWR)
        await self._closed
        self._client.loop_stop()


asyncio.run(serve(Connection))
