"""The laboratory: services and runs as processes, inputs made from a seed, outputs verified."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from gpt4batch.lines import rawjson
from gpt4batch.lines.steps import folded
from gpt4batch.mock.assets import asset_bytes, png
from gpt4batch.mock.replies import answer_text

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON = [sys.executable, "-m", "gpt4batch"]
HOOKS = Path(__file__).parent / "hooks"
TOKEN = "chaos-secret-token-0123456789"
PATIENCE = 120.0


class Broken(AssertionError):
    """A promise did not hold."""


def hear_signals() -> None:
    """Let the processes that are started hear what this one was told to ignore (nohup, `&`).

    A handler does not outlive an exec, and ignoring does.
    """
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)


def demand(condition: object, text: str, *more: object) -> None:
    """Fail loudly unless the condition holds."""
    if not condition:
        raise Broken(" ".join([text, *(repr(item)[:2000] for item in more)]))


@dataclass
class Counts(Counter[str]):
    """What a cell measured."""

    def note(self, **numbers: int) -> None:
        """Add numbers to what was counted."""
        for name, number in numbers.items():
            self[name] += number


# -- inputs ----------------------------------------------------------------------------------


def pixel(rand: random.Random) -> bytes:
    """Return a picture of one pixel."""
    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return png((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" + rand.randbytes(3))))


WORDS = [
    "描述下图片",
    "naïve",
    "😀 fin",
    "line\u2028sep",
    'quo"te',
    "back\\slash",
    "plain",
    "e\u0301",
]


def lines_of(
    folder: Path, number: int, rand: random.Random, *, asks: int = 4, attach: float = 0.15
) -> list[dict[str, Any]]:
    """Return lines of several asks, some with pictures and files, which are made beside them."""
    tag = rand.randrange(1 << 40)
    lines = []
    for place in range(number):
        found = []
        for turn in range(rand.randint(1, asks)):
            ask: dict[str, Any] = {
                "id": f"a/{turn}",
                "content": f"{tag:x}-{place}-{turn} {rand.choice(WORDS)}",
            }
            if rand.random() < attach:
                name = f"img-{place}-{turn}.png"
                (folder / name).write_bytes(pixel(rand))
                ask["images"] = [name]
            if rand.random() < attach:
                name = f"文件-{place}-{turn}.txt"
                (folder / name).write_bytes(rand.randbytes(40).hex().encode())
                ask["files"] = [name]
            found.append(ask)
        line_id: Any = place if place % 3 else f"id {place}\n/…"
        lines.append({"id": line_id, "asks": found, "extra": {"n": 12345678901234567890 + place}})
    return lines


def save_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write an input."""
    path.write_bytes(b"".join(rawjson.dumps(line) + b"\n" for line in lines))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a finished output strictly: every line is a JSON object."""
    data = path.read_bytes()
    demand(data.endswith(b"\n") or not data, "the output ends without a newline", data[-80:])
    return [rawjson.loads(line) for line in data.split(b"\n")[:-1]]


# -- processes -------------------------------------------------------------------------------


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment that is the same everywhere."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "GPT4BATCH_TOKEN": TOKEN,
        **more,
        "PYTHONPATH": os.pathsep.join(
            filter(None, [more.get("PYTHONPATH"), str(HOOKS.parents[1])])
        ),
    }


class Service:
    """The embedded service in a process of its own."""

    def __init__(self, folder: Path, *flags: str, seed: int = 0, port: int = 0) -> None:
        self.seed = seed
        words = ["--seed", str(seed), "--port", str(port), "--accept-token", TOKEN]
        self._errors = (folder / f"service-{time.monotonic_ns()}.err").open("wb")
        self.process = subprocess.Popen(
            [*PYTHON, "mocksvc", *words, *flags],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(folder),
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline().decode()
        found = re.search(r"http://\S+?:\d+", first)
        demand(found, "the service did not start", first)
        assert found is not None
        self.origin = found[0]

    def stats(self) -> dict[str, Any]:
        """Return what the service saw."""
        with urllib.request.urlopen(f"{self.origin}/stats", timeout=30) as reply:
            doc: dict[str, Any] = rawjson.loads(reply.read())
        return doc

    def stop(self) -> None:
        """End the service."""
        self.process.terminate()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait(PATIENCE)
        self._errors.close()


@dataclass
class Run:
    """A finished run."""

    code: int
    errors: bytes
    output: bytes

    def expect(self, *codes: int) -> Run:
        """Fail unless the exit code is one of these, and no traceback was shown."""
        demand(self.code in codes, f"exit code {self.code}, not {codes}:", self.errors[-3000:])
        demand(b"Traceback" not in self.errors, "a traceback:", self.errors[-3000:])
        return self


@dataclass
class Bench:
    """A folder with an input, an output and downloads, and the service to run it against."""

    folder: Path
    origin: str
    rand: random.Random
    seed: int = 0
    input: Path = field(init=False)
    out: Path = field(init=False)
    downloads: Path = field(init=False)
    flags: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    """Every flag that a run was given beyond those of all runs."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.input = self.folder / "in.jsonl"
        self.out = self.folder / "out.jsonl"
        self.downloads = self.folder / "downloads"

    def start(self, *flags: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a run; `flags` come last and so win."""
        words = ["-u", f"{self.origin}/standard/all-tools", "-i", str(self.input)]
        words += ["-o", str(self.out), "-d", str(self.downloads), "-q=0", "-g=8"]
        words += ["--progress-interval=3600", *self.flags, *flags]
        self.used.update(self.flags, flags)
        number = time.monotonic_ns()
        with (
            (self.folder.parent / f"{self.folder.name}-{number}.err").open("wb") as errors,
            (self.folder.parent / f"{self.folder.name}-{number}.std").open("wb") as output,
        ):
            process = subprocess.Popen(
                [*PYTHON, "batchsvc", *words],
                stdout=output,
                stderr=errors,
                env=environment(self.folder.parent, **(env or {})),
                cwd=self.folder.parent,
            )
        process.files = (errors.name, output.name)  # type: ignore[attr-defined]
        return process

    def end(self, process: subprocess.Popen[bytes], patience: float = PATIENCE) -> Run:
        """Wait for the end of a run."""
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            errors, _ = (Path(name).read_bytes() for name in process.files)  # type: ignore[attr-defined]
            raise Broken(f"the run did not end within {patience:g} s: {errors[-2000:]!r}") from None
        errors, output = (Path(name).read_bytes() for name in process.files)  # type: ignore[attr-defined]
        for name in process.files:  # type: ignore[attr-defined]
            Path(name).unlink()
        return Run(code, errors, output)

    def run(
        self, *flags: str, patience: float = PATIENCE, env: dict[str, str] | None = None
    ) -> Run:
        """Run to the end."""
        return self.end(self.start(*flags, env=env), patience)

    def began(self, process: subprocess.Popen[bytes], size: int = 0) -> bool:
        """Wait until the run has appended to its log; False if it ended before."""
        while process.poll() is None:
            with suppress(OSError):
                if self.out.stat().st_size > size:
                    return True
            time.sleep(0.005)
        return False


def kill(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """Send a signal to a run of ours that may be over already."""
    with suppress(ProcessLookupError):
        process.send_signal(number)


# -- verification ----------------------------------------------------------------------------


def answers_in(lines: list[dict[str, Any]]) -> int:
    """Count the answers of an output."""
    return sum(len(line.get("answers") or ()) for line in lines)


def verify(
    bench: Bench, lines: list[dict[str, Any]], counts: Counts, *, clean: bool = True
) -> None:
    """Demand that every line is done once, in order, with the right answers and whole files."""
    found = read_lines(bench.out)
    demand(len(found) == len(lines), f"{len(found)} lines of output to {len(lines)} of input")
    taken: set[str] = set()
    for line, result in zip(lines, found, strict=True):
        demand(
            result.get("id") == line.get("id"), "out of order:", result.get("id"), line.get("id")
        )
        demand(result["asks"] == line["asks"], "asks changed:", result["asks"], line["asks"])
        demand(result.get("extra") == line.get("extra"), "extra changed", result, line)
        demand("iErr" not in result, "not done:", result.get("iErr"), result.get("id"))
        demand(len(result["answers"] or ()) == len(line["asks"]), "answers missing:", result)
        verify_answers(bench, line, result["answers"], counts, taken)
    if clean:
        verify_clean(bench)
    counts.note(lines=len(found))


def verify_answers(
    bench: Bench,
    line: dict[str, Any],
    answers: list[dict[str, Any]],
    counts: Counts,
    taken: set[str],
) -> None:
    """Demand that each answer is the one to its ask, and that its files are whole."""
    conversations = {answer["conversation_id"] for answer in answers}
    demand(len(conversations) <= 1, "a line in several conversations:", conversations)
    for ask, answer in zip(line["asks"], answers, strict=False):
        paths = [*ask.get("images", ()), *ask.get("files", ())]
        digests = [hashlib.sha256((bench.input.parent / p).read_bytes()).hexdigest() for p in paths]
        text = answer["contents"][-1]["message"]["content"]["parts"][0]
        wanted = answer_text(ask["content"], digests, seed=bench.seed)
        demand(text == wanted, "the answer to another ask:", text, wanted)
        counts.note(asks=1)
        links = answer.get("downloads", [])
        noted = answer.get("spec_downloads", [])
        demand([item["origin"] for item in noted] == links, "downloads missing:", noted, links)
        for item in noted:
            demand(item["local"] not in taken, "two links, one file:", item)
            taken.add(item["local"])
            verify_file(bench.downloads / item["local"], item["origin"], counts)


def verify_file(path: Path, url: str, counts: Counts) -> None:
    """Demand that a download is there, byte for byte."""
    parts = urlsplit(url)
    size = int(parse_qs(parts.query)["size"][0])
    wanted = asset_bytes(unquote(parts.path.removeprefix("/files/")), size)
    demand(path.is_file(), "a file is missing:", path)
    demand(path.read_bytes() == wanted, "a file is not what the service sent:", path)
    counts.note(files=1, bytes=size)


def verify_clean(bench: Bench) -> None:
    """Demand that nothing half-way is left behind."""
    left = [p.name for p in bench.downloads.glob("*.part")] if bench.downloads.exists() else []
    left += [path.name for path in bench.folder.iterdir() if path.name.endswith(".tmp")]
    demand(not left, "left behind:", left)


# -- the rooms -------------------------------------------------------------------------------


@dataclass
class Lab:
    """Where a cell works: a folder of its own, its seed, and how long it may take."""

    folder: Path
    seed: int
    short: bool
    counts: Counts = field(default_factory=Counts)
    used: set[str] = field(default_factory=set)
    stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.rand = random.Random(self.seed)

    def size(self, full: int, short: int) -> int:
        """Choose a number for the full campaign or the short one."""
        return short if self.short else full

    def service(self, *flags: str) -> Service:
        """Start a service that lasts as long as the cell."""
        service = Service(self.folder, *flags, seed=self.seed % 1000)
        self.stack.callback(service.stop)
        return service

    def bench(self, name: str, service: Service, *flags: str, origin: str = "") -> Bench:
        """Make a place for runs."""
        rand = random.Random(self.rand.random())
        origin = origin or service.origin
        return Bench(self.folder / name, origin, rand, service.seed, list(flags), self.used)


@contextmanager
def room(name: str, seed: int, *, short: bool) -> Iterator[Lab]:
    """Open a laboratory and clear it away."""
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{name}-"))
    lab = Lab(folder, seed, short)
    try:
        with lab.stack:
            yield lab
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def whole_lines(texts: list[bytes]) -> Iterator[dict[str, Any]]:
    """Yield each record of a log as the line that it and those it goes on from tell of."""
    begun: dict[str, list[bytes]] = {}
    for text in texts:
        try:
            record = rawjson.loads(text)
        except rawjson.JSONError:
            continue
        go = record.get("go") or (record.get("meta") or {}).get("go") or ""
        begun[go] = [*begun[go], text] if "step" in record else [text]
        yield rawjson.loads(folded(begun[go]))
