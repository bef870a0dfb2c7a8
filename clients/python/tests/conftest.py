"""A Redis of each test's own, and a gateway that does what a worker does: it runs the same scripts, from the same files."""

from __future__ import annotations

import asyncio
import json
import pathlib
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyworker
import pytest
import pytest_asyncio
from anyworker._redis import Address, Blocking, Connection

SCRIPTS = pathlib.Path(__file__).parents[3] / "workers/store/scripts"
#: How long anything may take that is bound to happen (seconds).
PATIENCE = 10.0
P = "socketio:{app}:"
LINK = P + "link:1"


def script(*names: str) -> str:
    return "".join((SCRIPTS / f"{name}.lua").read_text() for name in names)


PUT = script("common", "app_common", "app_put")
WRITE = script("log_functions_begin", "common", "log", "log_functions_end", "app_common", "app_write", "append_end")
LOG = ["socketio:log:meta", "socketio:log", "socketio:log:sizes"]


class Gateway:
    """What a worker does: publishes the link, puts records, and reads the log."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.redis = Blocking(Address.parse(url))
        self.reader = Connection(Address.parse(url), timeout=15.0)
        self.batch = 0
        self.at = "0-0"
        self.entries: list[tuple[dict[str, Any], str, list[bytes]]] = []
        self.publish()

    def publish(self, **more: Any) -> None:
        fields = {
            "prefix": P, "version": 1, "partitions": 16, "lease_ms": 600, "attempts_max": 5, "dead_max": 100, "dedupe_ms": 60000,
            "log_meta": LOG[0], "log_entries_max": 100000, "log_bytes_max": 1 << 30, "log_channel": "socketio:log@0",
            "inbox": P + "inbox:", "keys_begin": json.dumps([P + "process", LINK]), "begin": script("app_common", "app_begin"),
            "keys_lease": json.dumps([P + "owner", P + "processes", LINK]), "lease": script("common", "app_common", "app_lease"),
            "keys_write": json.dumps([*LOG, LINK]), "write": WRITE,
            "keys_read": json.dumps([LINK]), "read": script("app_common", "app_read"), **more,
        }
        self.redis.call("HSET", LINK, *(word for pair in fields.items() for word in pair))

    def put(self, kind: str, to: int, sid: str, **fields: str | bytes) -> str:
        self.batch += 1
        pairs = [word for pair in fields.items() for word in pair]
        unit = [kind, to, sid, 60000, len(pairs), *pairs]
        said = self.redis.call("EVAL", PUT, 1, P + "batch:w", self.batch, P, 10000, 60000, 3600000, *unit)
        return str(said.decode().split(" ")[1])

    def connect(self, sid: str, nsp: str = "/", auth: Any = None, **environ: Any) -> None:
        told = {"path": "/socket.io/", "query": "EIO=4", "headers": [["Cookie", "who=me"]], "client": ["10.0.0.1", 5], **environ}
        fields = {} if auth is None else {"a": json.dumps(auth)}
        assert self.put("connect", 0, sid, n=nsp, e=json.dumps(told), **fields) == "o"

    def event(self, sid: str, *args: Any, nsp: str = "/", ack: int | None = None, **raw: bytes) -> None:
        fields = {} if ack is None else {"i": str(ack)}
        assert self.put("event", 0, sid, n=nsp, d=json.dumps(args), **fields, **raw) == "o"

    def leave(self, sid: str, reason: str = "client disconnect") -> str:
        return self.put("leave", 0, sid, d=reason)

    def pending(self) -> int:
        return int(self.redis.call("XLEN", P + "inbox:0"))

    async def next(self, count: int) -> list[tuple[str, str]]:
        """The next entries of the log: kind and text."""
        before = len(self.entries)
        async with asyncio.timeout(PATIENCE):
            while len(self.entries) < before + count:
                said = await self.reader.call("XREAD", "BLOCK", 5000, "STREAMS", LOG[1], self.at)
                for id, (_, lengths, _, data) in said[0][1] if said else ():
                    self.at = id.decode()
                    for length in map(int, lengths.decode().split(",")):
                        self._read(data[:length])
                        data = data[length:]
        assert len(self.entries) == before + count, self.entries[before:]
        return [(head["k"], text) for head, text, _ in self.entries[before:]]

    def _read(self, entry: bytes) -> None:
        head, _, rest = entry.partition(b"\n")
        header = json.loads(head)
        lengths = header.get("a", [])
        text, raw = rest[: len(rest) - sum(lengths)], rest[len(rest) - sum(lengths) :]
        attachments = []
        for length in lengths:
            attachments.append(raw[:length])
            raw = raw[length:]
        self.entries.append((header, text.decode(), attachments))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.005)


@pytest.fixture
def redis_url(tmp_path: pathlib.Path) -> Iterator[str]:
    path = tmp_path / "redis.sock"
    words = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    url = f"unix://{path}"
    try:
        while True:
            try:
                Blocking(Address.parse(url)).call("PING")
                break
            except ConnectionError:
                assert server.poll() is None
        yield url
    finally:
        server.kill()
        server.wait()


@pytest_asyncio.fixture
async def gateway(redis_url: str) -> AsyncIterator[Gateway]:
    made = Gateway(redis_url)
    yield made
    made.reader.close()


Make = Callable[..., anyworker.AsyncServer]


@pytest_asyncio.fixture
async def make(gateway: Gateway) -> AsyncIterator[Make]:
    """Makes processes of the application, more or less: each has a number and leases of its own."""
    made: list[anyworker.AsyncServer] = []

    def server(**options: Any) -> anyworker.AsyncServer:
        sio = anyworker.AsyncServer(async_mode="asgi", redis_url=gateway.url, **options)
        made.append(sio)
        return sio

    yield server
    for sio in made:
        await sio.drain(0.1)
