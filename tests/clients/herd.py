"""N stock clients at once: connect, join, echo, and still there after a while. One line of JSON.

With `--until-closed` that while ends when standard input is closed.
"""

import asyncio
import collections
import json
import sys

from common import Clients, options, until

OPTS = options(__doc__, clients=200, hold_ms=3000, until_closed=False)
WANTED = OPTS.transports.split(",")[-1]


class Herd:
    """Counts what became of the clients."""

    def __init__(self):
        self.counts = collections.Counter()
        self.errors = collections.Counter()
        self.leaving = False
        self.closed = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read)) if OPTS.until_closed else None

    async def one(self, clients: Clients, number: int):
        try:
            client = await clients.new()
            client.on("disconnect", self.on_disconnect)
            await clients.connect(client)
            self.counts["connected"] += 1
            await self.life(client, number)
        except Exception as error:  # noqa: BLE001 - every fault is counted by its text
            self.errors[f"{type(error).__name__}: {error}"] += 1

    def on_disconnect(self, reason):
        if not self.leaving:
            self.errors[f"disconnect: {reason}"] += 1

    async def life(self, client, number: int):
        joined = await client.call("join", f"herd-{number}", timeout=10)
        assert joined == "ok", f"join: {joined!r}"
        first = await client.call("echo", f"first-{number}", timeout=10)
        assert first == f"first-{number}", f"echo: {first!r}"
        self.counts["acked"] += 1
        assert await until(lambda: client.transport() == WANTED), f"still on {client.transport()}"
        self.counts["carried"] += 1
        await (self.closed or asyncio.sleep(OPTS.hold_ms / 1000))
        assert client.connected, "not connected any more"
        last = await client.call("echo", number, timeout=10)
        assert last == number, f"last echo: {last!r}"
        self.counts["alive"] += 1


async def main() -> bool:
    clients, herd = Clients(OPTS), Herd()
    await asyncio.gather(*(herd.one(clients, number) for number in range(OPTS.clients)))
    herd.leaving = True
    await clients.close()
    counts = {name: herd.counts[name] for name in ("connected", "acked", "carried", "alive")}
    print(json.dumps({"clients": OPTS.clients, **counts, "errors": dict(herd.errors)}))
    return herd.counts["alive"] == OPTS.clients and not herd.errors


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
