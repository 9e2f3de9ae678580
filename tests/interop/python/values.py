"""Properties of MQTT 5.0: the names of ../README.md, and the classes of paho-mqtt, which aiomqtt uses too."""

import base64

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

NAMES = {
    "content_type": "ContentType",
    "response_topic": "ResponseTopic",
    "message_expiry": "MessageExpiryInterval",
    "payload_format": "PayloadFormatIndicator",
    "topic_alias": "TopicAlias",
    "will_delay": "WillDelayInterval",
}


def properties(given, packet=PacketTypes.PUBLISH):
    """None where there is nothing to send."""
    if not given:
        return None
    made = Properties(packet)
    for name, value in given.items():
        if name == "correlation_data":
            made.CorrelationData = base64.b64decode(value)
        elif name == "user_properties":
            made.UserProperty = [tuple(pair) for pair in value]
        else:
            setattr(made, NAMES[name], value)
    return made


def connect_properties(options):
    if options["version"] != "5.0":
        return None
    made = Properties(PacketTypes.CONNECT)
    if options.get("session_expiry"):
        made.SessionExpiryInterval = options["session_expiry"]
    if options.get("receive_maximum"):
        made.ReceiveMaximum = options["receive_maximum"]
    return made


def subscribe_properties(subscription_id):
    if subscription_id is None:
        return None
    made = Properties(PacketTypes.SUBSCRIBE)
    made.SubscriptionIdentifier = subscription_id
    return made


def subscribe_options(qos, no_local, retain_as_published, retain_handling):
    return SubscribeOptions(
        qos=qos, noLocal=no_local, retainAsPublished=retain_as_published, retainHandling=retain_handling
    )


def message(got):
    """The event for a message of paho-mqtt or of aiomqtt."""
    return {
        "topic": str(got.topic),
        "payload": base64.b64encode(got.payload).decode(),
        "qos": got.qos,
        "retain": bool(got.retain),
        "properties": _received(got.properties) if got.properties else {},
    }


def _received(properties):
    # Only what was received is an attribute.
    shown = {
        name: getattr(properties, theirs) for name, theirs in NAMES.items() if hasattr(properties, theirs)
    }
    if hasattr(properties, "CorrelationData"):
        shown["correlation_data"] = base64.b64encode(properties.CorrelationData).decode()
    if hasattr(properties, "UserProperty"):
        shown["user_properties"] = properties.UserProperty
    if hasattr(properties, "SubscriptionIdentifier"):
        shown["subscription_ids"] = properties.SubscriptionIdentifier
    return shown
