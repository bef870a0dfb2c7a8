"""Takes records of the partitions that this process owns, and has them handled."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from ._link import Link
from ._record import Record, current
from ._redis import RedisError, RedisGone

if TYPE_CHECKING:
    from ._server import AsyncServer

log = logging.getLogger("anyworker")

#: Records handled at a time; more wait in Redis, where clients feel it.
RUNNING_MAX = 1000
#: Records read of a partition at a time.
READ_MAX = 128
#: How long a read waits for something (ms).
BLOCK_MS = 5000
#: Pause after a read that failed (seconds).
AGAIN = 0.2
#: From this attempt on a record runs alone and is counted exactly: then it is known which one kills the process.
ALONE_FROM = 3
#: Longest time that a background task keeps a record unsettled (seconds).
HOLD_MAX = 600.0


class Consumer:
    """See the module. Everything but the lease thread runs in the loop of the application."""

    def __init__(self, server: AsyncServer, link: Link) -> None:
        self._server, self._link = server, link
        self._loop = asyncio.get_running_loop()
        self._owned: dict[str, str] = {}
        self._surplus: set[str] = set()
        self._cursors: dict[str, str] = {}
        self._running: dict[tuple[str, str], tuple[Record, asyncio.Task[None]]] = {}
        self._chains: dict[str, asyncio.Task[None]] = {}
        self._less = asyncio.Event()
        self._alone = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._mode, self._back = "run", set[str]()
        self._lock, self._now = threading.Lock(), threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_leases, name="anyworker-lease", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._spawn(self._read())

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = contextvars.Context().run(self._loop.create_task, work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # The lease: in a thread of its own, since a handler that blocks the loop must not cost the partitions.

    def _keep_leases(self) -> None:
        period = self._link.terms.lease / 3 if self._link.terms else 1.0
        while True:
            with self._lock:
                mode, back = self._mode, sorted(self._back)
                self._back.clear()
            try:
                said = self._link.run_blocking("lease", self._link.me, mode, self._link.name, *back)
                lines = [line.decode() for line in said]
                self._loop.call_soon_threadsafe(self._lease_told, lines)
            except (RedisError, RedisGone) as error:
                with self._lock:
                    self._back.update(back)
                log.warning("the lease of this process was not renewed: %s", error)
            except RuntimeError:
                return  # The loop has ended.
            if mode == "end":
                self._ended.set()
                return
            self._now.wait(period)
            self._now.clear()

    def _give_back(self, partitions: set[str]) -> None:
        with self._lock:
            self._back |= partitions
        self._now.set()

    def _lease_told(self, lines: list[str]) -> None:
        position, *lines = lines
        self._link.saw(*position.split(" "))
        pairs = [line.lstrip("-").split(" ") for line in lines]
        mine = {partition: epoch for partition, epoch in pairs}
        before = self._reading()
        for partition, epoch in self._owned.items():
            if mine.get(partition) != epoch:
                self._lose(partition)
        for partition, epoch in mine.items():
            if self._owned.get(partition) != epoch:
                self._cursors[partition] = "0-0"
        self._owned = mine
        self._surplus = {line[1:].split(" ")[0] for line in lines if line.startswith("-")}
        self._drained()
        if self._reading() != before:
            self._spawn(self._wake())

    def _reading(self) -> set[str]:
        return set() if self._draining else set(self._owned) - self._surplus

    def _drained(self) -> None:
        """Partitions that are to be given back, and of which nothing is under way any more."""
        busy = {partition for partition, _ in self._running}
        free = set(self._owned) - self._reading() - busy
        if free:
            self._give_back(free)

    def _lose(self, partition: str) -> None:
        for record, task in list(self._running.values()):
            if record.partition == partition:
                record.lost = record.done = True
                task.cancel()

    async def _wake(self) -> None:
        try:
            await self._link.commands.call("XADD", self._link.control(), "*", "k", "look")
        except (RedisError, RedisGone) as error:
            log.debug("the reader was not woken: %s", error)

    # Reading.

    async def _read(self) -> None:
        control, at = self._link.control(), "0-0"
        while True:
            while len(self._running) >= RUNNING_MAX:
                self._less.clear()
                await self._less.wait()
            names = {self._link.inbox(partition): partition for partition in self._reading()}
            streams = [control, *names]
            cursors = [at, *(self._cursors[partition] for partition in names.values())]
            try:
                said = await self._link.reader.call(
                    "XREAD", "COUNT", READ_MAX, "BLOCK", BLOCK_MS, "STREAMS", *streams, *cursors
                )
                for name, items in said or ():
                    for id, flat in items:
                        fields = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
                        if name.decode() == control:
                            at = id.decode()
                            self._control(fields)
                        else:
                            self._take(names[name.decode()], id.decode(), fields)
                    if name.decode() == control:
                        await self._link.commands.call("XDEL", control, *(id for id, _ in items))
            except (RedisError, RedisGone) as error:
                log.warning("the inbox was not read: %s", error)
                await asyncio.sleep(AGAIN)

    def _control(self, fields: dict[str, bytes]) -> None:
        if fields["k"] == b"ack":
            self._spawn(self._server.acked(fields))
        elif fields["k"] == b"wake":
            self._now.set()

    def _take(self, partition: str, id: str, fields: dict[str, bytes]) -> None:
        epoch = self._owned.get(partition)
        if epoch is None or partition not in self._reading() or (partition, id) in self._running:
            return
        self._cursors[partition] = id
        # Before a partition had an owner its epoch is 0, and the first one has 1.
        attempt = 1 + int(epoch) - max(1, int(fields["o"]))
        kind, nsp, sid = (fields[name].decode() for name in ("k", "n", "s"))
        record = Record(partition, epoch, id, kind, nsp, sid, max(1, attempt))
        before = self._chains.get(sid) if not self._server.async_handlers else None
        task = self._spawn(self._handle(record, fields, before))
        self._running[partition, id] = (record, task)
        if not self._server.async_handlers:
            self._chains[sid] = task
            task.add_done_callback(lambda done: self._chains.pop(sid, None) if self._chains.get(sid) is done else None)

    async def _handle(self, record: Record, fields: dict[str, bytes], before: asyncio.Task[None] | None) -> None:
        current.set(record)
        try:
            if before is not None:
                await asyncio.wait([before])
            if record.attempt < ALONE_FROM:
                await self._server.handle(record, fields)
            else:
                async with self._alone:
                    if await self._counted(record):
                        await self._server.handle(record, fields)
        except asyncio.CancelledError:
            # Not ours any more, or the process ends: another one will handle it.
            record.done = record.lost = True
            self._over(record)
            return
        except Exception:
            # As without anyworker: no ack, and the process goes on.
            log.exception("the handler of a %s failed", record.kind)
        self.release(record)

    async def _counted(self, record: Record) -> bool:
        """Counts the attempt before it is made; false if there were too many."""
        letter = await self._link.writer.put("try", record.partition, record.epoch, record.id)
        if letter == "f":
            raise asyncio.CancelledError
        record.counted = True
        # Two attempts went before the count.
        record.attempt = ALONE_FROM - 1 + int(letter)
        attempts = self._link.terms.attempts_max if self._link.terms else 5
        if record.attempt <= attempts:
            return True
        log.error("record %s of partition %s was given up after %d attempts", record.id, record.partition, attempts)
        await self._link.writer.put("dead", record.partition, record.epoch, record.id, f"{attempts} attempts")
        return False

    # Settling.

    def hold(self, record: Record, task: asyncio.Future[Any]) -> None:
        """A background task keeps its record unsettled: it begins anew if this process dies."""
        record.holds += 1
        late = self._loop.call_later(HOLD_MAX, self.release, record)

        def ended(_: asyncio.Future[Any]) -> None:
            if not late.cancelled() and late.when() > self._loop.time():
                late.cancel()
                self.release(record)

        task.add_done_callback(ended)

    def release(self, record: Record) -> None:
        """One thing less that keeps it."""
        record.holds -= 1
        if record.holds == 0 and not record.lost:
            self.settle(record)
        if record.holds <= 0:
            self._over(record)

    def settle(self, record: Record) -> asyncio.Future[str] | None:
        """It is handled."""
        if record.done:
            return None
        record.done = True
        counted = ("1",) if record.counted else ()
        return self._link.writer.put("settle", record.partition, record.epoch, record.id, *counted)

    def _over(self, record: Record) -> None:
        self._running.pop((record.partition, record.id), None)
        self._less.set()
        if record.partition in self._surplus or self._draining:
            self._drained()

    # The end.

    async def drain(self, grace: float) -> None:
        """Takes nothing more, lets handlers end, and gives the partitions away."""
        if self._draining:
            return
        self._draining = True
        with self._lock:
            self._mode = "drain"
        self._drained()
        self._now.set()
        deadline = time.monotonic() + grace
        while self._running and time.monotonic() < deadline:
            self._less.clear()
            try:
                await asyncio.wait_for(self._less.wait(), max(0.0, deadline - time.monotonic()))
            except asyncio.TimeoutError:
                break
        for record, task in list(self._running.values()):
            record.lost = True
            task.cancel()
        while not self._link.writer.idle and time.monotonic() < deadline + 1:
            await asyncio.sleep(0.005)
        with self._lock:
            self._mode = "end"
        self._now.set()
        await asyncio.get_running_loop().run_in_executor(None, self._ended.wait, 2.0)
        for task in list(self._tasks):
            task.cancel()
        self._link.close()
