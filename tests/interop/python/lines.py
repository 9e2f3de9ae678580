"""The side of a driver that is the same for every Python client: requests in, answers and events out.

See ../README.md for the lines.
"""

import asyncio
import json
import sys
import traceback


class Refused(Exception):
    """The broker refused the connection, with this reason code."""

    def __init__(self, code):
        super().__init__(f"refused with {code}")
        self.code = code


def say(**what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def serve(connection):
    """Serves requests until standard input ends. `connection(options, say)` makes an object whose methods are
    named as the requests; its `say` sends events."""
    connections, running = {}, set()
    reader = asyncio.StreamReader(limit=16 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        request = json.loads(line)
        task = asyncio.create_task(_answer(connection, connections, request))
        running.add(task)
        task.add_done_callback(running.discard)


async def _answer(connection, connections, request):
    number, what, on = request.pop("id"), request.pop("do"), request.pop("on")
    try:
        if what == "connect":
            connections[on] = connection(request["options"], lambda **event: say(on=on, **event))
            request = {}
        say(id=number, ok=await getattr(connections[on], what)(**request) or {})
    except Refused as refused:
        say(id=number, refused=refused.code)
    except Exception as error:
        traceback.print_exc()
        say(id=number, error=f"{type(error).__name__}: {error}")
