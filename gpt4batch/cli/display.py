"""How a run looks while it is on: a bar with its facts on a terminal, a line at times elsewhere."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

import anyio

from gpt4batch.cli.flags import say
from gpt4batch.cli.meter import Meter, Sample
from gpt4batch.cli.streams import tell
from gpt4batch.cli.units import duration, per_second, rate, rough
from gpt4batch.lines.steering import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from gpt4batch.batch.progress import Progress
    from gpt4batch.batch.status import Messages, Status, Worker
    from gpt4batch.settings import Settings

LONG_CALL = 10.0
"""Seconds after which the oldest call in flight is worth a word."""

GOOD, BAD, NOTE = "green", "red", "magenta"
"""Colours that are legible on black and on white."""


def terminal() -> Console | None:
    """Return the console on standard error, or None where nobody watches it."""
    if not sys.stderr.isatty() or os.environ.get("TERM") in ("dumb", "unknown", "", None):
        return None
    from rich.console import Console

    return Console(stderr=True, highlight=False)


class View:
    """What there is to tell of a run at a moment, in a few short facts."""

    def __init__(self, progress: Progress, look: Callable[[], Status], settings: Settings) -> None:
        self._progress = progress
        self._look = look
        self._settings = settings
        self._now = look()
        self._meter = Meter(min(settings.goroutine, max(progress.to_run, 1)))

    def look(self) -> None:
        """Look how far the run is; what is told is of this moment."""
        progress, self._now = self._progress, self._look()
        finished = progress.done + progress.failed
        self._meter.take(Sample(progress.elapsed, finished, self._now.calls.calls))

    @property
    def left(self) -> int:
        """Return the lines of this run that are not finished."""
        return self._progress.to_run - self._progress.done - self._progress.failed

    def lines(self) -> list[tuple[str, str]]:
        """Return facts about the lines, each with its style."""
        progress, now = self._progress, self._now
        ready = progress.done_before + progress.done
        facts = [(f"{ready:,}/{progress.total:,} " + say("done", "完成"), GOOD)]
        if progress.failed:
            facts.append((f"{progress.failed:,} " + say("failed", "失败"), BAD))
        facts.append((f"{self.left:,} " + say("left", "剩余"), ""))
        # Several asks of a line follow each other: a line has one call in flight at most.
        running = f"{now.calls.in_flight:,}/{now.places:,}"
        facts.append((running + say(" in flight", " 进行中"), ""))
        return facts

    def speed(self) -> list[tuple[str, str]]:
        """Return facts about the calls and the time."""
        progress, qps = self._progress, self._settings.qps
        calls = rate(self._meter.calls) + (f" (-q {qps:g})" if qps else "")
        facts = [(calls, ""), (self._time(), "")]
        if progress.seconds.count:
            middle = duration(progress.seconds.percentile(50))
            facts.append((say(f"half the answers within {middle}", f"半数应答在{middle}内"), ""))
        if usage := progress.usage.total:
            minute = f"{usage * 60 / max(progress.elapsed, 1.0):,.0f}"
            limit = f" (--tpm {self._settings.tpm:,})" if self._settings.tpm else ""
            facts.append((say(f"{minute} tokens a minute", f"每分钟{minute} token") + limit, ""))
        if price := self._settings.priced:
            facts.append((say("cost ", "费用 ") + f"{price.of(progress.usage):.4f}", ""))
        longest = self._now.calls.longest
        if longest >= LONG_CALL:
            waits = duration(longest)
            limit = duration(self._settings.timeout)
            text = say(f"longest call {waits} so far (--timeout {limit})", f"最长调用已{waits}")
            facts.append((text, ""))
        return facts

    def _time(self) -> str:
        progress = self._progress
        if progress.finishing:
            return say("putting the output in order", "正在按输入顺序整理输出")
        spent = duration(progress.elapsed)
        left = self._meter.left(self.left)
        if left is None:
            return say(
                f"{spent} so far, time left not known yet", f"已用{spent},剩余时间尚无法估计"
            )
        return say(f"{spent} so far, about {rough(left)} left", f"已用{spent},约剩{rough(left)}")

    def trouble(self) -> list[tuple[str, str]]:
        """Return facts about what holds the run up, if anything does."""
        now, facts = self._now, []
        if now.draining and not self._progress.finishing:
            grace = now.grace_left
            within = "" if grace == float("inf") else say(" within ", " ,限时") + duration(grace)
            text = say("stopping: lines in flight end", "正在停止: 等待进行中的行结束")
            facts.append((text + within, NOTE))
        if (probe := now.probe) is not None:
            left, wait, words = (
                duration(probe.left),
                duration(probe.next_in),
                printable(probe.words),
            )
            text = say(
                f"calls held: empty account or passing limit? next try in {wait}, "
                f"stops in {left} (--patience): {words}",
                f"已暂停调用: 余额用尽或临时限制? {wait}后再试, {left}后停止(--patience): {words}",
            )
            facts.append((text, NOTE))
        if now.cooling > 0:
            text = say("the service asks to wait: ", "服务要求等待: ") + duration(now.cooling)
            facts.append((text, NOTE))
        if 0 < now.pace < (self._settings.qps or float("inf")):
            text = say("slowed down by 429 to ", "因429降速至 ") + per_second(now.pace)
            facts.append((text, NOTE))
        if now.room:
            text = say(
                f"the service takes {now.room} calls at a time", f"服务只接受{now.room}个并发调用"
            )
            facts.append((text, NOTE))
        return facts

    def files(self) -> list[tuple[str, str]]:
        """Return facts about the workers, the downloads, the snapshot and NSQ."""
        now = self._now
        facts = [] if now.workers is None else [(_workers(now.workers), "")]
        if now.calls.downloads or now.fetching:
            text = f"{now.calls.downloads:,} " + say("files downloaded", "个文件已下载")
            coming = say(f", {now.fetching:,} under way", f",{now.fetching:,}个下载中")
            facts.append((text + (coming if now.fetching else ""), ""))
        if now.snapshot:
            facts.append((say("snapshot ", "快照 ") + printable(now.snapshot), ""))
        if now.messages is not None:
            facts.append(_nsq(now.messages))
        return facts

    def error(self) -> str:
        """Return the last error and how long ago it was."""
        progress = self._progress
        if not progress.last_error:
            return ""
        ago = rough(time.monotonic() - progress.last_error_at)
        text = " ".join(printable(progress.last_error).split())
        return say(f"last error, {ago} ago: {text}", f"最近错误({ago}前): {text}")


class Display:
    """A task that shows a run: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console | None, settings: Settings) -> None:
        self._console = console
        self._settings = settings

    async def show(self, progress: Progress, look: Callable[[], Status]) -> None:
        """Show the run until cancelled."""
        view = View(progress, look, self._settings)
        if self._console is None:
            await self._lines(view)
        else:
            from gpt4batch.cli.picture import Picture

            with suppress(OSError):  # a terminal that is gone takes no picture
                await Picture(self._console, progress, view).draw()

    async def _lines(self, view: View) -> None:
        waited = 0.0
        while True:
            step = min(1.0, max(self._settings.progress_interval - waited, 0.1))
            await anyio.sleep(step)  # the meter needs a sample a second
            waited += step
            view.look()
            if waited >= self._settings.progress_interval:
                waited = 0.0
                tell(plain(view))


