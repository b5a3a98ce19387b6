"""How a run looks while it is on, and what is said of it at the end."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import anyio

from gpt4batch.cli.flags import say
from gpt4batch.cli.logs import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from gpt4batch.batch import Batch, Summary
    from gpt4batch.fleet import Fleet
    from gpt4batch.progress import Progress

REFRESH = 0.25


def terminal() -> Console | None:
    """Return the console on standard error, or None where nobody watches it."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return None
    from rich.console import Console

    return Console(stderr=True)


def duration(seconds: float) -> str:
    """Return a time in its two largest units."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, lesser, part in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {lesser}" if rest else "")
    return f"{whole} s"


def size(count: int) -> str:
    """Return a number of bytes in its largest unit."""
    value, units = float(count), ["B", "KB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


class Meter:
    """The recent speed of a run: lines and calls over the last half minute."""

    SPAN = 30.0

    def __init__(self) -> None:
        self._samples: list[tuple[float, int, int]] = []

    def sample(self, progress: Progress) -> tuple[float, float]:
        """Take a sample; return lines and calls a second."""
        now = (progress.elapsed, progress.done + progress.failed, progress.chats)
        self._samples.append(now)
        while len(self._samples) > 2 and now[0] - self._samples[1][0] > self.SPAN:
            del self._samples[0]
        first = self._samples[0]
        span = now[0] - first[0]
        if span < 0.5:
            return 0.0, 0.0
        return (now[1] - first[1]) / span, (now[2] - first[2]) / span


class Display:
    """A task that shows a run: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console | None, interval: float) -> None:
        self._console = console
        self._interval = interval
        self._meter = Meter()

    async def show(self, progress: Progress, batch: Batch) -> None:
        """Show the run until cancelled."""
        if self._console is None:
            await self._lines(progress, batch)
        else:
            await self._bar(self._console, progress, batch)

    async def _lines(self, progress: Progress, batch: Batch) -> None:
        while True:
            await anyio.sleep(max(self._interval, 0.1))
            sys.stderr.write(f"{self.plain(progress, batch)}\n")
            sys.stderr.flush()

    def plain(self, progress: Progress, batch: Batch) -> str:
        """Return the state of the run in one line."""
        lines, calls = self._meter.sample(progress)
        ready = progress.done_before + progress.done
        parts = [f"{ready}/{progress.total} " + say("done", "完成")]
        if progress.failed:
            parts.append(f"{progress.failed} " + say("failed", "失败"))
        limit = f"/{batch.settings.qps:g}" if batch.settings.qps else ""
        parts.append(f"{calls:.1f}{limit} " + say("calls/s", "次/秒"))
        parts += self._fleet(batch.fleet) if batch.fleet else self._here(batch)
        left = progress.to_run - progress.done - progress.failed
        if lines > 0 and left > 0:
            parts.append(duration(left / lines) + say(" left", " 剩余"))
        return ", ".join(parts)

    def _here(self, batch: Batch) -> list[str]:
        in_flight = f"{batch.client.in_flight}/{batch.settings.goroutine}"
        parts = [in_flight + say(" in flight", " 进行中")]
        if cooling := batch.pacer.cooling:
            parts.append(say("waiting ", "等待 ") + duration(cooling))
        return parts

    def _fleet(self, fleet: Fleet) -> list[str]:
        """Return what each worker is at: lines of its places, and its errors by kind."""
        rows = []
        for name, member in sorted(fleet.members.items()):
            report = member.report
            row = f"{name} {report.places - report.free}/{report.places}"
            if errors := ", ".join(f"{kind} {count}" for kind, count in report.errors.items()):
                row += f" ({errors})"
            rows.append(row)
        count = f"{len(rows)} " + say("workers", "个worker")
        return [count + (": " + "; ".join(rows) if rows else "")]

    async def _bar(self, console: Console, progress: Progress, batch: Batch) -> None:
        from rich.live import Live

        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self._picture(progress, batch), refresh=True)
                await anyio.sleep(REFRESH)

    def _picture(self, progress: Progress, batch: Batch) -> RenderableType:
        from rich.console import Group
        from rich.padding import Padding
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        ready = progress.done_before + progress.done + progress.failed
        # A bare bar ends without a newline: what follows would be cropped with its line.
        bar = Padding(ProgressBar(total=max(progress.total, 1), completed=ready), 0)
        rows: list[RenderableType] = [bar, Text(self.plain(progress, batch), overflow="ellipsis")]
        if progress.last_error:
            text = say("last error: ", "最近错误: ") + printable(progress.last_error)
            rows.append(Text(text, style="yellow", overflow="ellipsis", no_wrap=True))
        return Group(*rows)


def farewell(summary: Summary, command: str) -> str:
    """Return the end of a run in words.

    Args:
        summary: What came of it.
        command: The command line that goes on with it.
    """
    rows = [_lines_row(summary), _calls_row(summary), *_failure_rows(summary)]
    rows += _fleet_rows(summary)
    rows += [
        f"{name} {value}"
        for name, value in (
            (say("output:   ", "输出:"), summary.out),
            (say("downloads:", "下载:"), _downloads(summary)),
            (say("earlier output:", "原输出文件:"), summary.moved_to),
            (say("stopped:  ", "已停止:"), summary.stopped),
            (say("go on with:", "续跑命令:"), command if summary.done < summary.lines else ""),
        )
        if value
    ]
    return printable("\n".join(rows))


def _lines_row(summary: Summary) -> str:
    row = f"{summary.done}/{summary.lines}" + say(" lines done", " 行完成")
    before, failed, left = summary.done_before, summary.failed, summary.not_run
    if before:
        row += say(f" ({before} before this run)", f" (此前{before}行)")
    if failed:
        row += say(f", {failed} failed", f", {failed} 行失败")
    if left:
        row += say(f", {left} not run", f", {left} 行未运行")
    return row


def _calls_row(summary: Summary) -> str:
    row = say(f"{summary.chats} chat calls", f"{summary.chats} 次对话调用")
    if summary.retries:
        row += say(f", {summary.retries} tries again", f", {summary.retries} 次重试")
    row += f", {duration(summary.seconds)}"
    if summary.latency:
        spread = ", ".join(f"{name} {duration(value)}" for name, value in summary.latency.items())
        row += say("; an answer took ", "; 应答耗时 ") + spread
    return row


def _failure_rows(summary: Summary) -> list[str]:
    rows = []
    for group in summary.failures:
        ids = ", ".join(str(example) for example in group["examples"])
        cause = f"{group['stage']} {group['code']}: {group['message']}"
        rows.append(f"  {group['count']} × {cause} ({ids})")
    return rows


def _fleet_rows(summary: Summary) -> list[str]:
    """Return what a fleet may have paid for twice, and why."""
    rows, fleet = [], summary.fleet
    if again := fleet.get("begun_again"):
        rows.append(
            say(
                f"  {again} lines were begun again after their worker fell silent: "
                "a call that was on its way then is paid twice",
                f"  {again} 行因worker失联而重新运行:当时进行中的调用会被重复计费",
            )
        )
    if twice := fleet.get("paid_twice"):
        rows.append(
            say(
                f"  {twice} lines came back from two workers: the first answer counts, "
                "both are paid",
                f"  {twice} 行由两个worker返回:以先到者为准,两次均计费",
            )
        )
    return rows


def _downloads(summary: Summary) -> str:
    if not summary.downloads:
        return ""
    return f"{summary.download_dir} ({summary.downloads}, {size(summary.download_bytes)})"
