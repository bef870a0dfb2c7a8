"""A thin Redis client on hiredis: one connection with pipelined commands for asyncio, and a blocking one for threads."""

from __future__ import annotations

import asyncio
import collections
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

#: How long a connection may take to be made (seconds).
CONNECT_TIMEOUT = 5.0
#: How long a command that does not block may take (seconds): a Redis that hangs is one that is away.
RESPONSE_TIMEOUT = 5.0
READ_BYTES = 65536


class RedisError(Exception):
    """Redis answered with an error."""


class RedisGone(ConnectionError):
    """There is no connection to Redis, or it broke before the answer came: whether the command was run is unknown."""


@dataclass(frozen=True)
class Address:
    """Where Redis is, from a URL: ``redis://[user:password@]host[:port][/db]``, ``rediss://``, ``unix:///path[?db=n]``."""

    host: str = ""
    port: int = 6379
    path: str = ""
    db: int = 0
    user: str = ""
    password: str = ""
    tls: bool = False

    @classmethod
    def parse(cls, url: str) -> Address:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if parts.scheme in ("unix", "redis+unix", "redis-socket"):
            return cls(path=unquote(parts.path), db=int(query.get("db", ["0"])[0]), user=user, password=password)
        if parts.scheme not in ("redis", "rediss"):
            raise ValueError(f"ANYWORKER_REDIS_URL must begin with redis://, rediss:// or unix://, not {parts.scheme!r}")
        db = int(parts.path.strip("/") or query.get("db", ["0"])[0])
        return cls(parts.hostname or "localhost", parts.port or 6379, "", db, user, password, parts.scheme == "rediss")

    def __str__(self) -> str:
        """Without the password."""
        return f"unix://{self.path}" if self.path else f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.db}"

    def greeting(self) -> list[tuple[Any, ...]]:
        """Commands that a new connection begins with."""
        commands: list[tuple[Any, ...]] = []
        if self.password:
            commands.append(("AUTH", self.user, self.password) if self.user else ("AUTH", self.password))
        if self.db:
            commands.append(("SELECT", self.db))
        return commands


def _packed(command: tuple[Any, ...]) -> bytes:
    # hiredis takes text, bytes and numbers.
    packed: bytes = hiredis.pack_command(command)
    return packed


class Connection:
    """Commands of many tasks over one connection, which is made when it is needed and made anew when it broke."""

    def __init__(self, address: Address, timeout: float | None = RESPONSE_TIMEOUT) -> None:
        self.address = address
        self.timeout = timeout
        self.made = 0
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: collections.deque[asyncio.Future[Any]] = collections.deque()
        self._connecting = asyncio.Lock()
        self._reader_task: asyncio.Task[None] | None = None

    async def call(self, *command: Any) -> Any:
        """The answer to one command.

        :raises RedisError: Redis refused it.
        :raises RedisGone: there is no answer.
        """
        if self._writer is None:
            await self._connect()
        return await self._send(command)

    async def _send(self, command: tuple[Any, ...]) -> Any:
        writer = self._writer
        if writer is None:
            raise RedisGone(f"no connection to {self.address}")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        writer.write(_packed(command))
        try:
            said = await asyncio.wait_for(asyncio.shield(answer), self.timeout)
        except asyncio.TimeoutError:
            self._lose(f"no answer from {self.address} within {self.timeout} s")
            raise RedisGone(f"no answer from {self.address} within {self.timeout} s") from None
        if isinstance(said, hiredis.ReplyError):
            raise RedisError(str(said))
        return said

    async def _connect(self) -> None:
        async with self._connecting:
            if self._writer is not None:
                return
            address = self.address
            try:
                if address.path:
                    opening = asyncio.open_unix_connection(address.path)
                else:
                    tls = ssl.create_default_context() if address.tls else None
                    opening = asyncio.open_connection(address.host, address.port, ssl=tls)
                reader, writer = await asyncio.wait_for(opening, CONNECT_TIMEOUT)
            except (OSError, asyncio.TimeoutError) as error:
                raise RedisGone(f"{address}: {error or 'no connection in time'}") from error
            self._writer = writer
            self._reader_task = asyncio.get_running_loop().create_task(self._read(reader, writer))
            for command in address.greeting():
                try:
                    await self._send(command)
                except RedisError:
                    self._lose("the login was refused")
                    raise
            self.made += 1

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        why = f"{self.address} closed the connection"
        try:
            while data := await reader.read(READ_BYTES):
                parser.feed(data)
                while (said := parser.gets()) is not False:
                    answer = self._waiting.popleft()
                    if not answer.done():
                        answer.set_result(said)
        except (OSError, hiredis.HiredisError) as error:
            why = f"{self.address}: {error}"
        if self._writer is writer:
            self._lose(why)

    def _lose(self, why: str) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        if self._reader_task is not None and self._reader_task is not asyncio.current_task():
            self._reader_task.cancel()
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(RedisGone(why))
                # The waiting task may have been cancelled.
                answer.exception()

    def close(self) -> None:
        """Ends the connection; commands under way fail."""
        self._lose("closed")


class Blocking:
    """A connection for a thread, or for code that cannot wait."""

    def __init__(self, address: Address, timeout: float = RESPONSE_TIMEOUT) -> None:
        self.address, self.timeout = address, timeout
        self._socket: socket.socket | None = None
        self._parser = hiredis.Reader()

    def call(self, *command: Any) -> Any:
        """As :meth:`Connection.call`."""
        try:
            if self._socket is None:
                self._connect()
            return self._exchange(command)
        except OSError as error:
            self.close()
            raise RedisGone(f"{self.address}: {error}") from error

    def _connect(self) -> None:
        address = self.address
        if address.path:
            made = socket.socket(socket.AF_UNIX)
            made.settimeout(self.timeout)
            made.connect(address.path)
        else:
            made = socket.create_connection((address.host, address.port), self.timeout)
            if address.tls:
                made = ssl.create_default_context().wrap_socket(made, server_hostname=address.host)
        self._socket, self._parser = made, hiredis.Reader()
        for command in address.greeting():
            self._exchange(command)

    def _exchange(self, command: tuple[Any, ...]) -> Any:
        assert self._socket is not None
        self._socket.sendall(_packed(command))
        while (said := self._parser.gets()) is False:
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise ConnectionError("redis closed the connection")
            self._parser.feed(data)
        if isinstance(said, hiredis.ReplyError):
            raise RedisError(str(said))
        return said

    def close(self) -> None:
        """Ends the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
