from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import contextmanager
from fcntl import ioctl
from typing import TYPE_CHECKING, Any

import anyio
import pyte
import pytest
from aiohttp import web
from rich.cells import cell_len

import gpt4batch
from gpt4batch.batch.progress import Progress
from gpt4batch.batch.status import Status
from gpt4batch.cli.display import View, plain
from gpt4batch.cli.meter import SPAN, Meter, Sample
from gpt4batch.cli.picture import packed
from gpt4batch.cli.units import duration, rate, rough, size
from gpt4batch.service.counters import CallStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Bench

    from gpt4batch.mock.server import MockService

    Serving = Callable[..., MockService]

HEIGHT = 40
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
COLOUR = re.compile(rb"\x1b\[[0-9;]*(3[0-9]|9[0-7])[0-9;]*m")
BAR = "━"


class Terminal:
    """A command in a terminal of so many columns, and what its screen shows."""

    def __init__(self, master: int, process: subprocess.Popen[bytes], columns: int) -> None:
        self._master = master
        self.process = process
        self.screen = pyte.Screen(columns, HEIGHT)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""

    @property
    def rows(self) -> list[str]:
        return [row.rstrip() for row in self.screen.display if row.strip()]

    @property
    def text(self) -> str:
        return "\n".join(self.rows)

    def shows(self, pattern: str) -> str:
        """Wait for a screen that matches and return it."""
        deadline = time.monotonic() + 30
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, self.text
            assert self._read(1.0), f"ended without {pattern!r}:\n{self.text}"
        while self._read(0.05, at_end=False):  # the rest of this frame
            pass
        return self.text

    def end(self) -> int:
        """Read to the end and return the exit code."""
        while self._read(30.0):
            pass
        return self.process.wait(10)

    def resize(self, columns: int) -> None:
        self.screen.resize(HEIGHT, columns)
        ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, columns, 0, 0))

    def _read(self, patience: float, *, at_end: bool = True) -> bool:
        if not select.select([self._master], [], [], patience)[0]:
            return at_end and self.process.poll() is None
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # the other side has gone
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)


@pytest.fixture
def terminal(tmp_path: Path) -> Callable[..., Any]:
    """Return how to run a command in a terminal."""

    @contextmanager
    def start(*words: str, columns: int = 80, **more: str) -> Iterator[Terminal]:
        master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, columns, 0, 0))
        kept = {name: os.environ[name] for name in ("PATH", "HOME")}
        env = {**kept, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **more}
        command = [sys.executable, "-m", "gpt4batch", *words]
        with subprocess.Popen(command, stdin=slave, stderr=slave, env=env, cwd=tmp_path) as process:
            os.close(slave)
            try:
                yield Terminal(master, process, columns)
            finally:
                process.kill()
                os.close(master)

    return start


REHEARSAL = ("batchsvc", "--mock", "-q", "20", "-g", "4", "-i", "in.jsonl")
LATENCY = {"GPT4BATCH_LATENCY": "0.4"}


def many(bench: Bench, number: int = 24) -> None:
    bench.write(*[bench.line(n, "x [[mock:400*1]]" if n == 1 else "x") for n in range(number)])


# On a terminal


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_picture_tells_the_state_of_the_run(
    bench: Bench, terminal: Callable[..., Any], columns: int
) -> None:
    many(bench)
    with terminal(*REHEARSAL, columns=columns, **LATENCY) as shown:
        text = shown.shows(r"[1-9]\d*/24 done")
        assert re.search(r"\d+/24 done · .*\d+ left · \d/4 in flight", text)
        assert re.search(r"calls/s \(-q 20\)", text)
        assert re.search(r"starting|so far, (time left not known yet|about .* left)", text)
        assert re.search(r"last failure, .* ago: 400 Bad Request", text)
        assert sum(BAR in row for row in shown.rows) == 1
        assert not any(row.startswith("·") or row.endswith(("·", "-q")) for row in shown.rows)
        assert shown.end() == 1
    assert BAR not in shown.text  # the picture makes room for the words
    assert "23 of 24 lines done, 1 failed" in shown.text
    assert "go on with: gpt4batch batchsvc" in shown.text


