"""Emits through python-socketio's managers, as a process without a server does. Argument: URL of the Redis, room."""

import asyncio
import sys

import socketio

URL, ROOM = sys.argv[1:3]


async def main():
    manager = socketio.AsyncRedisManager(URL, write_only=True)
    await manager.emit("door", ("python async", {"n": 1}), room=ROOM)
    socketio.RedisManager(URL, write_only=True).emit("door", ("python", b"\x01\x02"), room=ROOM)


asyncio.run(main())
