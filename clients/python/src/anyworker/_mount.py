"""Starts the consumer where the application is mounted, and ends it with the program."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._server import AsyncServer

_watched: weakref.WeakSet[AsyncServer] = weakref.WeakSet()
_hooked = False


def watch(server: AsyncServer) -> None:
    """Starts the server with uvicorn's own start, in its loop; other programs start it by the first request to its mount,
    or by ``await sio.start()``."""
    global _hooked
    _watched.add(server)
    if not _hooked:
        _hooked = True
        _hook_uvicorn()
        _hook_lifespan()


def _hook_uvicorn() -> None:
    try:
        import uvicorn
    except ImportError:
        return
    begin, end = uvicorn.Server.startup, uvicorn.Server.shutdown

    async def startup(self: Any, *args: Any, **kwargs: Any) -> None:
        await begin(self, *args, **kwargs)
        if getattr(self, "should_exit", False):
            return
        for server in list(_watched):
            await server.start()

    async def shutdown(self: Any, *args: Any, **kwargs: Any) -> None:
        for server in list(_watched):
            await server.drain()
        await end(self, *args, **kwargs)

    uvicorn.Server.startup, uvicorn.Server.shutdown = startup, shutdown


def _hook_lifespan() -> None:
    """A mount that gets the lifespan itself starts with it: hypercorn, daphne."""
    from engineio.async_drivers import asgi

    call = asgi.ASGIApp.__call__

    async def called(self: Any, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan" or self.engineio_server not in _watched:
            await call(self, scope, receive, send)
            return

        async def told(message: Any) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self.engineio_server.start()
            await send(message)

        async def heard() -> Any:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.engineio_server.drain()
            return message

        await call(self, scope, heard, told)

    asgi.ASGIApp.__call__ = called