def test_resumed_run_starts_where_it_was(bench: Bench, terminal: Callable[..., Any]) -> None:
    many(bench, 12)
    with terminal(*REHEARSAL, "--limit", "9", GPT4BATCH_LATENCY="0") as first:
        assert first.end() == 1
    with terminal(*REHEARSAL, "-f", GPT4BATCH_LATENCY="2") as shown:
        text = shown.shows("in flight")
        assert "8/12 done · 4 left" in text
        assert shown.end() == 1  # each embedded service fails once on purpose
    assert "11 of 12 lines done (8 of them before this run)" in shown.text
    assert "at least 13 chat calls with the earlier runs" in shown.text


def test_narrower_terminal_gets_one_whole_picture(
    bench: Bench, terminal: Callable[..., Any]
) -> None:
    many(bench, 60)
    with terminal(*REHEARSAL, columns=120, **LATENCY) as shown:
        shown.shows(r"[1-9]\d*/60 done")
        shown.resize(60)
        before = len(shown.raw)
        while len(shown.raw) < before + 2000:
            shown.shows("in flight")
        assert all(len(row) <= 60 for row in shown.rows)
        frame = shown.raw[shown.raw.rindex("━".encode()) :]
        assert b"60 done" in frame
        shown.process.send_signal(signal.SIGINT)
        shown.shows("stopping: ")
        assert shown.end() == 130
    assert "stopped: by Ctrl-C" in shown.text


def test_no_color_has_no_colour(bench: Bench, terminal: Callable[..., Any]) -> None:
    many(bench, 8)
    for more, colourful in (({}, True), ({"NO_COLOR": "1"}, False)):
        with terminal(*REHEARSAL, **LATENCY, **more) as shown:
            assert shown.end() == 1
        assert bool(COLOUR.search(shown.raw)) == colourful
        assert BAR.encode() in shown.raw


@pytest.mark.parametrize("term", ["dumb", ""])
def test_dumb_terminal_gets_plain_lines(
    bench: Bench, terminal: Callable[..., Any], term: str
) -> None:
    many(bench, 8)
    more = {**LATENCY, "TERM": term, "GPT4BATCH_PROGRESS_INTERVAL": "0.3"}
    with terminal(*REHEARSAL, **more) as shown:
        assert shown.end() == 1
    assert not CONTROL.search(shown.raw.decode().replace("\r\n", "\n"))
    assert re.search(rb"\d\d:\d\d:\d\d \d/8 done", shown.raw)


@pytest.mark.parametrize("term", ["xterm", "dumb"])
async def test_hostile_words_never_reach_the_terminal(
    bench: Bench, scripted: Any, terminal: Callable[..., Any], term: str
) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x1b[31m\u202eabc\x9b5n"

    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"error": {"message": f"no {evil}"}}, status=400)

    bench.write(bench.line(f"id {evil}", "x"), bench.line(2, "x", model=evil))
    async with scripted(refuse) as service:
        words = bench.batchsvc(service.origin, "--log-level", "debug")

        def watch() -> Terminal:
            with terminal(*words, TERM=term) as shown:
                assert shown.end() == 1
                return shown  # type: ignore[no-any-return]

        shown = await anyio.to_thread.run_sync(watch)
    assert "2 × service error: 400" in shown.text
    raw = re.sub(rb"\x1b\]0;\d+% out\.jsonl\x07", b"", shown.raw)  # the title is our own
    for part in (b"\x1b]0", b"\x1b[2J", b"\x1b[31m\xe2", b"\x07", b"\x9b5n", "\u202e".encode()):
        assert part not in raw, part
    assert rb"\x1b]0;owned" in shown.raw


