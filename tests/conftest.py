from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp import web
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

import gpt4batch
from gpt4batch.lines import rawjson
from gpt4batch.mock.server import MockService
from gpt4batch.mock.settings import MockSettings
from gpt4batch.words import language

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from anyio.abc import Process

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

# A busy machine is no defect: properties have no deadline.
hypothesis_settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("patient")

# A suite that was told to ignore signals (nohup, `&`) starts programs that hear them all the same:
# a handler does not outlive an exec, and ignoring does.
for number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda _number, _frame: None)

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
LOCALE = ("LC_ALL", "LC_MESSAGES", "LANG", "LANGUAGE")
COMMAND = (sys.executable, "-m", "gpt4batch")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in a folder of its own, with nothing of the user's environment."""
    for name in list(os.environ):
        if name.startswith("GPT4BATCH_") or name.lower() in PROXIES or name in LOCALE:
            monkeypatch.delenv(name)
    home = tmp_path / "user"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    language.cache_clear()


@dataclass(frozen=True, slots=True)
class Result:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.err.strip().rpartition("\n")[2]


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder to work in: inputs written, runs made, outputs read."""

    folder: Path
    token: str = "mock-token"

    def line(self, line_id: Any, *contents: str, **more: Any) -> dict[str, Any]:
        asks = [{"id": f"a-{place}", "content": text} for place, text in enumerate(contents, 1)]
        return {"id": line_id, "asks": asks, **more}

    def write(self, *lines: Any, name: str = "in.jsonl") -> Path:
        """Write an input; bytes are lines as they stand, all else is encoded."""
        texts = [line if isinstance(line, bytes) else rawjson.dumps(line) for line in lines]
        path = self.folder / name
        path.write_bytes(b"".join(text + b"\n" for text in texts))
        return path

    def read(self, name: str = "out.jsonl") -> list[Any]:
        """Return the lines of an output."""
        texts = (self.folder / name).read_bytes().split(b"\n")
        assert texts.pop() == b""
        return [rawjson.loads(text) for text in texts]

    def names(self, pattern: str = "*") -> list[str]:
        return sorted(path.name for path in self.folder.glob(pattern) if path.is_file())

    def settings(self, origin: str, **settings: Any) -> gpt4batch.Settings:
        given: dict[str, Any] = {"input": "in.jsonl", "qps": 0.0, "token": self.token}
        given |= {"url": f"{origin}/standard/all-tools", "goroutine": 8}
        for name in ("input", "out"):
            settings[name] = str(self.folder / settings.get(name, given.get(name, "out.jsonl")))
        return gpt4batch.Settings(**given | settings)

    async def run(self, origin: str, **settings: Any) -> gpt4batch.Summary:
        """Make a run in this process."""
        with anyio.fail_after(60):
            return await gpt4batch.run(self.settings(origin, **settings))

    def batchsvc(self, origin: str, *words: str) -> list[str]:
        """Return a command line that runs in.jsonl against a service."""
        url = f"{origin}/standard/all-tools"
        given = ["batchsvc", "-i", "in.jsonl", "-q", "0", "-g", "8", "-u", url]
        return [*given, "--token", self.token, *words]

    async def call(
        self, *words: str, env: dict[str, str] | None = None, stdin: bytes = b""
    ) -> Result:
        """Run the real command to its end."""
        with anyio.fail_after(60):
            done = await anyio.run_process(
                [*COMMAND, *words],
                input=stdin,
                check=False,
                cwd=self.folder,
                env=os.environ | (env or {}),
            )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    @asynccontextmanager
    async def start(self, *words: str, env: dict[str, str] | None = None) -> AsyncIterator[Running]:
        """Start the real command and leave none behind."""
        process = await anyio.open_process(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env=os.environ | (env or {}),
        )
        running = Running(process)
        try:
            with anyio.fail_after(60):
                yield running
        finally:
            if process.returncode is None:
                process.kill()
            with anyio.CancelScope(shield=True):
                await process.aclose()


class Running:
    """A command that is on."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.err = ""

    async def says(self, words: str) -> None:
        """Wait until standard error holds the words."""
        assert self.process.stderr is not None
        while words not in self.err:
            try:
                self.err += (await self.process.stderr.receive()).decode()
            except anyio.EndOfStream:
                raise AssertionError(f"{words!r} was never said: {self.err}") from None

    async def end(self) -> Result:
        """Wait for the end."""
        out = b""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        async for chunk in self.process.stdout:
            out += chunk
        async for chunk in self.process.stderr:
            self.err += chunk.decode()
        return Result(await self.process.wait(), out.decode(), self.err)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
async def service() -> AsyncIterator[MockService]:
    async with MockService() as service:
        yield service


@pytest.fixture
def serving() -> Callable[..., MockService]:
    """Return how to make a service that behaves in another way."""
    return lambda **settings: MockService(MockSettings(**settings))


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Awaitable[None]]:
    """Return how to wait for what another task or process brings about."""

    async def wait(seen: Callable[[], Any]) -> None:
        with anyio.fail_after(30):
            while not seen():
                await anyio.sleep(0.005)

    return wait


class Scripted:
    """A server that answers what a test says; it keeps what it was asked."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.origin = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.method, request.path_qs, headers, body))
        return await self._handler(request)

    def bodies(self) -> list[Any]:
        return [rawjson.loads(body) for *_, body in self.requests]


@pytest.fixture
def scripted() -> Callable[..., Any]:
    """Return how to serve a handler of one's own on a free port."""

    @asynccontextmanager
    async def serve(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
        scripted = Scripted(handler)
        runner = web.ServerRunner(web.Server(scripted.handle, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        scripted.origin = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield scripted
        finally:
            await runner.cleanup()

    return serve
