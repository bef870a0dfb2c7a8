"""The application of the guide's shape: plain python-socketio, or behind anyworker with one name changed.

python guide_app.py [--redis URL]   says {"port": n} or {"ready": true} in a line of JSON, then serves until it is killed.
"""

import argparse
import asyncio
import json
import os
import pathlib
import sys

import socketio
from aiohttp import web

options = argparse.ArgumentParser()
options.add_argument("--redis", default="")
options = options.parse_args()
if options.redis:
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "clients/python/src"))
    os.environ["ANYWORKER_REDIS_URL"] = options.redis
    import anyworker

    socketio.AsyncServer = anyworker.AsyncServer

# Polling clients end with a poll: pings end polls here (behind anyworker its own do).
sio = socketio.AsyncServer(async_mode="aiohttp", cors_allowed_origins="*", ping_interval=2)
users = {}


@sio.event
async def connect(sid, environ, auth):
    if not auth or "token" not in auth:
        raise socketio.exceptions.ConnectionRefusedError("no token", {"code": 401})
    users[sid] = auth["token"]
    seen = {"agent": environ.get("HTTP_X_TEST"), "query": "EIO=4" in environ["QUERY_STRING"]}
    await sio.save_session(sid, {"name": auth["token"], **seen})
    await sio.enter_room(sid, "all")
    await sio.emit("welcome", {"you": users[sid]}, to=sid)


@sio.on("join")
async def join(sid, room):
    await sio.enter_room(sid, room)
    return sorted(name for name in sio.rooms(sid) if name != sid)


@sio.on("say")
async def say(sid, room, text):
    await sio.emit("said", {"from": users[sid], "text": text}, room=room, skip_sid=sid)
    return "ok"


@sio.on("answer")
async def answer(sid, parts):
    for part in range(parts):
        await sio.emit("part", part, to=sid)
    return parts


@sio.on("ask")
async def ask(sid):
    return await sio.call("question", {"n": 1}, to=sid)


@sio.on("session")
async def session(sid):
    return await sio.get_session(sid)


@sio.on("binary")
async def binary(sid, data):
    await sio.emit("binary", {"raw": data["raw"] + b"!"}, to=sid)
    return data["raw"], len(data["raw"])


@sio.on("dismiss")
async def dismiss(sid):
    await sio.disconnect(sid)


@sio.on("*")
async def other(event, sid, *args):
    return ["other", event, *args]


class Chat(socketio.AsyncNamespace):
    async def on_connect(self, sid, environ, auth):
        await self.enter_room(sid, "all")

    async def on_hello(self, sid, word):
        await self.emit("hello", word, room="all")
        return f"chat {word}"


sio.register_namespace(Chat("/chat"))


@sio.event
async def disconnect(sid, reason):
    await sio.emit("left", {"who": users.pop(sid, None), "reason": reason}, room="all", skip_sid=sid)


async def main():
    if options.redis:
        await sio.start()
        print(json.dumps({"ready": True}), flush=True)
    else:
        app = web.Application()
        sio.attach(app)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(json.dumps({"port": site._server.sockets[0].getsockname()[1]}), flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
