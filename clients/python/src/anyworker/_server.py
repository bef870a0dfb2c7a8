"""``AsyncServer``: python-socketio's, whose clients are connected to anyworker."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable
from typing import Any

import engineio
import socketio
from socketio import packet

from ._consumer import Consumer
from ._engine import Engine
from ._environ import environ_of
from ._link import Fenced, Link
from ._manager import Manager, encoded
from ._mount import watch
from ._record import Record, active, current

log = logging.getLogger("anyworker")

#: How long handlers may take to end after SIGTERM (seconds).
GRACE = 25.0
#: Options that anyworker's own configuration takes over: what a client sees is anyworker's, whatever is given here.
TAKEN_OVER = {
    "cors_allowed_origins": "engine.cors_origins",
    "cors_credentials": "engine.cors_origins",
    "ping_interval": "engine.ping_interval_ms",
    "ping_timeout": "engine.ping_timeout_ms",
    "max_http_buffer_size": "engine.max_payload_bytes",
    "transports": "engine.transports",
    "allow_upgrades": "engine.transports",
    "http_compression": "none, it is your proxy's",
    "compression_threshold": "none, it is your proxy's",
    "cookie": "none, sessions need no cookie",
}
_said: set[str] = set()


def _say_once(text: str, *args: object, level: int = logging.WARNING) -> None:
    if text not in _said:
        _said.add(text)
        log.log(level, text, *args)


def _number(text: str | None, default: float) -> float:
    return float(text) if text else default


class Environs(dict[str, Any]):
    """``sio.environ``: of sockets of other processes it comes from Redis."""

    def __init__(self, server: AsyncServer) -> None:
        super().__init__()
        self._server = server

    def __missing__(self, sid: str) -> Any:
        found = self._server.socket_of(sid).get("e")
        if found is None:
            raise KeyError(sid)
        return environ_of(found)

    def get(self, sid: str, default: Any = None) -> Any:
        try:
            return self[sid]
        except KeyError:
            return default


class AsyncServer(socketio.AsyncServer):  # type: ignore[misc]
    """See the module. Without ``ANYWORKER_REDIS_URL`` it is python-socketio's own, and says so once.

    :param redis_url: where anyworker's Redis is, instead of ``ANYWORKER_REDIS_URL``.
    :param redis_prefix: ``redis.prefix`` of anyworker, instead of ``ANYWORKER_REDIS_PREFIX``.
    :param hold: ``"tasks"``: every task that an event's handler starts keeps the event unsettled until it ends, not only
        those of :meth:`start_background_task`; instead of ``ANYWORKER_HOLD``.

    All others as in python-socketio.
    """

    def __init__(
        self,
        client_manager: Any = None,
        *args: Any,
        redis_url: str | None = None,
        redis_prefix: str | None = None,
        hold: str | None = None,
        **kwargs: Any,
    ) -> None:
        url = redis_url or os.environ.get("ANYWORKER_REDIS_URL")
        self._link: Link | None = None
        if not url:
            _say_once("ANYWORKER_REDIS_URL is not set: clients connect to this process, as with python-socketio alone")
            super().__init__(client_manager, *args, **kwargs)
            return
        prefix = redis_prefix or os.environ.get("ANYWORKER_REDIS_PREFIX", "socketio")
        self._link = Link(url, prefix)
        self._consumer: Consumer | None = None
        self._starting: asyncio.Lock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hold = hold or os.environ.get("ANYWORKER_HOLD", "")
        #: Sockets that this process has handled something of.
        self._sockets: dict[str, dict[str, str]] = {}
        self._meeting: dict[str, asyncio.Future[bool]] = {}
        self._sessions: dict[str, dict[str, Any]] = {}
        self._once: set[tuple[str, str]] = set()
        self._check_options(client_manager, kwargs)
        super().__init__(Manager(), *args, **kwargs)
        self.eio.sio = self
        self.environ = Environs(self)
        watch(self)

    @staticmethod
    def _check_options(client_manager: Any, options: dict[str, Any]) -> None:
        if client_manager is not None and not isinstance(client_manager, socketio.AsyncManager):
            raise ValueError(
                f"client_manager {type(client_manager).__name__}: anyworker has a manager of its own, for all processes; "
                "leave client_manager away"
            )
        if client_manager is not None:
            _say_once("client_manager is not used: rooms and emits of all processes go through anyworker")
        if options.get("serializer", "default") == "msgpack":
            raise ValueError("serializer='msgpack': anyworker speaks the default protocol of Socket.IO; leave serializer away")
        for name, key in TAKEN_OVER.items():
            if options.get(name) not in (None, [], "*"):
                _say_once(f"{name} is anyworker's to decide: its configuration has %s", key)

    def _engineio_server_class(self) -> Any:
        return engineio.AsyncServer if self._link is None else Engine

    # Beginning and end.

    async def start(self) -> None:
        """Begins to take what clients do, in the running loop. Mounts do it by themselves (`ASGIApp`, `attach`, uvicorn); call
        it where neither is there."""
        if self._link is None or self._consumer is not None:
            return
        if self._starting is None:
            self._starting = asyncio.Lock()
        async with self._starting:
            if self._consumer is not None:
                return
            await self._link.begin()
            self._loop = asyncio.get_running_loop()
            self.manager_initialized = True
            self.manager.initialize()
            if self._hold == "tasks":
                self._hold_tasks(self._loop)
            self._consumer = Consumer(self, self._link)
            self._consumer.start()
            log.info("process %s takes records from %s", self._link.me, self._link.address)

    async def drain(self, grace: float | None = None) -> None:
        """Takes nothing more, lets handlers end, and gives the rest to other processes."""
        if self._consumer is not None:
            await self._consumer.drain(_number(os.environ.get("ANYWORKER_GRACE"), GRACE) if grace is None else grace)

    async def shutdown(self) -> None:
        await self.drain()
        await super().shutdown()

    def _hold_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        """Every task of an event's handler keeps the event."""
        make = loop.get_task_factory()

        def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
            task = make(loop, work, **options) if make else asyncio.Task(work, loop=loop, **options)
            record = active()
            if record is not None and record.kind == "event" and self._consumer is not None:
                self._consumer.hold(record, task)
            return task

        loop.set_task_factory(factory)

    # What the application asks.

    @property
    def number(self) -> int:
        """Number of this process."""
        return self._link.number if self._link else 0

    @property
    def attempt(self) -> int:
        """How often the handler that runs has been begun for what it handles; 1 the first time."""
        record = current.get()
        return record.attempt if record else 1

    def once(self, event: str, namespace: str | None = None) -> Callable[[Any], Any]:
        """As ``on``, for a handler that must not run again for the same event: the event is settled before. If the process
        dies in the middle, nothing more comes of it."""
        self.__dict__.setdefault("_once", set()).add((namespace or "/", event))
        register: Callable[[Any], Any] = self.on(event, namespace=namespace)
        return register

    def namespaces_here(self) -> list[str]:
        """Namespaces of sockets that this process knows."""
        return list({socket.get("n", "/") for socket in self._sockets.values()})

    def _read(self, *words: str) -> list[str]:
        assert self._link is not None
        return [word.decode() for word in self._link.run_blocking("read", *words)]

    def members(self, namespace: str, room: str) -> list[str]:
        """Sockets in a room, of all processes."""
        found = self._read("members", namespace, room)
        return found if found else [room] if self.is_known(room, namespace) else []

    def rooms_of(self, sid: str) -> list[str]:
        """Rooms of a socket, without its own."""
        return self._read("rooms", sid)

    def socket_of(self, sid: str) -> dict[str, str]:
        """What is stored about a socket, or nothing."""
        if sid in self._sockets:
            return self._sockets[sid]
        flat = self._read("sock", sid)
        return dict(zip(flat[::2], flat[1::2]))

    def is_known(self, sid: str, namespace: str) -> bool:
        """Whether there is such a socket."""
        socket = self.socket_of(sid)
        return socket.get("n") == namespace and socket.get("state") != "gone"

    def transport_of(self, sid: str) -> str:
        """`polling` or `websocket`."""
        told = json.loads(self.socket_of(sid).get("e", "{}"))
        return str(told.get("transport", "polling"))

    async def get_session(self, sid: str, namespace: str | None = None) -> dict[str, Any]:
        if self._link is None:
            found: dict[str, Any] = await super().get_session(sid, namespace)
            return found
        if sid not in self._sessions:
            session = json.loads((await self._socket(sid)).get("session", "{}"))
            if sid not in self._sockets:
                return dict(session)
            self._sessions[sid] = session
        return self._sessions[sid]

    async def save_session(self, sid: str, session: dict[str, Any], namespace: str | None = None) -> None:
        if self._link is None:
            await super().save_session(sid, session, namespace)
            return
        record = active()
        if record is not None and record.muted and "session" in self._sockets.get(sid, {}):
            return  # What was saved after the first run of this handler is newer.
        self._sessions[sid] = session
        try:
            text = json.dumps(session)
        except TypeError as error:
            log.warning("the session of %s stays in this process, since it is no JSON: %s", sid, error)
            return
        await self.write("save", sid, "session", text)

    async def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> None:
        if self._link is None:
            await super().disconnect(sid, namespace, ignore_queue)
        else:
            await self.write("kick", sid)

    def start_background_task(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        """As python-socketio's. In the handler of an event it keeps the event unsettled until it ends: if this process dies,
        the handler runs again in another one."""
        record = active() if self._link is not None else None
        if record is not None and record.kind == "event" and self._hold != "tasks" and self._consumer is not None:
            task = super().start_background_task(target, *args, **kwargs)
            self._consumer.hold(record, task)
            return task
        # What a connect handler starts is mostly the application's own ticker.
        token = current.set(None) if record is not None and record.kind != "event" else None
        try:
            return super().start_background_task(target, *args, **kwargs)
        finally:
            if token is not None:
                current.reset(token)

    def instrument(self, *args: Any, **kwargs: Any) -> Any:
        if self._link is None:
            return super().instrument(*args, **kwargs)
        _say_once("instrument() does nothing behind anyworker: use `anyworker sessions`, `anyworker trace` and its metrics")
        return None

    # What handlers do.

    async def write(self, kind: str, *args: Any) -> str:
        """Has an operation done, if what is being handled is still ours."""
        assert self._link is not None
        await self.start()
        record = active()
        if record is not None and record.muted:
            return "n"
        if record is not None and record.lost:
            raise Fenced
        where = (record.partition, record.epoch) if record is not None else ("", "")
        letter = await self._link.writer.put(kind, *where, *args)
        if letter == "f":
            if record is not None:
                record.lost = record.done = True
            raise Fenced
        return letter

    async def _send_packet(self, eio_sid: str, pkt: Any) -> None:
        """Where python-socketio's own handling of CONNECT and events answers the client."""
        if self._link is None:
            await super()._send_packet(eio_sid, pkt)
            return
        sid, nsp = eio_sid, pkt.namespace or "/"
        if pkt.packet_type == packet.CONNECT:
            await self.write("admit", sid)
        elif pkt.packet_type in (packet.CONNECT_ERROR, packet.DISCONNECT):
            data = pkt.data if isinstance(pkt.data, dict) else {"message": pkt.data or "Unable to connect"}
            await self.write("refuse", sid, self.packet_class.json.dumps(data))
        elif pkt.packet_type in (packet.ACK, packet.BINARY_ACK):
            text, attachments = encoded(pkt)
            record = active()
            effect = f"{record.partition}/{record.id}/ack" if record is not None else ""
            await self.write("ack", nsp, sid, effect, text, *attachments)
        else:
            raise RuntimeError(f"a packet of type {pkt.packet_type} is not sent by the application")

    # What clients did.

    async def handle(self, record: Record, fields: dict[str, bytes]) -> None:
        """Handles a record of the inbox."""
        sid, nsp = record.sid, record.nsp
        if record.kind == "connect":
            await self._connect(record)
            return
        known = await self._meet(sid, nsp, replay=record.kind == "event")
        if record.kind == "disconnect":
            await self._gone(record, fields["d"].decode(), known)
        elif not known:
            log.debug("an event of %s, which is gone", sid)
        else:
            data = self._data(fields, nsp)
            if (nsp, data[0]) in self._once:
                assert self._consumer is not None
                settled = self._consumer.settle(record)
                if settled is None or await settled != "o":
                    return
            id = int(fields["i"]) if "i" in fields else None
            await self._handle_event_internal(self, sid, sid, data, nsp, id)

    async def _connect(self, record: Record) -> None:
        sid, nsp = record.sid, record.nsp
        socket = await self._socket(sid)
        if not socket or socket.get("state") == "gone":
            return
        self._sockets[sid] = socket
        self.environ[sid] = environ_of(socket.get("e", "{}"))
        if socket.get("state") == "in" and not self.always_connect:
            # It was let in before the process died that did so: here only what the application remembers is made anew.
            record.muted = True
        await self._handle_connect(sid, nsp, json.loads(socket["a"]) if "a" in socket else None)

    async def _meet(self, sid: str, nsp: str, *, replay: bool) -> bool:
        """Knows the socket; its connect handler has run in this process before, or runs now, without effects."""
        if sid in self._sockets and sid not in self._meeting:
            return True
        if sid in self._meeting:
            return await asyncio.shield(self._meeting[sid])
        meeting = self._meeting[sid] = asyncio.get_running_loop().create_future()
        known = False
        try:
            socket = await self._socket(sid)
            known = bool(socket)
            if known:
                self._sockets[sid] = socket
                self.environ[sid] = environ_of(socket.get("e", "{}"))
                if replay:
                    await self._replay(sid, nsp, socket)
        finally:
            del self._meeting[sid]
            meeting.set_result(known)
        return known

    async def _replay(self, sid: str, nsp: str, socket: dict[str, str]) -> None:
        token = current.set(Record("", "", "", "connect", nsp, sid, muted=True))
        try:
            await self._handle_connect(sid, nsp, json.loads(socket["a"]) if "a" in socket else None)
        except Exception:
            log.exception("the connect handler failed for a socket of another process")
        finally:
            current.reset(token)

    async def _gone(self, record: Record, reason: str, known: bool) -> None:
        sid, nsp = record.sid, record.nsp
        was = (await self._socket(sid)).get("was")
        try:
            # A client that left before it was let in was never there.
            if known and was == "in":
                reasons = [reason] if hasattr(self, "reason") else []
                await self._trigger_event("disconnect", nsp, sid, *reasons)
        finally:
            await self.forget(sid, nsp)

    async def forget(self, sid: str, namespace: str) -> None:
        """Nothing more comes from a socket."""
        record = active()
        if record is not None and record.muted:
            return
        self._sockets.pop(sid, None)
        self._sessions.pop(sid, None)
        self.environ.pop(sid, None)
        await self.write("forget", sid)

    async def _socket(self, sid: str) -> dict[str, str]:
        assert self._link is not None
        flat = [word.decode() for word in await self._link.run("read", "sock", sid)]
        return dict(zip(flat[::2], flat[1::2]))

    def _data(self, fields: dict[str, bytes], nsp: str) -> list[Any]:
        """Arguments of an event or an ack, with its attachments where they belong."""
        text = fields["d"].decode()
        count = sum(1 for name in fields if name[0] == "b" and name[1:].isdigit())
        if count == 0:
            data: list[Any] = self.packet_class.json.loads(text)
            return data
        # By python-socketio's own parser: applications may have overridden a part of it.
        whole = self.packet_class(encoded_packet=f"{packet.BINARY_EVENT}{count}-{text}")
        for index in range(count):
            whole.add_attachment(fields[f"b{index}"])
        made: list[Any] = whole.data
        return made

    async def acked(self, fields: dict[str, bytes]) -> None:
        """A client has acked what this process emitted."""
        try:
            data = self._data(fields, "/")
            await self.manager.trigger_callback(fields["s"].decode(), int(fields["i"]), data)
        except Exception:
            log.exception("a callback failed")


