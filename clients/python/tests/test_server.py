"""Handlers, emits, rooms, sessions, calls and namespaces, as an application uses them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anyworker
import pytest
import socketio
from conftest import P, Gateway, Make

HAS_REASON = hasattr(socketio.AsyncServer, "reason")


async def test_a_client_is_let_in_and_its_event_is_acked(gateway: Gateway, make: Make) -> None:
    sio, seen = make(), []

    @sio.event
    async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
        seen.append((environ["HTTP_COOKIE"], environ["REMOTE_ADDR"], environ["QUERY_STRING"], auth))
        await sio.emit("hello", {"sid": sid}, to=sid)

    @sio.on("add")
    async def add(sid: str, a: int, b: int) -> int:
        return a + b

    @sio.on("pair")
    def pair(sid: str) -> tuple[int, bytes]:
        return 1, b"raw"

    await sio.start()
    gateway.connect("AAsid", auth={"token": "t"})
    assert await gateway.next(2) == [("emit", '42["hello",{"sid":"AAsid"}]'), ("admit", "")]
    assert gateway.entries[0][0]["r"] == ["AAsid"]
    assert seen == [("who=me", "10.0.0.1", "EIO=4", {"token": "t"})]
    gateway.event("AAsid", "add", 3, 4, ack=7)
    gateway.event("AAsid", "pair", ack=8)
    assert sorted(await gateway.next(2)) == [("ack", "437[7]"), ("ack", '461-8[1,{"_placeholder":true,"num":0}]')]
    assert [raw for _, text, raw in gateway.entries if text.startswith("461")] == [[b"raw"]]
    await gateway.until(lambda: gateway.pending() == 0)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda: False, {"message": "Connection rejected by server"}),
        (lambda: (_ for _ in ()).throw(socketio.exceptions.ConnectionRefusedError("no", 5)), {"message": "no", "data": 5}),
    ],
)
async def test_a_refused_client_hears_why(gateway: Gateway, make: Make, answer: Any, error: Any) -> None:
    sio, gone = make(), []
    sio.on("disconnect", lambda sid, *reason: gone.append(sid))

    @sio.event
    def connect(sid: str, environ: dict[str, Any]) -> Any:
        return answer()

    await sio.start()
    gateway.connect("AAsid")
    [(kind, text)] = await gateway.next(1)
    assert (kind, json.loads(text)) == ("refuse", error)
    await gateway.until(lambda: gateway.pending() == 0)
    assert gateway.leave("AAsid") == "n"
    assert gone == []


async def test_always_connect_lets_in_first_and_disconnects_then(gateway: Gateway, make: Make) -> None:
    sio = make(always_connect=True)
    sio.on("connect", lambda sid, environ: False)
    await sio.start()
    gateway.connect("AAsid")
    assert await gateway.next(2) == [("admit", ""), ("disconnect", "false")]


async def test_an_unknown_namespace_is_refused(gateway: Gateway, make: Make) -> None:
    sio = make()
    sio.on("x", lambda sid: None)
    await sio.start()
    gateway.connect("AAsid", nsp="/none")
    [(kind, text)] = await gateway.next(1)
    assert (kind, json.loads(text)["message"]) == ("refuse", "Unable to connect")


async def test_rooms_are_those_of_all_processes(gateway: Gateway, make: Make) -> None:
    one, other = make(), make()
    for sio in (one, other):
        sio.on("connect", lambda sid, environ: None)
        await sio.start()
    gateway.connect("AAsid")
    gateway.connect("AAother")
    await gateway.next(2)
    await one.enter_room("AAsid", "room")
    await other.enter_room("AAother", "room")
    assert await gateway.next(2) == [("join", '["room"]'), ("join", '["room"]')]
    assert one.rooms("AAsid") == ["AAsid", "room"]
    assert sorted(sid for sid, _ in other.manager.get_participants("/", "room")) == ["AAother", "AAsid"]
    assert set(other.manager.rooms["/"]["room"]) == set(other.manager.rooms.get("/").get("room")) == {"AAsid", "AAother"}
    assert other.manager.rooms["/"].get("none") is None
    await one.emit("m", 1, room="room", skip_sid="AAother")
    await one.emit("all")
    await gateway.next(2)
    assert [(head.get("r"), head.get("x"), text) for head, text, _ in gateway.entries[-2:]] == [
        (["room"], ["AAother"], '42["m",1]'), (None, None, '42["all"]'),
    ]
    await one.leave_room("AAsid", "room")
    await one.close_room("room")
    assert await gateway.next(2) == [("leave", '["room"]'), ("leave", '["room"]')]
    assert list(other.manager.get_participants("/", "room")) == []
    with pytest.raises(ValueError):
        await one.enter_room("AAnone", "room")


async def test_a_session_is_that_of_the_socket(gateway: Gateway, make: Make) -> None:
    one, other = make(), make()

    @one.event
    async def connect(sid: str, environ: dict[str, Any]) -> None:
        await one.save_session(sid, {"user": "a", "list": []})

    await one.start()
    gateway.connect("AAsid")
    await gateway.next(1)
    async with one.session("AAsid") as session:
        session["more"] = [1]
    assert await other.get_session("AAsid") == {"user": "a", "list": [], "more": [1]}
    assert other.get_environ("AAsid")["HTTP_COOKIE"] == "who=me"
    assert other.transport("AAsid") == "polling"


async def test_a_call_waits_for_the_client(gateway: Gateway, make: Make) -> None:
    sio, said = make(), []
    sio.on("connect", lambda sid, environ: None)

    @sio.on("ask")
    async def ask(sid: str) -> Any:
        answer = await sio.call("question", {"n": 1}, to=sid)
        said.append(answer)
        return answer

    await sio.start()
    gateway.connect("AAsid")
    gateway.event("AAsid", "ask", ack=1)
    [_, (_, text)] = await gateway.next(2)
    id = int(text[2 : text.index("[")])
    assert id >> 32 == sio.number and id < 1 << 53
    raw = {"d": '[{"_placeholder":true,"num":0}]', "b0": b"raw"}
    assert gateway.put("answer", id >> 32, "AAsid", k="ack", i=str(id), **raw) == "o"
    [(kind, _)] = await gateway.next(1)
    assert (kind, said, gateway.entries[-1][2]) == ("ack", [b"raw"], [b"raw"])
    with pytest.raises(socketio.exceptions.TimeoutError):
        await sio.call("question", to="AAsid", timeout=0.01)


async def test_namespace_classes_wildcards_and_binary(gateway: Gateway, make: Make) -> None:
    sio, seen = make(namespaces=["/chat"]), []

    class Chat(socketio.AsyncNamespace):
        async def on_connect(self, sid: str, environ: dict[str, Any]) -> None:
            await self.enter_room(sid, "all")

        async def on_file(self, sid: str, data: Any) -> int:
            seen.append(data)
            return len(data["raw"])

    sio.register_namespace(Chat("/chat"))

    @sio.on("*")
    async def other(event: str, sid: str, *args: Any) -> None:
        seen.append((event, sid, args))

    await sio.start()
    gateway.connect("AAsid")
    gateway.connect("AAchat", nsp="/chat")
    gateway.event("AAsid", "anything", 1)
    gateway.event("AAchat", "file", {"raw": {"_placeholder": True, "num": 0}}, nsp="/chat", ack=3, b0=b"\0\1")
    entries = await gateway.next(4)
    assert ("ack", "43/chat,3[2]") in entries
    assert ("anything", "AAsid", (1,)) in seen and {"raw": b"\0\1"} in seen


async def test_a_disconnect_is_told_once_and_leaves_nothing(gateway: Gateway, make: Make) -> None:
    sio, gone = make(), []
    sio.on("connect", lambda sid, environ: None)
    sio.on("disconnect", lambda sid, *reason: gone.append((sid, *reason)))
    await sio.start()
    for sid in ("AAleft", "AAkicked"):
        gateway.connect(sid)
        await gateway.next(1)
        await sio.enter_room(sid, "room")
        await gateway.next(1)
    assert [gateway.leave("AAleft"), gateway.leave("AAleft", "transport close")] == ["o", "n"]
    await sio.disconnect("AAkicked")
    assert await gateway.next(1) == [("disconnect", "false")]
    await gateway.until(lambda: gateway.pending() == 0)
    reasons = [("AAleft", "client disconnect"), ("AAkicked", "server disconnect")]
    assert sorted(gone) == sorted(reasons if HAS_REASON else [(sid,) for sid, _ in reasons])
    left = [key for key in gateway.redis.call("KEYS", P + "*") if b"sock:" in key or b"room:" in key or b"in:" in key]
    assert left == []


async def test_events_of_a_socket_are_begun_in_order_or_one_after_the_other(gateway: Gateway, make: Make) -> None:
    sio, seen = make(async_handlers=False), []

    @sio.on("n")
    async def n(sid: str, number: int) -> None:
        seen.append(("begin", number))
        await asyncio.sleep(0.001)
        seen.append(("end", number))

    await sio.start()
    gateway.connect("AAsid")
    for number in range(20):
        gateway.event("AAsid", "n", number)
    await gateway.until(lambda: len(seen) == 40)
    assert seen == [(what, number) for number in range(20) for what in ("begin", "end")]


def test_without_a_gateway_it_is_python_socketio(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("ANYWORKER_REDIS_URL", raising=False)
    from anyworker import _server

    monkeypatch.setattr(_server, "_said", set())
    first, second = anyworker.AsyncServer(async_mode="asgi"), anyworker.AsyncServer(async_mode="asgi")
    assert type(first.eio).__module__.startswith("engineio") and isinstance(second, socketio.AsyncServer)
    assert type(first.manager) is socketio.AsyncManager
    assert len([r for r in caplog.records if "ANYWORKER_REDIS_URL is not set" in r.message]) == 1


def test_options_that_cannot_be_are_refused_with_a_remedy(redis_url: str) -> None:
    with pytest.raises(ValueError, match="leave client_manager away"):
        anyworker.AsyncServer(object(), redis_url=redis_url)
    with pytest.raises(ValueError, match="default protocol"):
        anyworker.AsyncServer(serializer="msgpack", redis_url=redis_url)
    with pytest.raises(ValueError, match="redis://"):
        anyworker.AsyncServer(redis_url="http://x")


async def test_without_a_worker_the_error_says_what_to_start(redis_url: str) -> None:
    sio = anyworker.AsyncServer(async_mode="asgi", redis_url=redis_url)
    with pytest.raises(anyworker.LinkError, match='kind = "external"'):
        await sio.start()
