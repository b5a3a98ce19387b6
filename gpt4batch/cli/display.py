"""How a run looks while it is on: a bar with its facts on a terminal, a line at times elsewhere."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import PurePath
from typing import TYPE_CHECKING

import anyio

from gpt4batch.cli.meter import Meter, Sample
from gpt4batch.cli.streams import tell
from gpt4batch.cli.units import duration, per_second, rate, rough
from gpt4batch.lines.steering import printable
from gpt4batch.words import counted, joined, say, spoken, tr

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from gpt4batch.batch.progress import Progress
    from gpt4batch.batch.status import Status, Worker
    from gpt4batch.settings import Settings

LONG_CALL = 10.0
"""Seconds after which the oldest call in flight is worth a word."""

MANY_TIMEOUTS = 3
"""Calls without an answer in time after which the limit itself is in doubt."""

FAR = 600.0
"""Seconds left from which on the end is told as a time of the clock too."""

SETTLED = 30.0
"""Seconds after which the pace of a run tells something."""

BASIS_OF_MEDIAN = 5
"""Answers from which on the middle of their times is told."""

GOOD, BAD, NOTE = "green", "red", "magenta"
"""Colours that are legible on black and on white."""


def terminal() -> Console | None:
    """Return the console on standard error, or None where nobody watches it."""
    if not sys.stderr.isatty() or os.environ.get("TERM") in ("dumb", "unknown", "", None):
        return None
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def notify(text: str) -> None:
    """Ring the bell of the terminal and let it show a text; nothing where nobody watches it."""
    if terminal() is not None:
        with suppress(OSError):
            sys.stderr.write(f"\a\x1b]9;{printable(text)}\x1b\\")
            sys.stderr.flush()


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
    def name(self) -> str:
        """Return the name of the output."""
        return printable(PurePath(self._settings.out).name)

    @property
    def left(self) -> int:
        """Return the lines of this run that are not finished."""
        return self._progress.to_run - self._progress.done - self._progress.failed

    def lines(self) -> list[tuple[str, str]]:
        """Return facts about the lines, each with its style."""
        progress, now = self._progress, self._now
        ready = progress.done_before + progress.done
        facts = [(say("{ready:,}/{total:,} done", ready=ready, total=progress.total), GOOD)]
        if progress.failed:
            facts.append((say("{number:,} failed", number=progress.failed), BAD))
        facts.append((say("{number:,} left", number=self.left), ""))
        # Several asks of a line follow each other: a line has one call in flight at most.
        calls, places = now.calls.in_flight, now.places
        facts.append((say("{calls:,}/{places:,} in flight", calls=calls, places=places), ""))
        return facts

    def speed(self) -> list[tuple[str, str]]:
        """Return facts about the calls and the time."""
        progress, qps = self._progress, self._settings.qps
        calls = per_second(self._meter.calls) + f" (-q {qps:g})" if qps else rate(self._meter.calls)
        facts = [(calls, ""), (self._time(), ""), *self._attempts()]
        if progress.seconds.count >= BASIS_OF_MEDIAN:
            middle = duration(progress.seconds.percentile(50))
            facts.append((say("half the answers within {time}", time=middle), ""))
        if usage := progress.usage.total:
            minute = usage * 60 / max(progress.elapsed, 1.0)
            limit = f" (--tpm {self._settings.tpm:,})" if self._settings.tpm else ""
            facts.append((say("{number:,.0f} tokens a minute", number=minute) + limit, ""))
        if price := self._settings.priced:
            facts.append((say("cost {cost:.4f}", cost=price.of(progress.usage)), ""))
        flying = self._now.calls
        if flying.longest >= LONG_CALL:
            text = counted(
                "waiting for {n:,} answer for {time} (--timeout {limit})",
                "waiting for {n:,} answers, for the oldest {time} (--timeout {limit})",
                flying.in_flight,
                time=duration(flying.longest),
                limit=duration(self._settings.timeout),
            )
            facts.append((spoken(text), ""))
        return facts

    def _attempts(self) -> list[tuple[str, str]]:
        """Return how many calls were made where it is not plain from the lines."""
        progress, lost = self._progress, self._now.calls.unanswered
        if not progress.retries and not lost:
            return []
        parts = [counted("{n:,} chat call", "{n:,} chat calls", progress.chats)]
        if progress.retries:
            parts.append(tr("{number:,} of them tried again", number=progress.retries))
        if lost:
            parts.append(tr("{number:,} without a reply (may be paid for)", number=lost))
        facts = [(spoken(joined(", ", parts)), "")]
        if progress.timeouts >= MANY_TIMEOUTS:
            text = say(
                "{n:,} calls had no answer within {time}: --timeout may be too short here",
                n=progress.timeouts,
                time=duration(self._settings.timeout),
            )
            facts.append((text, NOTE))
        return facts

    def _time(self) -> str:
        progress, now = self._progress, self._now
        if progress.finishing:
            return say("putting the output in order")
        if progress.elapsed < 1:
            return say("starting")
        spent = duration(progress.elapsed)
        if now.draining:  # what is left is left: only the end of the grace counts
            return say("{spent} so far", spent=spent)
        left = self._meter.left(self.left)
        if left is not None:
            text = say("{spent} so far, about {left} left", spent=spent, left=rough(left))
            today = datetime.now().astimezone()
            end = today + timedelta(seconds=left)
            clock = end.strftime("%H:%M" if end.date() == today.date() else "%Y-%m-%d %H:%M")
            return text if left < FAR else say("{text} (until {clock})", text=text, clock=clock)
        # What is needed if every call takes as long as the fastest so far.
        waiting = max(0, self.left - now.calls.in_flight) if progress.seconds.count else 0
        least = waiting / max(now.places, 1) * progress.seconds.least if waiting else 0.0
        if least < LONG_CALL:
            return say("{spent} so far, time left not known yet", spent=spent)
        return say("{spent} so far, at least {left} left", spent=spent, left=rough(least))

    def trouble(self) -> list[tuple[str, str]]:
        """Return facts about what holds the run up, if anything does."""
        now, facts = self._now, []
        if now.draining and not self._progress.finishing:
            running = self._progress.running
            text = counted(
                "stopping: {n:,} line in flight", "stopping: {n:,} lines in flight", running
            )
            if now.grace_left != float("inf"):
                text = tr("{text}, at most {time}", text=text, time=duration(now.grace_left))
            facts.append(spoken(text))
        if (probe := now.probe) is not None:
            facts.append(
                say(
                    "calls held: empty account or passing limit? next try in {wait}, "
                    "stops in {left} (--patience): {words}",
                    wait=duration(probe.next_in),
                    left=duration(probe.left),
                    words=printable(spoken(probe.words)),
                )
            )
        if now.cooling > 0:
            facts.append(say("the service asks to wait: {time}", time=duration(now.cooling)))
        if 0 < now.pace < (self._settings.qps or float("inf")):
            facts.append(say("slowed down by 429 to {rate}", rate=per_second(now.pace)))
        if self._is_held_by_places():
            facts.append(
                say("all {places} places are taken: -g limits the pace, not -q", places=now.places)
            )
        if now.room:
            facts.append(say("the service takes {number} calls at a time", number=now.room))
        return [(text, NOTE) for text in facts]

    def _is_held_by_places(self) -> bool:
        """Return whether the run would be faster with more lines at a time."""
        now, qps = self._now, self._settings.qps
        if not qps or 0 < now.pace < qps or now.cooling > 0 or now.room or now.draining:
            return False  # something else limits it, or nothing does
        full = now.calls.in_flight >= now.places < self.left
        settled = self._progress.elapsed >= SETTLED
        return full and settled and self._meter.calls < qps * 0.9

    def files(self) -> list[tuple[str, str]]:
        """Return facts about the workers, the downloads, the snapshot and NSQ."""
        now = self._now
        facts = [] if now.workers is None else [(_workers(now.workers), "")]
        if now.calls.downloads or now.fetching:
            text = say("{number:,} files downloaded", number=now.calls.downloads)
            if now.fetching:
                text = say("{text}, {number:,} under way", text=text, number=now.fetching)
            facts.append((text, ""))
        if now.snapshot:
            facts.append((say("snapshot {name}", name=printable(now.snapshot)), ""))
        if (nsq := now.messages) is not None:
            parts = [tr("NSQ: {number:,} published", number=nsq.sent)]
            if nsq.left:
                parts.append(tr("{number:,} waiting", number=nsq.left))
            if nsq.dropped:
                parts.append(tr("{number:,} lost", number=nsq.dropped))
            if nsq.trouble:
                parts.append(tr("nsqd does not answer"))
            style = BAD if nsq.dropped else NOTE if nsq.trouble else ""
            facts.append((spoken(joined(", ", parts)), style))
        return facts

    def error(self) -> tuple[str, str]:
        """Return the last error and how long ago it was, with its style: only failures are red."""
        last = self._progress.last
        if last is None:
            return "", ""
        ago = rough(time.monotonic() - last.at)
        text = " ".join(printable(spoken(last.text)).split())
        if last.fails:
            return say("last failure, {ago} ago: {text}", ago=ago, text=text), BAD
        return say("last retry, {ago} ago: {text}", ago=ago, text=text), NOTE


class Display:
    """A task that shows a run: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console | None, settings: Settings) -> None:
        self._console = console
        self._settings = settings

    async def show(self, progress: Progress, look: Callable[[], Status]) -> None:
        """Show the run until cancelled."""
        view = View(progress, look, self._settings)
        if self._console is not None:
            from gpt4batch.cli.picture import Picture

            with suppress(OSError):  # a terminal that is gone takes no picture
                await Picture(self._console, progress, view).draw()
            return
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
            row = say("{row}, left out: {reason}", row=row, reason=reason)
        rows.append(row)
    text = spoken(counted("{n} worker", "{n} workers", len(rows)))
    return printable(": ".join(filter(None, (text, "; ".join(rows)))))


def plain(view: View) -> str:
    """Return the state of the run in one line."""
    facts = [*view.lines(), *view.trouble(), *view.speed(), *view.files()]
    moment = datetime.now().astimezone().strftime("%H:%M:%S")
    text = f"{moment} " + spoken(joined(", ", [fact for fact, _ in facts]))
    return spoken(joined("; ", filter(None, (text, view.error()[0]))))
