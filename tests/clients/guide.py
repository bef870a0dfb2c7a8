"""Uses the application of guide_app.py once, and says what came of it: a list in one line of JSON.

python guide.py --url URL --transports polling,websocket
"""

import argparse
import asyncio
import json
import os

import socketio

options = argparse.ArgumentParser()
options.add_argument("--url")
options.add_argument("--transports")
options = options.parse_args()
# python-engineio's polling client takes sixteen packets at a time.
PARTS = 10 if options.transports == "polling" else 200
PATIENCE = 10


async def main():
    transcript, heard = [], []

    async def client(name, auth, namespaces=("/",)):
        made = socketio.AsyncClient(reconnection=False)
        for event in ("welcome", "said", "part", "binary", "left"):
            made.on(event, lambda *args, event=event: heard.append([name, event, *args]))
        made.on("question", lambda data: ["answer", data["n"] + 1])
        made.on("hello", lambda *args: heard.append([name, "hello", *args]), namespace="/chat")
        await made.connect(
            options.url, auth=auth, transports=options.transports.split(","), namespaces=list(namespaces),
            headers={"X-Test": "agent"}, wait_timeout=PATIENCE,
        )
        return made

    async def step(what, said, events):
        # As many events as there are to be; one too many is in the next step.
        async with asyncio.timeout(PATIENCE):
            while len(heard) < events:
                await asyncio.sleep(0.01)
        transcript.append([what, said, sorted(heard[:events], key=lambda event: event[0])])
        del heard[:events]

    try:
        await client("x", None)
    except socketio.exceptions.ConnectionError as error:
        transcript.append(["refused", str(error)])
    ann = await client("ann", {"token": "ann"}, ("/", "/chat"))
    bob = await client("bob", {"token": "bob"})
    await step("in", None, 2)
    await step("join", await ann.call("join", "room"), 0)
    await step("join", await bob.call("join", "room"), 0)
    await step("say", await ann.call("say", ("room", "h\u00e9")), 1)
    await step("answer", await bob.call("answer", PARTS), PARTS)
    await step("ask", await ann.call("ask"), 0)
    await step("session", await ann.call("session"), 0)
    await step("binary", await ann.call("binary", {"raw": b"\0\1"}), 1)
    await step("other", await ann.call("anything", (1, [2])), 0)
    await step("chat", await ann.call("hello", "word", namespace="/chat"), 1)
    await bob.emit("dismiss")
    await step("dismissed", None, 1)
    cat = await client("cat", {"token": "cat"})
    await step("in", None, 1)
    # Its polling waits for the answer to a poll that is under way.
    leaving = asyncio.create_task(cat.disconnect())
    await ann.call("session")
    transcript.append(["rest", heard[1:] if heard[:1] and heard[0][1] == "left" else heard])
    leaving.cancel()
    print(json.dumps(transcript, default=lambda raw: raw.hex()), flush=True)
    os._exit(0)


asyncio.run(main())
