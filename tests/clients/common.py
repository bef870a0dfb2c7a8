"""Shared by the Python client programs: options of the command line, sockets, waiting."""

import argparse
import asyncio

import aiohttp
import socketio


def options(text: str, **defaults) -> argparse.Namespace:
    """Options `--name value` (flags where the default is False) over `defaults`."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--url", required=True)
    parser.add_argument("--path", default="/socket.io/")
    parser.add_argument("--transports", default="polling,websocket")
    parser.add_argument("--fresh", action="store_true", help="a new TCP connection per request")
    for name, default in defaults.items():
        kind = {"action": "store_true"} if default is False else {"type": type(default), "default": default}
        parser.add_argument("--" + name.replace("_", "-"), **kind)
    return parser.parse_args()


class Clients:
    """Makes clients for the options and leaves nothing behind."""

    def __init__(self, opts: argparse.Namespace):
        self.opts = opts
        self.transports = opts.transports.split(",")
        self.made = []

    async def new(self, **more) -> socketio.AsyncClient:
        """A client that is not connected yet."""
        connector = aiohttp.TCPConnector(force_close=self.opts.fresh, limit=0)
        session = aiohttp.ClientSession(connector=connector)
        more.setdefault("reconnection", False)
        client = socketio.AsyncClient(http_session=session, **more)
        self.made.append((client, session))
        return client

    async def connect(self, client: socketio.AsyncClient, **more) -> socketio.AsyncClient:
        """Connects it, by default to `/` only."""
        more.setdefault("namespaces", ["/"])
        await client.connect(
            self.opts.url, socketio_path=self.opts.path, transports=self.transports, wait_timeout=10, **more
        )
        return client

    async def close(self):
        """Disconnects all of them; a server that lets them wait for it is not waited for long."""
        made, self.made = self.made, []
        leaving = (asyncio.wait_for(client.disconnect(), 5) for client, _ in made)
        await asyncio.gather(*leaving, return_exceptions=True)
        await asyncio.gather(*(session.close() for _, session in made))


async def until(ready, seconds: float = 10) -> bool:
    """Waits for `ready()`, polling; False when it did not come about in time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not ready():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.005)
    return True
