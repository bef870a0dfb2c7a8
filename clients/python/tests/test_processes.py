"""Processes that come, go, stop and die."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from conftest import P, Gateway, Make


def letters(gateway: Gateway) -> list[dict[bytes, bytes]]:
    items = gateway.redis.call("XRANGE", P + "dead", "-", "+")
    return [dict(zip(flat[::2], flat[1::2])) for _, flat in items]


class Program:
    """A process of the application."""

    def __init__(self, gateway: Gateway, directory: pathlib.Path, body: str, **env: str) -> None:
        path = directory / "application.py"
        head = """
        import asyncio, os, signal, sys, time
        import anyworker
        sio = anyworker.AsyncServer(async_mode="asgi")
        """
        tail = """
        async def main():
            await sio.start()
            end = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
            await end.wait()
            await sio.drain()
        asyncio.run(main())
        """
        path.write_text("\n".join(textwrap.dedent(part) for part in (head, body, tail)))
        self.env = {**os.environ, "ANYWORKER_REDIS_URL": gateway.url, **env}
        self.path = path
        self.child = self.run()

    def run(self) -> subprocess.Popen[bytes]:
        self.child = subprocess.Popen([sys.executable, str(self.path)], env=self.env)
        return self.child

    def kill(self, number: int = signal.SIGKILL) -> int:
        self.child.send_signal(number)
        return self.child.wait(20)


async def test_what_a_killed_process_had_is_handled_by_another_once(
    gateway: Gateway, make: Make, tmp_path: pathlib.Path
) -> None:
    body = """
    users = {}
    @sio.event
    async def connect(sid, environ, auth):
        users[sid] = auth["user"]
    @sio.on("work")
    async def work(sid, number):
        for part in range(3):
            await sio.emit("part", [number, part], to=sid)
        if os.environ.get("STUCK") and number == 1:
            await asyncio.sleep(60)
        return users[sid], sio.attempt
    """
    first = Program(gateway, tmp_path, body, STUCK="1")
    gateway.connect("AAsid", auth={"user": "ann"})
    await gateway.next(1)
    gateway.event("AAsid", "work", 0, ack=0)
    assert (await gateway.next(4))[3] == ("ack", '430["ann",1]')
    gateway.event("AAsid", "work", 1, ack=1)
    await gateway.next(3)
    first.kill()
    first.env.pop("STUCK")
    first.run()
    try:
        # Its parts appear once, its user is known again, and the handler sees that it is the second attempt.
        assert await gateway.next(1) == [("ack", '431["ann",2]')]
        await gateway.until(lambda: gateway.pending() == 0)
    finally:
        assert first.kill(signal.SIGTERM) == 0


async def test_a_record_that_kills_its_process_five_times_is_a_dead_letter(gateway: Gateway, tmp_path: pathlib.Path) -> None:
    body = """
    @sio.on("connect")
    async def connect(sid, environ): ...
    @sio.on("kill")
    async def kill(sid):
        os.kill(os.getpid(), signal.SIGKILL)
    @sio.on("fine")
    async def fine(sid):
        return sio.attempt
    """
    program = Program(gateway, tmp_path, body)
    gateway.connect("AAsid")
    await gateway.next(1)
    gateway.event("AAsid", "kill")
    deaths = 0
    while not letters(gateway):
        if program.child.poll() is not None:
            deaths += 1
            program.run()
        await asyncio.sleep(0.01)
    assert deaths == 5
    [letter] = letters(gateway)
    assert (letter[b"d"], letter[b"why"]) == (b'["kill"]', b"5 attempts")
    gateway.event("AAsid", "fine", ack=2)
    assert await gateway.next(1) == [("ack", "432[1]")]
    assert gateway.redis.call("HLEN", P + "tries:0") == 0
    program.kill()


async def test_partitions_that_only_change_hands_make_no_dead_letters(
    gateway: Gateway, make: Make, tmp_path: pathlib.Path
) -> None:
    gateway.put("event", 0, "AAsid", n="/", d='["n"]')
    # Owners that never look at it.
    for epoch in range(1, 12):
        gateway.redis.call("HSET", P + "owner", "0", f"- {epoch} 0")
        gateway.redis.call("XADD", P + "inbox:0", "*", "k", "event", "n", "/", "s", "AAsid", "d", '["n"]', "o", "1")
    sio = make()
    await sio.start()
    await gateway.until(lambda: gateway.pending() == 0)
    assert letters(gateway) == []


async def test_a_process_that_was_stopped_and_goes_on_is_fenced(gateway: Gateway, make: Make, tmp_path: pathlib.Path) -> None:
    body = """
    @sio.on("connect")
    async def connect(sid, environ): ...
    @sio.on("slow")
    async def slow(sid):
        await sio.emit("begun", os.getpid())
        if os.environ.get("FROZEN"):
            os.kill(os.getpid(), signal.SIGSTOP)
        await asyncio.sleep(0.05)
        await sio.emit("ended", sio.attempt)
        return "done"
    """
    frozen = Program(gateway, tmp_path, body, FROZEN="1")
    gateway.connect("AAsid")
    await gateway.next(1)
    gateway.event("AAsid", "slow", ack=5)
    await gateway.next(1)
    frozen.env.pop("FROZEN")
    stopped, other = frozen.child, None
    try:
        other = frozen.run()
        assert (await gateway.next(3))[1:] == [("emit", '42["ended",2]'), ("ack", '435["done"]')]
        stopped.send_signal(signal.SIGCONT)
        await gateway.until(lambda: len({*gateway.redis.call("HVALS", P + "names")}) == 2)
        gateway.event("AAsid", "slow", ack=6)
        after = await gateway.next(3)
        assert [text for kind, text in after if kind == "ack"] == ['436["done"]'], after
    finally:
        for child in (stopped, other):
            if child is not None:
                child.kill()
                child.wait()


async def test_a_handler_that_blocks_its_loop_keeps_its_partitions(gateway: Gateway, make: Make, tmp_path: pathlib.Path) -> None:
    body = """
    @sio.on("connect")
    async def connect(sid, environ): ...
    @sio.on("block")
    def block(sid):
        time.sleep(2)
        return sio.attempt
    """
    program = Program(gateway, tmp_path, body)
    gateway.connect("AAsid")
    await gateway.next(1)
    other = make()
    gateway.event("AAsid", "block", ack=1)
    await other.start()
    assert await gateway.next(1) == [("ack", "431[1]")]
    program.kill()


async def test_sigterm_finishes_what_runs_and_gives_the_rest_away(gateway: Gateway, make: Make, tmp_path: pathlib.Path) -> None:
    body = """
    @sio.on("connect")
    async def connect(sid, environ): ...
    @sio.on("slow")
    async def slow(sid):
        await sio.emit("begun")
        await asyncio.sleep(0.3)
        return sio.attempt
    """
    program = Program(gateway, tmp_path, body)
    gateway.connect("AAsid")
    await gateway.next(1)
    gateway.event("AAsid", "slow", ack=1)
    await gateway.next(1)
    began = time.monotonic()
    assert program.kill(signal.SIGTERM) == 0
    assert time.monotonic() - began < 5
    assert await gateway.next(1) == [("ack", "431[1]")]
    owners = gateway.redis.call("HVALS", P + "owner")
    assert all(owner.startswith(b"- ") for owner in owners), owners


async def test_once_is_settled_before_and_a_background_task_holds(gateway: Gateway, make: Make) -> None:
    sio, go = make(), asyncio.Event()
    sio.on("connect", lambda sid, environ: None)

    @sio.once("pay")
    async def pay(sid: str) -> int:
        await gateway.until(lambda: gateway.pending() == 0)
        return 1

    @sio.on("begin")
    async def begin(sid: str) -> None:
        sio.start_background_task(go.wait)

    await sio.start()
    gateway.connect("AAsid")
    gateway.event("AAsid", "pay", ack=1)
    assert (await gateway.next(2))[1] == ("ack", "431[1]")
    await gateway.until(lambda: gateway.pending() == 0)
    gateway.event("AAsid", "begin", ack=2)
    await gateway.next(1)
    await asyncio.sleep(0.05)
    assert gateway.pending() == 1
    go.set()
    await gateway.until(lambda: gateway.pending() == 0)


async def test_a_redis_that_restarts_empty_is_waited_for(gateway: Gateway, make: Make) -> None:
    sio = make()
    sio.on("connect", lambda sid, environ: None)
    await sio.start()
    gateway.connect("AAsid")
    await gateway.next(1)
    gateway.redis.call("SCRIPT", "FLUSH")
    gateway.redis.call("DEL", P + "link:1")
    emitting = asyncio.ensure_future(sio.emit("m"))
    await asyncio.sleep(0.1)
    assert not emitting.done()
    gateway.publish()
    await emitting
    assert await gateway.next(1) == [("emit", '42["m"]')]


def test_a_program_runs_unchanged(gateway_program: tuple[str, pathlib.Path]) -> None:
    url, path = gateway_program
    env = {**os.environ, "ANYWORKER_REDIS_URL": url}
    said = subprocess.run([sys.executable, "-m", "anyworker", str(path), "word"], env=env, capture_output=True, text=True)
    assert said.stdout == "anyworker._server ['word']\n", said.stderr
    missing = subprocess.run([sys.executable, "-m", "anyworker", "no-such"], capture_output=True, text=True)
    assert missing.returncode == 1 and "neither a file" in missing.stderr


@pytest.fixture
def gateway_program(redis_url: str, tmp_path: pathlib.Path) -> tuple[str, pathlib.Path]:
    path = tmp_path / "program.py"
    path.write_text("import socketio, sys\nprint(type(socketio.AsyncServer()).__module__, sys.argv[1:])\n")
    return redis_url, path
