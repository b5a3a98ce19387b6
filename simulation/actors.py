"""The processes of a fleet in one loop: each can be killed, and what it does then has no effect.

A process is a task and all that it started, known by a context variable. One that is killed is
cancelled; what it does on its way out (Python runs its `finally`) changes no file, sends nothing
and says nothing, as if it had ended where it was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from pathlib import Path


T = TypeVar("T")

PATIENCE = 10.0
"""Seconds after which a dead process that still cleans up is told once more."""
WHOLE = 16
"""Bytes that a kill does not tear."""


@dataclass(eq=False, slots=True)
class Actor:
    """A process: its name, and at which change of a file it is killed; 0 is never."""

    name: str
    die_at: int = 0
    dead: bool = False
    changes: int = 0
    cut_until: float = 0.0
    """Until when its link to nsqd is cut."""
    ended: bool = False
    task: asyncio.Task[Any] | None = None
    on_death: list[Callable[[], None]] = field(default_factory=list)

    async def live(self, program: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Run a program as this process; return None where it was killed."""
        token = ACTOR.set(self)
        self.task = asyncio.create_task(program())
        ACTOR.reset(token)
        try:
            while not self.task.done():
                await asyncio.wait({self.task}, timeout=PATIENCE)
                if self.dead:
                    self.task.cancel()
        finally:
            self.ended = True
            self.task.cancel()
        if not self.dead:
            return self.task.result()  # type: ignore[no-any-return]
        with contextlib.suppress(asyncio.CancelledError):
            self.task.exception()  # nobody else asks for it
        return None

    async def end(self) -> None:
        """Wait until the process has ended."""
        if self.task is not None:
            await asyncio.wait({self.task})

    def kill(self) -> None:
        """End the process here: nothing that it does from now on has an effect."""
        if self.dead or self.ended or self.task is None:
            return
        self.dead = True
        for tell in self.on_death:
            tell()
        asyncio.get_running_loop().call_soon(self.task.cancel)


ACTOR: ContextVar[Actor | None] = ContextVar("ACTOR", default=None)
"""The process that the running code belongs to; None is the history itself."""


def is_dead() -> bool:
    """Tell whether the running code is of a process that was killed."""
    actor = ACTOR.get()
    return actor is not None and actor.dead


class Guarded(httpx.AsyncBaseTransport):
    """The way to the service, which a dead process has no more."""

    def __init__(self, service: httpx.AsyncBaseTransport) -> None:
        self._service = service

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on."""
        if is_dead():
            raise httpx.ConnectError("the process is dead")
        return await self._service.handle_async_request(request)


class GuardedFiles:
    """The files of all: only the living change them, and some die at a change.

    Args:
        roots: The folders in which changes are counted.
        torn: Draws how much of a last write gets through.
    """

    def __init__(self, roots: Iterable[Path], torn: random.Random) -> None:
        self._inside = tuple(map(str, roots))
        self._torn = torn

    def install(self) -> None:
        """Wrap the calls of this process that change files."""
        for name in ("write", "pwrite"):
            self._wrap(name, lambda _place, data, *_: len(data))
        for name in ("fsync", "fdatasync", "ftruncate", "replace", "rename", "link", "unlink"):
            self._wrap(name, lambda *_: None)
        _guard_opening()

    def _wrap(self, name: str, nothing: Callable[..., Any]) -> None:
        original = getattr(os, name)

        def call(place: Any, *rest: Any, **named: Any) -> Any:
            actor = ACTOR.get()
            if actor is None or not (actor.dead or self._is_last(actor, place)):
                return original(place, *rest, **named)
            if not actor.dead and name.endswith("write") and len(rest[0]) > WHOLE:
                data = bytes(rest[0])
                original(place, data[: self._torn.randrange(len(data) + 1)], *rest[1:])
            actor.kill()
            return nothing(place, *rest)

        setattr(os, name, call)

    def _is_last(self, actor: Actor, place: Any) -> bool:
        if not actor.die_at:
            return False
        path = f"/proc/self/fd/{place}" if isinstance(place, int) else place
        actor.changes += os.path.realpath(path).startswith(self._inside)
        return actor.changes == actor.die_at


def _guard_opening() -> None:
    original = os.open

    def call(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if is_dead():
            flags &= ~(os.O_CREAT | os.O_TRUNC | os.O_EXCL)
        return original(path, flags, *rest, **named)

    setattr(os, "open", call)  # noqa: B010 - mypy knows its exact type


def is_alive(_record: logging.LogRecord) -> bool:
    """Tell whether what is logged is said by a living process."""
    return not is_dead()
