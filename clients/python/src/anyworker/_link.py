"""The link to the workers: what they have published, this process' place among the others, and what it writes back."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import json
import logging
import os
import secrets
import socket
import threading
from typing import Any

from ._redis import Address, Blocking, Connection, RedisError, RedisGone

log = logging.getLogger("anyworker")

#: Versions of the protocol that this package speaks, newest first.
VERSIONS = (1,)
#: Operations of one batch: Redis serves nothing else meanwhile.
BATCH_MAX = 256
#: First pause before a batch is tried again, and the longest (seconds).
RETRY_MIN, RETRY_MAX = 0.05, 1.0


class LinkError(Exception):
    """There is no gateway, or one that speaks another version."""


class Fenced(asyncio.CancelledError):
    """Another process owns this client now: what the handler still wants to do is not done."""


class Terms:
    """What the workers have published: scripts, the keys these need, and figures."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.inbox = fields["inbox"]
        self.lease = int(fields["lease_ms"]) / 1000
        self.attempts_max = int(fields["attempts_max"])
        self._scripts: dict[str, tuple[str, str, list[str]]] = {}
        for name in ("begin", "lease", "write", "read"):
            body = fields[name]
            # SHA-1 is how Redis names a script, not a protection.
            digest = hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest()
            self._scripts[name] = (digest, body, json.loads(fields["keys_" + name]))

    def command(self, name: str, args: tuple[Any, ...], *, whole: bool = False) -> tuple[Any, ...]:
        """The command that runs a script; ``whole`` for a Redis that does not know it (it was restarted)."""
        digest, body, keys = self._scripts[name]
        return ("EVAL" if whole else "EVALSHA", body if whole else digest, len(keys), *keys, *args)


def read_terms(said: list[list[bytes]], prefix: str) -> Terms:
    """The newest published version that this package speaks."""
    for flat in said:
        if flat:
            return Terms({flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)})
    wanted = " or ".join(map(str, VERSIONS))
    raise LinkError(
        f"no anyworker has published protocol {wanted} under the prefix {prefix!r}: start anyworker with [app] kind = "
        '"external" on this Redis, with a version that fits this package'
    )


def _unknown_script(error: RedisError) -> bool:
    return str(error).startswith("NOSCRIPT")


class Link:
    """One process of the application, towards Redis."""

    def __init__(self, url: str, prefix: str) -> None:
        self.address, self.prefix = Address.parse(url), prefix
        self.terms: Terms | None = None
        self.number, self.me = 0, ""
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.position = ("0", "0")
        self.commands = Connection(self.address)
        # XREAD waits up to five seconds, so it has a longer patience.
        self.reader = Connection(self.address, timeout=15.0)
        self._blocking = threading.local()
        self.writer = Writer(self)

    def _links(self) -> list[str]:
        return [f"{self.prefix}:{{app}}:link:{version}" for version in VERSIONS]

    def blocking(self) -> Blocking:
        """The connection of this thread."""
        found: Blocking | None = getattr(self._blocking, "connection", None)
        if found is None:
            found = self._blocking.connection = Blocking(self.address)
        return found

    def _terms(self) -> Terms:
        if self.terms is None:
            connection = self.blocking()
            self.terms = read_terms([connection.call("HGETALL", key) for key in self._links()], self.prefix)
        return self.terms

    async def begin(self) -> None:
        """Reads what is published and takes a number."""
        said = [await self.commands.call("HGETALL", key) for key in self._links()]
        self.terms = read_terms(said, self.prefix)
        self.number = await self.run("begin")
        self.me = f"{self.number}-{secrets.token_hex(4)}"

    async def run(self, name: str, *args: Any) -> Any:
        """Runs a published script."""
        terms = self._terms()
        try:
            return await self.commands.call(*terms.command(name, args))
        except RedisError as error:
            if not _unknown_script(error):
                raise
        return await self.commands.call(*terms.command(name, args, whole=True))

    def run_blocking(self, name: str, *args: Any) -> Any:
        """The same for a thread, or for code that cannot wait."""
        terms, connection = self._terms(), self.blocking()
        try:
            return connection.call(*terms.command(name, args))
        except RedisError as error:
            if not _unknown_script(error):
                raise
        return connection.call(*terms.command(name, args, whole=True))

    def control(self) -> str:
        """The stream of this process alone."""
        assert self.terms is not None
        return f"{self.terms.inbox}@{self.number}"

    def inbox(self, partition: str) -> str:
        """The stream of a partition."""
        assert self.terms is not None
        return self.terms.inbox + partition

    def saw(self, epoch: str, number: str) -> None:
        """A position of the log: shows a Redis that has lost data."""
        if (int(epoch), int(number)) > (int(self.position[0]), int(self.position[1])):
            self.position = (epoch, number)

    def close(self) -> None:
        self.commands.close()
        self.reader.close()


class Writer:
    """Group commit: while one batch is on its way the next one collects. A batch has a number, so that one whose answer was
    lost is sent again without being done twice."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[str]]] = []
        self._task: asyncio.Task[None] | None = None
        self._number = 0

    def put(self, kind: str, partition: str, epoch: str, *args: Any) -> asyncio.Future[str]:
        """Queues an operation: the order of calls is the order in the log. The letter that Redis has for it can be awaited."""
        loop = asyncio.get_running_loop()
        said: asyncio.Future[str] = loop.create_future()
        self._waiting.append(((kind, partition, epoch, len(args), *args), said))
        if self._task is None:
            # Not in the context of the handler that happens to be the first.
            self._task = contextvars.Context().run(loop.create_task, self._run())
        return said

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is on its way."""
        return self._task is None

    async def _run(self) -> None:
        try:
            # What else is done in this turn of the loop goes along.
            await asyncio.sleep(0)
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
                self._number += 1
                await self._commit(batch)
        finally:
            self._task = None

    async def _commit(self, batch: list[tuple[tuple[Any, ...], asyncio.Future[str]]]) -> None:
        link, pause = self._link, RETRY_MIN
        operations = [word for operation, _ in batch for word in operation]
        while True:
            try:
                said = await link.run("write", self._number, link.me, *link.position, *operations)
                break
            except RedisError as error:
                if not str(error).startswith(("UNLINKED", "LOADING", "MISCONF", "READONLY", "NOREPLICAS", "BUSY")):
                    for _, done in batch:
                        if not done.done():
                            done.set_exception(error)
                            done.exception()
                    return
                log.warning("redis refused a batch, it is tried again: %s", error)
            except RedisGone as error:
                log.warning("redis is away, a batch is tried again: %s", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_MAX)
        _, epoch, first, letters = said.decode().split(" ")[:4]
        link.saw(epoch, str(int(first) - 1))
        for (_, done), letter in zip(batch, letters):
            if not done.done():
                done.set_result(letter)