def _workers(workers: tuple[Worker, ...]) -> str:
    """Return what each worker is at: lines of its places, and its errors by kind."""
    rows = []
    for worker in workers:
        row = f"{worker.name} {worker.busy}/{worker.places}"
        if errors := ", ".join(f"{kind}: {count}" for kind, count in worker.errors.items()):
            row += f" ({errors})"
        if reason := worker.left_out:
            row += say(f", left out: {reason}", f",已停用: {reason}")
        rows.append(row)
    count = f"{len(rows)} " + say("workers", "个worker")
    return printable(count + (": " + "; ".join(rows) if rows else ""))


def _nsq(nsq: Messages) -> tuple[str, str]:
    text = say(f"NSQ: {nsq.sent:,} published", f"NSQ: 已发布{nsq.sent:,}")
    text += say(f", {nsq.left:,} waiting", f",等待{nsq.left:,}") if nsq.left else ""
    text += say(f", {nsq.dropped:,} lost", f",丢失{nsq.dropped:,}") if nsq.dropped else ""
    text += say(" (nsqd does not answer)", " (nsqd无应答)") if nsq.trouble else ""
    return text, BAD if nsq.dropped else NOTE if nsq.trouble else ""


def plain(view: View) -> str:
    """Return the state of the run in one line."""
    facts = [*view.lines(), *view.trouble(), *view.speed(), *view.files()]
    moment = datetime.now().astimezone().strftime("%H:%M:%S")
    text = f"{moment} " + ", ".join(fact for fact, _ in facts)
    if error := view.error():
        text += f"; {error}"
    return text