@pytest.mark.parametrize(
    ("locale", "begins", "said"),
    [
        (
            "C.UTF-8",
            "calls held",
            r"next try in [\d.]+ s, stops in \S+ min.* \(--patience\): 429 .*: You exceeded",
        ),
        (
            "zh_CN.UTF-8",
            "已暂停调用",
            r"[\d.]+ \S+后再试，.*后停止（--patience）：429 .*：You exceeded",
        ),
    ],
)
async def test_held_calls_are_shown_with_the_next_try_and_the_end_of_the_patience(
    bench: Bench,
    scripted: Any,
    terminal: Callable[..., Any],
    locale: str,
    begins: str,
    said: str,
) -> None:
    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        error = {"code": "insufficient_quota", "message": "You exceeded your current quota"}
        return web.json_response({"error": error}, status=429)

    bench.write(bench.line(1, "x"))
    async with scripted(refuse) as service:
        words = bench.batchsvc(service.origin, "--patience", "300")

        def watch() -> str:
            with terminal(*words, columns=200, LC_ALL=locale) as shown:
                return " ".join(shown.shows(begins).split())

        text = await anyio.to_thread.run_sync(watch)
    assert re.search(said, text), text


# Without a terminal


async def test_without_a_terminal_there_are_plain_lines(bench: Bench) -> None:
    many(bench, 12)
    words = (*REHEARSAL, "--progress-interval", "0.4")
    result = await bench.call(*words, env={"GPT4BATCH_LATENCY": "0.5"})
    assert result.code == 1
    assert not CONTROL.search(result.err)
    lines = re.findall(r"^\d\d:\d\d:\d\d (\d+)/12 done", result.err, re.MULTILINE)
    assert len(lines) >= 2
    assert [int(line) for line in lines] == sorted(int(line) for line in lines)
    assert result.out == ""


async def test_quiet_says_nothing(bench: Bench) -> None:
    bench.write(bench.line(1, "x"))
    result = await bench.call(*REHEARSAL, "--quiet", "--progress-interval", "0.1")
    assert (result.code, result.out, result.err) == (0, "", "")


async def test_call_is_logged_at_debug(bench: Bench, service: MockService) -> None:
    from gpt4batch.lines import rawjson

    bench.write(bench.line("q-1", "x [[mock:500*1]]"))
    words = bench.batchsvc(service.origin, "--log-level=debug", "--log-format=json")
    result = await bench.call(*words, "--log-file=log.jsonl")
    assert result.code == 0, result.err
    log = [rawjson.loads(line) for line in (bench.folder / "log.jsonl").read_bytes().splitlines()]
    calls = [entry for entry in log if "stage" in entry]
    assert [(call["status"], call["attempt"]) for call in calls] == [(500, 1), (200, 2)]
    wanted = {"file": "in.jsonl", "line": 1, "id": "q-1", "ask": "a-1", "stage": "chat"}
    assert all(wanted.items() <= call.items() for call in calls)
    assert all(isinstance(call["seconds"], float) for call in calls)
    assert service.token not in (bench.folder / "log.jsonl").read_text()


# While it is slow


