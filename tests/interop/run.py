#!/usr/bin/env python3
"""Starts the broker and puts clients that others wrote through the cases of cases.py, over every transport.

    tests/interop/run.py --broker target/debug/causeway

Prints a table of client, version and transport against cases, and what went wrong. `.ci/run interop` installs
the clients first. Ends with 0 only if every case of every client passed that is not excused below.
"""

import argparse
import asyncio
import itertools
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
        "alias_down": "mosquitto_sub does not replace aliases by topics",
    },
    "paho-mqtt": {"alias_down": "paho-mqtt does not replace aliases by topics"},
    "aiomqtt": {"alias_down": "paho-mqtt does not replace aliases by topics"},
    "rumqttc": {"alias_down": "rumqttc shows messages before it has replaced aliases by topics"},
}
TRANSPORTS = {"mosquitto": ("tcp", "tls")}
VERSIONS = ("3.1.1", "5.0")


def drivers(given):
    """How each client is run."""
    tools = os.path.abspath(given.tools)
    python = os.path.join(tools, "venv", "bin", "python")
    return {
        "mosquitto": Mosquitto(),
        "paho-mqtt": Driver([python, os.path.join(HERE, "python", "paho_driver.py")]),
        "aiomqtt": Driver([python, os.path.join(HERE, "python", "aiomqtt_driver.py")]),
        "MQTT.js": Driver(
            ["node", os.path.join(HERE, "node", "driver.cjs")],
            {"NODE_PATH": os.path.join(tools, "node", "node_modules")},
        ),
        "rumqttc": Driver([given.rumqttc]),
    }


async def run_client(client, driver, places, wanted):
    """All cases of one client, one after the other."""
    results = []
    for version, (transport, place) in itertools.product(VERSIONS, places.items()):
        if transport not in TRANSPORTS.get(client, places):
            continue
        for name, case in cases.CASES.items():
            if wanted and name not in wanted or version != "5.0" and name in cases.V5_ONLY:
                continue
            world = cases.World(
                driver, {**place, "version": version}, f"{client}/{version}/{transport}/{name}"
            )
            row = {"client": client, "version": version, "transport": transport, "case": name}
            if excuse := CANNOT.get(client, {}).get(name):
                results.append({**row, "result": "cannot", "why": excuse})
            else:
                results.append({**row, **await run_case(case(world), world)})
    return results


async def run_pairs(running, places):
    """Each library receives over TCP what each other one publishes over the last of its transports."""
    results = []
    pairs = itertools.permutations(running.items(), 2)
    for ((client, driver), (other, publisher)), version in itertools.product(pairs, VERSIONS):
        name, place = f"from {other}", places[list(TRANSPORTS.get(other, places))[-1]]
        world = cases.World(driver, {**places["tcp"], "version": version}, f"{client}/{version}/tcp/{name}")
        publishers = [
            cases.World(publisher, {**place, "version": v}, f"{client}/{version}/{name}/{v}") for v in VERSIONS
        ]
        row = {"client": client, "version": version, "transport": "tcp", "case": name}
        results.append({**row, **await run_case(cases.across(world, publishers), world, *publishers)})
    return results


async def run_case(case, *worlds):
    started = time.monotonic()
    try:
        await asyncio.wait_for(case, CASE_SECONDS)
        result = {"result": "ok"}
    except Exception as error:
        result = {"result": "FAILED", "why": f"{type(error).__name__}: {error}"[:400]}
    for world in worlds:
        await world.close()
    return {**result, "ms": round((time.monotonic() - started) * 1000)}


async def run_all(broker, given):
    running = {
        client: driver
        for client, driver in drivers(given).items()
        if not given.client or client in given.client
    }
    for driver in running.values():
        await driver.start(broker.log)
    try:
        each = [run_client(client, driver, broker.places, given.case) for client, driver in running.items()]
        results = list(itertools.chain(*await asyncio.gather(*each)))
        return results + ([] if given.case else await run_pairs(running, broker.places))
    finally:
        for driver in running.values():
            await driver.stop()


def print_table(results):
    """A row for each case, a column for each client and transport. A cell has a place for each version."""
    transports = {}
    for result in results:
        transports.setdefault(result["client"], {})[result["transport"]] = None
    columns = [(client, transport) for client, those in transports.items() for transport in those]
    cells = {(r["case"], r["client"], r["transport"], r["version"]): r["result"] for r in results}
    print(" " * 20 + "".join(f"{client:<{6 * len(those)}}" for client, those in transports.items()))
    print(" " * 20 + "".join(f"{transport:<6}" for _, transport in columns))
    for case in dict.fromkeys(result["case"] for result in results):
        print(f"{case:<20}", end="")
        for client, transport in columns:
            print("".join(sign(cells.get((case, client, transport, v)), v) for v in VERSIONS), end="  ")
        print()
    print("3: passed in MQTT 3.1.1, 5: in MQTT 5.0, X: failed, -: the client cannot")
    excuses = [(r["client"], r["case"], r["why"]) for r in results if r["result"] == "cannot"]
    for client, case, why in dict.fromkeys(excuses):
        print(f"  -  {client}, {case}: {why}")
    for r in results:
        if r["result"] == "FAILED":
            print(f"  X  {r['client']} {r['version']} {r['transport']}, {r['case']}: {r['why']}")


def sign(result, version):
    return {"ok": version[0], "FAILED": "X", "cannot": "-", None: " "}[result] + " "


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    option = parser.add_argument
    option("--broker", default="target/debug/causeway", help="the binary (%(default)s)")
    option("--tools", default="target/interop", help="where clients are installed (%(default)s)")
    option("--rumqttc", default="target/debug/interop-rumqttc", help="the driver of rumqttc (%(default)s)")
    option("--client", action="append", help="only this client; may be repeated")
    option("--case", action="append", choices=cases.CASES, help="only this case; may be repeated")
    option("--json", action="store_true", help="print results as JSON and no table")
    given = parser.parse_args()
    for path in (given.broker, given.rumqttc, given.tools):
        if not os.path.exists(path):
            parser.error(f"{path} is missing; .ci/run interop builds and installs what is needed")
    return given


def main():
    given = arguments()
    broker = Broker(os.path.abspath(given.broker))
    try:
        results = asyncio.run(run_all(broker, given))
        code = broker.stop()
        failed = sum(result["result"] == "FAILED" for result in results)
        passed = sum(result["result"] == "ok" for result in results)
        if given.json:
            print(json.dumps(results, indent=1))
        else:
            print_table(results)
            print(f"{passed} passed, {failed} failed")
        if code != 0:
            print(f"the broker ended with {code}", file=sys.stderr)
        if failed or code:
            print(broker.said()[-20_000:], file=sys.stderr)
        return 0 if passed and not failed and code == 0 else 1
    finally:
        broker.close()


if __name__ == "__main__":
    sys.exit(main())
