"""Stands where the Engine.IO server was: there are no connections here, the clients are anyworker's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import engineio

if TYPE_CHECKING:
    from ._server import AsyncServer

#: What a client is told that comes here directly.
MISDIRECTED = b"Socket.IO is served by anyworker; this is a process of its application\n"


class Engine(engineio.AsyncServer):  # type: ignore[misc]
    """See the module."""

    sio: AsyncServer

    def transport(self, sid: str) -> str:
        return self.sio.transport_of(sid)

    async def send_packet(self, sid: str, pkt: Any) -> None:
        """Nothing is connected here."""

    async def handle_request(self, *args: Any, **kwargs: Any) -> Any:
        # The first request starts the consumer in the loop that the application runs in.
        await self.sio.start()
        if len(args) != 3:
            from aiohttp import web

            return web.Response(status=421, body=MISDIRECTED)
        scope, receive, send = args
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return None
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 421, "headers": headers})
        await send({"type": "http.response.body", "body": MISDIRECTED})
        return None

    async def shutdown(self) -> None:
        await self.sio.drain()

    def attach(self, app: Any, engineio_path: str = "engine.io") -> None:
        async def begin(_: Any) -> None:
            await self.sio.start()

        async def end(_: Any) -> None:
            await self.sio.drain()

        app.on_startup.append(begin)
        app.on_shutdown.append(end)