async def test_slow_run_tells_its_longest_call_and_no_time_left(
    bench: Bench, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt4batch.cli.display.LONG_CALL", 0.2)
    many(bench, 3)
    said: list[str] = []

    async def show(progress: Progress, look: Callable[[], Status]) -> None:
        view = View(progress, look, settings)
        while look().calls.longest < 0.25:
            await anyio.sleep(0.01)
        view.look()
        said.append(plain(view))

    async with serving(latency=0.5, jitter=0.0) as service:
        settings = bench.settings(service.origin, goroutine=3)
        await gpt4batch.run(settings, show=show)
    assert "0/3 done, 3 left, 3/3 in flight" in said[0]
    assert "starting" in said[0]
    assert re.search(r"waiting for 3 answers, for the oldest \d+ ms \(--timeout 8 min\)", said[0])


async def test_retry_after_and_slower_pace_are_told(bench: Bench, serving: Serving) -> None:
    bench.write(*[bench.line(n, "x") for n in range(40)])
    said: list[str] = []

    async def show(progress: Progress, look: Callable[[], Status]) -> None:
        view, text = View(progress, look, settings), ""
        while "asks to wait" not in text or "slowed down" not in text:
            await anyio.sleep(0.01)
            view.look()
            text = plain(view)
        said.append(text)

    async with serving(limit_qps=10, retry_after=1.0) as service:
        settings = bench.settings(service.origin, qps=50.0)
        await gpt4batch.run(settings, show=show)
    assert re.search(r"the service asks to wait: \d+", said[0])
    assert re.search(r"slowed down by 429 to [\d.]+ calls/s", said[0])


def test_time_left_needs_a_basis() -> None:
    meter = Meter(60)
    meter.take(Sample(100.0, 19, 19))
    assert meter.left(500) is None
    meter.take(Sample(110.0, 20, 20))
    assert meter.left(500) == pytest.approx(500 * 110 / 20)


def test_time_left_is_measured_over_two_rounds_of_lines() -> None:
    meter = Meter(10)
    for second in range(1, 2000):  # a burst of ten lines every 300 s
        meter.take(Sample(float(second), second // 300 * 10, second // 300 * 10))
    assert meter.left(100) == pytest.approx(3000, rel=0.35)


def test_speed_is_that_of_the_last_half_minute() -> None:
    meter = Meter(1)
    for second in range(200):
        meter.take(Sample(float(second), 0, 0 if second < 150 else (second - 150) * 2))
    assert meter.calls == pytest.approx(2.0)
    assert SPAN == 30


# Words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.25, "250 ms"),
        (1.26, "1.3 s"),
        (59, "59 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (90061, "1 d 1 h"),
    ],
)
def test_durations_are_told_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_estimates_are_told_roughly() -> None:
    assert [rough(seconds) for seconds in (0.2, 59.6, 200, 7300)] == [
        "1 s",
        "1 min",
        "3 min",
        "2 h 2 min",
    ]


def test_rates_and_sizes_have_the_unit_that_fits() -> None:
    assert [rate(value) for value in (0, 2.5, 0.5, 0.001)] == [
        "0.0 calls/s",
        "2.5 calls/s",
        "30.0 calls/min",
        "3.6 calls/h",
    ]
    assert [size(count) for count in (0, 999, 1234, 5e9)] == ["0 B", "999 B", "1.2 KB", "5.0 GB"]


@pytest.mark.parametrize("width", [20, 60, 100])
def test_facts_are_not_broken_where_they_fit(width: int) -> None:
    facts = [(word, "") for word in ("one two", "完成了一些行", "three four five", "6", "seven")]
    rows = packed(facts, width)
    assert all(cell_len(row.plain) <= width for row in rows)
    assert " · ".join(row.plain for row in rows) == " · ".join(fact for fact, _ in facts)


# Help


@pytest.mark.parametrize("columns", ["60", "80", "140"])
@pytest.mark.parametrize("language", ["C.UTF-8", "zh_CN.UTF-8"])
async def test_help_is_whole_at_every_width(bench: Bench, language: str, columns: str) -> None:
    for words in ([], ["batchsvc"], ["check"], ["mocksvc"]):
        env = {"LC_ALL": language, "COLUMNS": columns}
        result = await bench.call(*words, "--help", env=env)
        assert "…" not in result.out


# What a slow run and its end tell


def view_of(*, places: int = 10, qps: float = 1.0, **calls: Any) -> tuple[View, Progress]:
    """Return a view of a run of 40 lines that has not been looked at."""
    progress = Progress()
    progress.total = progress.to_run = 40
    status = Status(
        calls=CallStats(**calls),
        places=places,
        draining=False,
        grace_left=float("inf"),
        pace=qps,
        cooling=0.0,
        room=0,
        probe=None,
        workers=None,
        fetching=None,
        snapshot="",
        messages=None,
    )
    return View(progress, lambda: status, gpt4batch.Settings(qps=qps, goroutine=places)), progress


def test_run_whose_answers_take_minutes_tells_what_it_waits_for() -> None:
    view, progress = view_of(calls=10, in_flight=10, longest=199.0)
    progress.began -= 200
    view.look()
    assert "waiting for 10 answers, for the oldest 3 min 19 s (--timeout 8 min)" in plain(view)
    assert "all 10 places are taken: -g limits the pace, not -q" in plain(view)
    assert "half the answers" not in plain(view)
    assert "time left not known yet" in plain(view)


def test_first_slow_answers_tell_the_least_time_that_is_left() -> None:
    view, progress = view_of(calls=14, in_flight=10)
    progress.began -= 700
    for seconds in (400.0, 500.0):
        progress.answered(seconds)
        progress.line_done()
    view.look()
    assert "at least 19 min left" in plain(view)  # 28 more lines, 10 at a time, 400 s each


def test_retries_and_calls_without_a_reply_are_told_while_they_happen() -> None:
    view, progress = view_of(calls=52, in_flight=1, unanswered=7)
    progress.chats, progress.retries = 52, 30
    view.look()
    told = "52 chat calls, 30 of them tried again, 7 without a reply (may be paid for)"
    assert told in plain(view)
    assert "--timeout" not in plain(view)


async def test_timeouts_put_the_limit_itself_in_doubt(bench: Bench, service: MockService) -> None:
    bench.write(bench.line(1, "x [[mock:hang]]"))
    words = ["--timeout", "0.2", "--retries", "3", "--progress-interval", "0.2"]
    result = await bench.call(*bench.batchsvc(service.origin, *words), "--quiet=false")
    assert "3 calls had no answer within 200 ms: --timeout may be too short here" in result.err


def test_end_that_is_far_is_told_as_a_time_of_the_clock() -> None:
    view, progress = view_of(calls=100, in_flight=1, places=1)
    progress.total = progress.to_run = 4000
    progress.began -= 1000
    for _ in range(100):
        progress.line_done()
    view.look()
    assert re.search(r"about 10 h 50 min left \(until (\S+ )?\d\d:\d\d\)", plain(view))


async def test_equal_failures_are_logged_a_few_times_and_then_counted(
    bench: Bench, service: MockService
) -> None:
    bench.write(*[bench.line(f"q-{n}", "x [[mock:400*99]]") for n in range(12)])
    result = await bench.call(*bench.batchsvc(service.origin, "-g", "1"))
    assert result.err.count("failed: 400 Bad Request") == 5
    assert "in.jsonl:1 (id q-0): failed: 400" in result.err
    assert result.err.count("5 lines failed so; more of them are only counted") == 1
    assert "12 × service error: 400 Bad Request" in result.err


async def test_end_names_the_viewer_with_the_files_of_the_run(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "x"))
    result = await bench.call(*bench.batchsvc(service.origin))
    assert result.last == "look at it: gpt4batch viewsvc out.jsonl -i in.jsonl --open"


def test_title_of_the_terminal_tells_how_far_the_run_is_and_is_given_back(
    bench: Bench, terminal: Callable[..., Any]
) -> None:
    many(bench, 8)
    with terminal(*REHEARSAL, "--notify", **LATENCY) as shown:
        assert shown.end() == 1
    titles = re.findall(rb"\x1b\]0;(\d+)% out\.jsonl\x07", shown.raw)
    assert len(titles) > 1
    assert titles == sorted(titles, key=int)
    assert shown.raw.count(b"\x1b[22;0t") == shown.raw.count(b"\x1b[23;0t") == 1
    assert re.search(
        rb"\x07\x1b\]9;gpt4batch: 7 of 8 lines done, 1 failed; took .*\x1b\\$", shown.raw
    )


async def test_nothing_is_rung_where_there_is_no_terminal(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "x"))
    result = await bench.call(*bench.batchsvc(service.origin, "--notify"))
    assert (result.code, CONTROL.search(result.err)) == (0, None)
