#!/usr/bin/env python3
"""Starts the broker and puts clients that others wrote through the cases of cases.py, over every transport.

    tests/interop/run.py --broker target/debug/causeway

Prints a table of client, version and transport against cases, and what went wrong. `.ci/run interop` installs
the clients first. Ends with 0 only if every case of every client passed that is not excused below.
"""

import argparse
import asyncio
import json
import os
import sys
import time

import cases
from broker import Broker
from clients import Driver
from mosquitto import Mosquitto

HERE = os.path.dirname(os.path.abspath(__file__))
CASE_SECONDS = 40

ONE_SUBSCRIPTION = "mosquitto_sub subscribes once, when it starts"
# What a client has no way to do, and why.
CANNOT = {
    "mosquitto": {
        "unsubscribe": ONE_SUBSCRIPTION,
        "overlapping": ONE_SUBSCRIPTION,
        "retain_handling": ONE_SUBSCRIPTION,
        "takeover": "mosquitto_sub connects again and takes the session back",
        "no_local": "mosquitto_sub does not publish",
        "alias_up": "mosquitto_pub sends no message by its alias alone",
        "alias_down": "mosquitto_sub does not replace aliases by topics",
    },
    "paho-mqtt": {"alias_down": "paho-mqtt does not replace aliases by topics"},
    "aiomqtt": {"alias_down": "paho-mqtt does not replace aliases by topics"},
    "rumqttc": {"alias_down": "rumqttc shows messages before it has replaced aliases by topics"},
}
TRANSPORTS = {"mosquitto": ("tcp", "tls")}
VERSIONS = ("3.1.1", "5.0")


def drivers(arguments):
    """How each client is run."""
    tools = arguments.tools
    python = os.path.join(tools, "venv", "bin", "python")
    return {
        "mosquitto": Mosquitto(),
        "paho-mqtt": Driver([python, os.path.join(HERE, "python", "paho_driver.py")]),
        "aiomqtt": Driver([python, os.path.join(HERE, "python", "aiomqtt_driver.py")]),
        "MQTT.js": Driver(
            ["node", os.path.join(HERE, "node", "driver.cjs")],
            {"NODE_PATH": os.path.join(tools, "node", "node_modules")},
        ),
        "rumqttc": Driver([arguments.rumqttc]),
    }


async def run_client(client, driver, places, wanted):
    """All cases of one client, one after the other."""
    results = []
    await driver.start()
    try:
        for version in VERSIONS:
            for transport, place in places.items():
                if transport not in TRANSPORTS.get(client, places):
                    continue
                for name, case in cases.CASES.items():
                    if wanted and name not in wanted or version != "5.0" and name in cases.V5_ONLY:
                        continue
                    row = {"client": client, "version": version, "transport": transport, "case": name}
                    results.append({**row, **await run_case(client, driver, {**place, "version": version}, name, case)})
    finally:
        await driver.stop()
    return results


async def run_case(client, driver, place, name, case):
    if excuse := CANNOT.get(client, {}).get(name):
        return {"result": "cannot", "why": excuse}
    topic = "/".join([client, place["version"], place["transport"], name])
    world = cases.World(driver, place, topic)
    started = time.monotonic()
    try:
        await asyncio.wait_for(case(world), CASE_SECONDS)
        result = {"result": "ok"}
    except Exception as error:
        result = {"result": "FAILED", "why": f"{type(error).__name__}: {error}"}
    await world.close()
    return {**result, "ms": round((time.monotonic() - started) * 1000)}


async def run_all(places, arguments):
    running = [
        run_client(client, driver, places, arguments.case)
        for client, driver in drivers(arguments).items()
        if not arguments.client or client in arguments.client
    ]
    return [result for results in await asyncio.gather(*running) for result in results]


def print_table(results):
    """A row for each case, a column for each client and transport. A cell has a place for each version."""
    columns = list(dict.fromkeys((result["client"], result["transport"]) for result in results))
    cells = {(r["case"], r["client"], r["transport"], r["version"]): r["result"] for r in results}
    for number, title in enumerate(("client", "transport")):
        heads = [column[number] for column in columns]
        shown = [head if number == 1 or column[0] != before else "" for column, head, before in
                 zip(columns, heads, [None, *heads])]  # fmt: skip
        print(f"{title:<20}" + "".join(f"{head:<6}" for head in shown))
    for case in cases.CASES:
        if not any(result["case"] == case for result in results):
            continue
        signs = ["".join(sign(cells.get((case, *column, version)), version) for version in VERSIONS) for column in columns]
        print(f"{case:<20}" + "".join(f"{cell:<6}" for cell in signs))
    print("3: passed in MQTT 3.1.1, 5: in MQTT 5.0, X: failed, -: the client cannot")
    for result in unique(result for result in results if result["result"] == "cannot"):
        print(f"  -  {result[0]}, {result[1]}: {result[2]}")
    for result in results:
        if result["result"] == "FAILED":
            place = f"{result['client']} {result['version']} {result['transport']}"
            print(f"  X  {place}, {result['case']}: {result['why']}")


def sign(result, version):
    return {"ok": version[0], "FAILED": "X", "cannot": "-", None: " "}[result] + " "


def unique(results):
    return dict.fromkeys((result["client"], result["case"], result["why"]) for result in results)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--broker", default="target/debug/causeway", help="the binary (%(default)s)")
    parser.add_argument("--tools", default="target/interop", help="where the clients are installed (%(default)s)")
    rumqttc = "target/debug/interop-rumqttc"
    parser.add_argument("--rumqttc", default=rumqttc, help="the driver of rumqttc (%(default)s)")
    parser.add_argument("--client", action="append", help="only this client; may be repeated")
    parser.add_argument("--case", action="append", help="only this case; may be repeated")
    parser.add_argument("--json", action="store_true", help="print results as JSON and no table")
    arguments = parser.parse_args()
    arguments.tools = os.path.abspath(arguments.tools)
    for path in (arguments.broker, arguments.rumqttc, arguments.tools):
        if not os.path.exists(path):
            parser.error(f"{path} is missing; .ci/run interop builds and installs what is needed")
    broker = Broker(os.path.abspath(arguments.broker))
    try:
        results = asyncio.run(run_all(broker.places, arguments))
        code = broker.stop()
        failed = sum(result["result"] == "FAILED" for result in results)
        if arguments.json:
            print(json.dumps(results, indent=1))
        else:
            print_table(results)
            print(f"{sum(result['result'] == 'ok' for result in results)} passed, {failed} failed")
        if code != 0:
            print(f"the broker ended with {code}", file=sys.stderr)
        if failed or code:
            print(open(broker.log).read(), file=sys.stderr)
        return 1 if failed or code or not results else 0
    finally:
        broker.close()


if __name__ == "__main__":
    sys.exit(main())
