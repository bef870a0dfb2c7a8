"""One thing that a client did, while its handler runs."""

from __future__ import annotations

import contextvars
import hashlib
from dataclasses import dataclass, field


@dataclass(eq=False)
class Record:
    """A record of the inbox in this process."""

    partition: str
    epoch: str
    id: str
    kind: str
    nsp: str
    sid: str
    attempt: int = 1
    #: A connect handler that runs again in another process: nothing of what it does is done again.
    muted: bool = False
    #: Settled, or no longer ours: what the tasks that it has left behind do is theirs alone.
    done: bool = False
    #: Another process has it.
    lost: bool = False
    #: It was counted as tried, so there is a count to be removed.
    counted: bool = False
    #: Handler and background tasks that keep it unsettled.
    holds: int = 1
    #: What was emitted how often: an effect of a repeated run is known by its content and by which one of the same it is.
    seen: dict[str, int] = field(default_factory=dict)

    def effect(self, *parts: str | bytes) -> str:
        """Under which name an effect counts once, however often the handler runs."""
        digest = hashlib.blake2b(digest_size=12)
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "big") + data)
        content = digest.hexdigest()
        times = self.seen[content] = self.seen.get(content, 0) + 1
        return f"{self.partition}/{self.id}/{content}/{times}"


#: The record whose handler this task belongs to.
current: contextvars.ContextVar[Record | None] = contextvars.ContextVar("anyworker_record", default=None)


def active() -> Record | None:
    """The record that the running code acts for, if it still does."""
    record = current.get()
    return None if record is None or (record.done and not record.lost) else record
