"""A stock client over one transport, through a reload of the server and a cut of the network, told of each by its standard
input. One line of JSON for each step, the last one with what it found. For python-socketio 5.0 as well."""

import asyncio
import json
import os
import sys
import time

from common import Clients, options, until

OPTS = options(__doc__)
WANTED = OPTS.transports.split(",")[-1]
ROOM = f"through-{os.getpid()}-{time.time_ns():x}"


def say(step):
    print(json.dumps(step), flush=True)


class Through:
    def __init__(self, client):
        self.client = client
        self.connects = 0
        self.found = {"arguments": [], "got": [], "disconnects": 0, "recovered": False, "transports": []}
        client.on("connect", self.on_connect)
        client.on("disconnect", self.on_disconnect)
        client.on("message", self.on_message)

    def on_connect(self):
        self.connects += 1

    def on_disconnect(self, *_reason):
        self.found["disconnects"] += 1

    def on_message(self, *args):
        self.found["arguments"].append(len(args))
        self.found["got"].append(f"bytes:{len(args[0])}" if isinstance(args[0], bytes) else args[0])

    async def call(self, event, *args):
        return await self.client.call(event, args, timeout=10)

    async def works(self):
        """It has the transport that it wants, gets its acks, and sends and gets bytes."""
        assert await until(lambda: self.client.transport() == WANTED), f"by {self.client.transport()}"
        self.found["transports"].append(self.client.transport())
        sent = ["žluť", {"bytes": b"\x07" * 300}, b"\0\0\0"]
        back = await self.call("echo", *sent)
        assert list(back) == sent, f"echoed {back!r}"

    async def publish(self, *payloads):
        for payload in payloads:
            length = len(self.found["got"])
            await self.call("publish", ROOM, payload)
            assert await until(lambda length=length: len(self.found["got"]) > length), f"no {payload!r}, got {self.found}"

    async def enter(self):
        for name in ["all", ROOM]:
            await self.call("join", name)


async def main():
    clients = Clients(OPTS)
    client = await clients.new(reconnection=True, reconnection_delay=0.05, reconnection_delay_max=0.1)
    through = Through(client)
    # 5.0 knows no `wait_timeout` and does not wait for the namespace.
    await client.connect(OPTS.url, socketio_path=OPTS.path, transports=clients.transports, namespaces=["/"])
    assert await until(lambda: through.connects == 1), "no connect"
    await through.works()
    await through.enter()
    await through.publish("first", bytes(300))
    say("in")

    await asyncio.to_thread(sys.stdin.readline)
    await through.works()
    await through.publish("reloaded")
    say({"disconnects": through.found["disconnects"]})

    assert await until(lambda: through.found["disconnects"] == 1, 30), "no disconnect"
    say("cut")
    assert await until(lambda: through.connects == 2, 30), "no reconnect"
    await through.enter()
    await through.works()
    # All goes through one order: what came twice came before the last of these.
    await through.publish("last", "end")
    say(through.found)
    await clients.close()


if __name__ == "__main__":
    asyncio.run(main())
