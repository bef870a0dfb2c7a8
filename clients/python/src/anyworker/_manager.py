"""The client manager: rooms and sockets are in Redis, for all processes; what is emitted goes into the log of the workers."""

from __future__ import annotations

import itertools
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from socketio import async_manager, packet

from ._record import active

if TYPE_CHECKING:
    from ._server import AsyncServer

#: Callbacks of emits to whole rooms, which may be acked any number of times: the oldest are forgotten.
ROOM_CALLBACKS_MAX = 1000
#: Ack ids: 20 bits for the process, 32 for the counter; JavaScript knows integers below 2^53.
COUNTER_BITS = 32


def names_of(room: Any) -> list[str]:
    """A room, a list of rooms, or none."""
    if room is None:
        return []
    if isinstance(room, str) or not hasattr(room, "__len__"):
        return [str(room)]
    return [str(name) for name in room]


class RoomsOf:
    """``manager.rooms[namespace]``: room → its sockets, of all processes; read only."""

    def __init__(self, manager: Manager, namespace: str) -> None:
        self._manager, self._namespace = manager, namespace

    def get(self, room: str, default: Any = None) -> Any:
        return dict(self._manager.get_participants(self._namespace, room)) or default

    def __getitem__(self, room: str) -> Any:
        if not (found := self.get(room)):
            raise KeyError(room)
        return found

    def __contains__(self, room: str) -> bool:
        return bool(self.get(room))


class Rooms:
    """``manager.rooms``: namespace → its rooms."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def get(self, namespace: str, default: Any = None) -> Any:
        return RoomsOf(self._manager, namespace)

    def __getitem__(self, namespace: str) -> RoomsOf:
        return RoomsOf(self._manager, namespace)

    def __contains__(self, namespace: str) -> bool:
        return namespace in self._manager.get_namespaces()


class Manager(async_manager.AsyncManager):  # type: ignore[misc]
    """See the module."""

    server: AsyncServer
    #: python-socketio sets it to what it would keep here.
    rooms = property(lambda self: Rooms(self), lambda self, _: None)

    def __init__(self) -> None:
        super().__init__()
        self._ids = itertools.count(1)
        self._callbacks: OrderedDict[int, tuple[str, Callable[..., Any]]] = OrderedDict()

    # What python-socketio's handling of CONNECT and its end asks for.

    async def pre_connect(self, eio_sid: str, namespace: str) -> str:
        return eio_sid

    async def connect(self, eio_sid: str, namespace: str) -> str:
        return eio_sid

    def pre_disconnect(self, sid: str, namespace: str) -> str:
        return sid

    async def disconnect(self, sid: str, namespace: str, **kwargs: Any) -> None:
        await self.server.forget(sid, namespace)

    async def can_disconnect(self, sid: str, namespace: str) -> bool:
        return True

    def is_connected(self, sid: str, namespace: str) -> bool:
        return self.server.is_known(sid, namespace)

    def is_pre_connected(self, sid: str, namespace: str) -> bool:
        return False

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str:
        return eio_sid

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str:
        return sid

    # Rooms.

    def get_namespaces(self) -> Iterable[str]:
        return self.server.namespaces_here()

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        seen: set[str] = set()
        for name in names_of(room):
            for sid in self.server.members(namespace, name):
                if sid not in seen:
                    seen.add(sid)
                    yield sid, sid

    def get_rooms(self, sid: str, namespace: str) -> list[str]:
        return [sid, *self.server.rooms_of(sid)]

    async def enter_room(self, sid: str, namespace: str, room: Any, eio_sid: str | None = None) -> None:
        if await self.server.write("join", sid, str(room)) == "g":
            raise ValueError("sid is not connected to requested namespace")

    async def leave_room(self, sid: str, namespace: str, room: Any) -> None:
        await self.server.write("leave", sid, str(room))

    async def close_room(self, room: Any, namespace: str) -> None:
        await self.server.write("close", namespace, str(room))

    # Events and acks.

    def generate_ack_id(self, room: str, callback: Callable[..., Any]) -> int:
        """An id by which the worker that gets the ack finds this process."""
        number = (self.server.number << COUNTER_BITS) | (next(self._ids) & ((1 << COUNTER_BITS) - 1))
        self._callbacks[number] = (room, callback)
        if len(self._callbacks) > ROOM_CALLBACKS_MAX:
            oldest = next(iter(self._callbacks))
            if self._callbacks[oldest][0] == "":
                del self._callbacks[oldest]
        return number

    async def emit(
        self,
        event: str,
        data: Any,
        namespace: str,
        room: Any = None,
        skip_sid: Any = None,
        callback: Callable[..., Any] | None = None,
        to: Any = None,
        **kwargs: Any,
    ) -> None:
        rooms = names_of(to or room)
        args = list(data) if isinstance(data, tuple) else [] if data is None else [data]
        number = None
        if callback is not None:
            if len(rooms) != 1:
                raise ValueError("Cannot use callback without a room set.")
            number = self.generate_ack_id(rooms[0], callback)
        made = self.server.packet_class(packet.EVENT, namespace=namespace, data=[event, *args], id=number)
        text, attachments = encoded(made)
        record = active()
        where = (namespace, json.dumps(rooms), json.dumps(names_of(skip_sid)))
        # What has an ack id is another event each time: the callback of a former run is gone with its process.
        if number is not None:
            await self.server.write("ask", *where, text, *attachments)
            return
        effect = record.effect(*where, text, *attachments) if record is not None else ""
        await self.server.write("emit", *where, effect, text, *attachments)

    async def trigger_callback(self, sid: str, id: int, data: Any) -> None:
        room, callback = self._callbacks.get(id, ("", None))
        if callback is None:
            return
        if room == sid:
            del self._callbacks[id]
        said = callback(*data)
        if hasattr(said, "__await__"):
            await said


def encoded(made: Any) -> tuple[str, list[bytes]]:
    """Text and attachments of a packet."""
    whole = made.encode()
    if isinstance(whole, bytes):
        raise TypeError("anyworker speaks the default protocol of Socket.IO: this serializer makes binary packets")
    text, *attachments = whole if isinstance(whole, list) else [whole]
    return text, [bytes(attachment) for attachment in attachments]
