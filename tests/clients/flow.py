"""What an application relies on, seen through stock clients: each check by name. One line of JSON."""

import asyncio
import json
import os
import sys
import time

import socketio
from common import Clients, options, until

OPTS = options(__doc__, namespace="", only="")
WANTED = OPTS.transports.split(",")[-1]
# This client refuses a poll of more than 16 packets (engineio.payload.Payload.max_decode_packets).
BURST = 15 if WANTED == "polling" else 100
RUN = f"{os.getpid()}-{time.time_ns():x}"


def noise(count: int) -> bytes:
    """Bytes of all values, the same each time."""
    return bytes((i * 31 + (i >> 8)) & 255 for i in range(count))


def same(found, expected):
    """Fails, saying both, unless they are equal."""
    assert found == expected, f"got {found!r:.300}, expected {expected!r:.300}"


class Flow:
    """The checks; each one gets clients of its own."""

    def __init__(self):
        self.clients = Clients(OPTS)
        self.rooms = 0

    def room(self) -> str:
        self.rooms += 1
        return f"room-{RUN}-{self.rooms}"

    async def client(self, namespaces=("/",), auth=None, **more) -> socketio.AsyncClient:
        client = await self.clients.new(**more)
        client.got = {namespace: [] for namespace in namespaces}
        for namespace in namespaces:
            # One argument exactly: a handler of an application breaks if an offset comes along.
            client.on("message", lambda payload, got=client.got[namespace]: got.append(payload), namespace=namespace)
        return await self.clients.connect(client, namespaces=list(namespaces), auth=auth)

    async def echo(self, client, *args, namespace="/"):
        """Every argument comes back (as a tuple, if there are several)."""
        back = await client.call("echo", args, namespace=namespace, timeout=10)
        same(list(back) if len(args) > 1 else [back], list(args))

    async def join(self, client, room, namespace="/"):
        same(await client.call("join", room, namespace=namespace, timeout=10), "ok")

    async def publish(self, client, room, payload, namespace="/"):
        same(await client.call("publish", (room, payload), namespace=namespace, timeout=10), "ok")

    async def arrive(self, got, count):
        assert await until(lambda: len(got) >= count), f"{len(got)} of {count} messages came"

    async def nothing_else(self, client, expected, namespace="/"):
        """Proves without waiting that nothing else came: all goes through one order, so who has
        its own later message has everything that went before."""
        fence, got = self.room(), client.got[namespace]
        await self.join(client, fence, namespace)
        await self.publish(client, fence, "fence", namespace)
        await until(lambda: "fence" in got)
        same(got, [*expected, "fence"])

    async def check_connects_on_the_wanted_transport(self):
        client = await self.client()
        assert await until(lambda: client.transport() == WANTED), f"on {client.transport()}"
        assert client.get_sid("/") and client.get_sid("/") != client.eio.sid, "the Engine.IO id is public"

    async def check_ack_carries_every_argument(self):
        client = await self.client()
        await self.echo(client, 1, "two", {"three": [True, None, 1.5]})

    async def check_text_of_all_kinds_survives(self):
        client = await self.client()
        for text in ["", "\x1e", "a\x1eb4", "žluť 🐎 \u2028", '\0"\\', '42["x"]', "b64", "x" * 200_000]:
            await self.echo(client, text)

    async def check_binary_both_ways(self):
        client = await self.client()
        await self.echo(client, noise(3), {"deep": [{"bytes": noise(70_000)}, "x", noise(1)]}, b"")

    async def check_many_acks_at_once(self):
        client = await self.client()
        acks = await asyncio.gather(*(client.call("echo", i, timeout=10) for i in range(BURST)))
        same(acks, list(range(BURST)))

    async def check_a_room_gets_what_is_published_others_nothing(self):
        a, b, c = [await self.client() for _ in range(3)]
        room = self.room()
        await self.join(a, room)
        await self.join(b, room)
        await self.publish(c, room, {"hello": "room"})
        await self.arrive(a.got["/"], 1)
        await self.arrive(b.got["/"], 1)
        await self.publish(a, room, "own")
        await self.nothing_else(a, [{"hello": "room"}, "own"])
        await self.nothing_else(b, [{"hello": "room"}, "own"])
        await self.nothing_else(c, [])

    async def check_messages_keep_their_order(self):
        a, b = await self.client(), await self.client()
        room = self.room()
        await self.join(b, room)
        await asyncio.gather(*(self.publish(a, room, i) for i in range(BURST)))
        await self.arrive(b.got["/"], BURST)
        same(b.got["/"], list(range(BURST)))

    async def check_binary_goes_to_a_room(self):
        a, b = await self.client(), await self.client()
        room = self.room()
        await self.join(b, room)
        payloads = [{"file": noise(5000), "tags": [noise(2)]}, noise(4)]
        for payload in payloads:
            await self.publish(a, room, payload)
        await self.arrive(b.got["/"], 2)
        same(b.got["/"], payloads)

    async def check_who_left_a_room_gets_nothing_more(self):
        a, b = await self.client(), await self.client()
        room = self.room()
        await self.join(b, room)
        await self.publish(a, room, "before")
        await self.arrive(b.got["/"], 1)
        same(await b.call("leave", room, timeout=10), "ok")
        await self.publish(a, room, "after")
        await self.nothing_else(b, ["before"])

    async def check_a_second_namespace_over_the_same_connection(self):
        if not OPTS.namespace:
            return
        client = await self.client(namespaces=("/", OPTS.namespace))
        assert client.get_sid("/") != client.get_sid(OPTS.namespace), "one id in two namespaces"
        room = self.room()
        await self.join(client, room)
        await self.join(client, room, OPTS.namespace)
        await self.echo(client, noise(9), 1, namespace=OPTS.namespace)
        await self.publish(client, room, "main")
        await self.publish(client, room, "other", OPTS.namespace)
        await self.nothing_else(client, ["main"])
        await self.nothing_else(client, ["other"], OPTS.namespace)

    async def check_an_unknown_namespace_is_refused(self):
        try:
            client = await self.client(namespaces=("/no-such-namespace",))
        except socketio.exceptions.ConnectionError:
            return
        raise AssertionError(f"connected as {client.get_sid('/no-such-namespace')}")

    async def check_connect_may_carry_auth(self):
        client = await self.client(auth={"token": "123", "deep": {"a": [1]}})
        await self.echo(client, 1)

    async def check_an_unknown_event_is_acked_with_an_error_object(self):
        client = await self.client()
        answer = await client.call("no-such-event", 1, timeout=10)
        assert isinstance(answer, dict), f"got {answer!r}"
        await client.emit("no-such-event", 2)
        await self.echo(client, 1)

    async def check_comes_back_by_itself_after_the_server_closed(self):
        client = await self.client(reconnection=True, reconnection_delay=0.01, reconnection_delay_max=0.1)
        room, events = self.room(), []
        client.on("disconnect", lambda reason: events.append("disconnect"))
        client.on("connect", lambda: events.append("connect"))
        await self.join(client, room)
        await client.eio.send("7")  # no such Socket.IO packet type: the server must close
        if WANTED == "polling":  # this client takes a close packet as final, whichever worker serves it
            assert await until(lambda: events == ["disconnect"]), f"saw {events}"
            await self.clients.connect(client)
        assert await until(lambda: events == ["disconnect", "connect"]), f"saw {events}"
        await self.join(client, room)
        await self.publish(client, room, "again")
        await self.arrive(client.got["/"], 1)
        same(client.got["/"], ["again"])


async def main() -> bool:
    flow, passed, failed = Flow(), [], {}
    for name in [name for name in dir(flow) if name.startswith("check_") and OPTS.only in name]:
        title = name.removeprefix("check_").replace("_", " ")
        try:
            await asyncio.wait_for(getattr(flow, name)(), 60)
            passed.append(title)
        except Exception as error:  # noqa: BLE001 - every fault is reported by its check
            failed[title] = f"{type(error).__name__}: {error}"
        await flow.clients.close()
    print(json.dumps({"passed": passed, "failed": failed}))
    return bool(passed) and not failed


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
