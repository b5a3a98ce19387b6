"""The messages that wait for nsqd, and those that are too big for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from gpt4batch.nsq.spool import Backlog, Spool
from gpt4batch.words import tr

if TYPE_CHECKING:
    from contextlib import AsyncExitStack
    from pathlib import Path

SYNC = 1.0
"""Seconds after which what waits still is brought to the disk."""


class Waiting:
    """Two queues: one goes out in order, one keeps what nsqd does not take.

    Args:
        kept: The file of the one, with the other beside it; or a backlog in memory.
        room: Bytes that may wait in the file.
    """

    def __init__(self, kept: Path | Backlog, room: int) -> None:
        self._kept = kept
        self._room = room
        self.queue: Spool | Backlog
        self.big: Spool | Backlog

    @property
    def path(self) -> Path | str:
        """Return where messages wait."""
        return "memory" if isinstance(self._kept, Backlog) else self._kept

    def __len__(self) -> int:
        """Return how many messages there are, those too big for nsqd included."""
        return self.queue.waiting + self.big.waiting

    @property
    def too_big(self) -> int:
        """Return how many messages are too big for nsqd."""
        return self.big.waiting

    def _try_again(self, queue: Spool) -> None:
        """Put at the end what was too big for nsqd: another one may take it."""
        moved = 0
        while (body := self.big.next()) is not None and queue.append(body):
            moved += 1
        if moved:
            queue.sync()  # what is forgotten there has to be safe here
        self.big.acknowledge(moved)
        self.big.rewind()

    async def keep_synced(self) -> None:
        """Bring to the disk, until cancelled, what waits for longer than a second."""
        while isinstance(self.queue, Spool):
            await anyio.sleep(SYNC)
            if self.queue.is_late():
                await anyio.to_thread.run_sync(self.queue.sync)

    def keep(self, body: bytes) -> bool:
        """Add a message; one that finds no room in the file, of which it tells, is held."""
        roomy = self.queue.append(body)
        if not roomy and isinstance(self.queue, Spool):
            self.queue.hold(body)
        return roomy

    def unkept(self) -> list[bytes]:
        """Return the messages that wait in memory only, and end with this process."""
        return list(self.queue.held) if isinstance(self.queue, Spool) else []

    def put_aside(self, body: bytes, place: str, limit: int) -> tuple[bool, str]:
        """Keep a message that is too big for nsqd; tell whether there was room, and what to say."""
        kept = self.big.append(body)
        if isinstance(self.big, Spool):
            self.big.sync()
        big = tr(
            "a message of {count} bytes, compressed too, is over the limit of nsqd at "
            "{place} (--max-msg-size {limit}): ",
            count=len(body),
            place=place,
            limit=limit,
        )
        if not kept:
            return False, big + tr("it is in the output only")
        return True, big + tr("kept in {path}", path=self.big.path)

    def open(self, stack: AsyncExitStack) -> list[str]:
        """Open the files, with what an earlier run left in them at the front of the queue.

        Args:
            stack: Closes them.

        Returns:
            What is worth saying of it.
        """
        if isinstance(self._kept, Backlog):
            self.queue, self.big = self._kept, Backlog()
            return []
        big = self._kept.with_name(f"{self._kept.name}-too-big")
        self.queue = Spool(self._kept, self._room)
        stack.callback(self.queue.close)
        self.big = Spool(big)
        stack.callback(self.big.close)
        said: list[str] = [
            tr(
                "{path}: {cut} bytes at its end were an incomplete message",
                path=spool.path,
                cut=spool.cut,
            )
            for spool in (self.queue, self.big)
            if spool.cut
        ]
        self._try_again(self.queue)
        if self.queue.waiting:
            count = self.queue.waiting
            said.append(
                tr(
                    "{count} messages of an earlier run in {path} go first",
                    count=count,
                    path=self.path,
                )
            )
        return said
