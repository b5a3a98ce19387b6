"""The page over HTTP: on loopback, behind a secret address, for its own browser tab only."""

from __future__ import annotations

import ipaddress
import secrets
import shlex
from dataclasses import dataclass
from functools import partial
from hmac import compare_digest
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio
from aiohttp import web
from anyio.to_thread import run_sync

from gpt4batch.errors import UsageError
from gpt4batch.lines import rawjson
from gpt4batch.lines.pictures import HEAD, media_type
from gpt4batch.view import detail, save
from gpt4batch.view.compare import KINDS, Pairings
from gpt4batch.view.files import Folders
from gpt4batch.view.query import LONGEST, NUMBERS
from gpt4batch.view.record import State
from gpt4batch.view.search import Filters, Orders, Question
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from gpt4batch.view.index import Index, Output
    from gpt4batch.view.search import Filter

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PAGE = Path(__file__).parent / "page"
BLOCK = 1 << 18
MOST_ROWS = 200
MOST_PICTURES = 120
SECRET_BYTES = 24
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
FILE_POLICY = "default-src 'none'; sandbox"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "X-DNS-Prefetch-Control": "off",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Show:
    """What a page shows: the outputs and the folders of their files."""

    outputs: list[Output]
    folders: Folders


class Viewer:
    """The handlers of one page."""

    def __init__(self, show: Show, secret: str) -> None:
        self.outputs = show.outputs
        self.folders = show.folders
        self.secret = secret.encode()
        self.host = ""
        self.port = 0
        self.filters = Filters()
        self.orders = Orders()
        self.pairings = Pairings()

    def application(self) -> web.Application:
        """Return the web application."""
        app = web.Application(middlewares=[self.guard])
        app.on_response_prepare.append(harden)
        app.router.add_get("/{secret}/", self.page)
        app.router.add_get("/{secret}/page/{name:.+}", self.page)
        app.router.add_get("/{secret}/file", self.file)
        answers: dict[str, Callable[[web.Request], Any]] = {
            "overview": self.overview,
            "rows": self.rows,
            "line": self.line,
            "raw": self.raw,
            "find": self.find,
            "pictures": self.pictures,
            "pairs": self.pairs,
        }
        for name, answer in answers.items():
            app.router.add_get(f"/{{secret}}/api/{name}", as_json(answer))
        app.router.add_get("/{secret}/api/save", self.save)
        return app

    def close(self) -> None:
        """Stop everything in the background."""
        self.filters.close()
        self.pairings.close()
        for output in self.outputs:
            output.close()

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse whoever does not know the secret or comes by another name of this machine."""
        if not self.is_own_host(request.headers.get("Host", "")):
            raise web.HTTPMisdirectedRequest(text="421: not a name of this page\n")
        given = request.path.split("/", 2)[1].encode(errors="replace")
        if not compare_digest(given, self.secret):
            raise web.HTTPNotFound(text="404: open the address that viewsvc printed\n")
        # A link from elsewhere may open the page, but nothing may embed or fetch it.
        origin = request.headers.get("Sec-Fetch-Site", "none")
        if (
            origin not in ("none", "same-origin")
            and request.headers.get("Sec-Fetch-Mode") != "navigate"
        ):
            raise web.HTTPForbidden(text="403: not from another page\n")
        return await handler(request)

    def is_own_host(self, header: str) -> bool:
        """Tell whether a Host header names this server, so that no foreign name reaches it."""
        name, _, port = header.rpartition(":")
        if port != str(self.port):
            return False
        name = name.strip("[]").lower()
        if name in ("127.0.0.1", "localhost", "::1", self.host.lower()):
            return True
        return self.host in ("0.0.0.0", "::") and is_address(name)

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Serve the page and what belongs to it."""
        path = (PAGE / request.match_info.get("name", "index.html")).resolve()
        kind = TYPES.get(path.suffix)
        if kind is None or not path.is_relative_to(PAGE) or not path.is_file():
            raise web.HTTPNotFound
        return web.Response(
            body=await anyio.Path(path).read_bytes(), content_type=kind, charset="utf-8"
        )

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Serve an attached or downloaded file: a picture to be shown, others to be saved."""
        query = request.query
        path = self.folders.find(query.get("home", ""), query.get("name", ""))
        if path is None:
            raise web.HTTPNotFound
        try:
            file = path.open("rb")
        except OSError:
            raise web.HTTPNotFound from None
        with file:
            head = file.read(HEAD)
            kind = media_type(head)
            headers = {
                "Content-Type": kind or "application/octet-stream",
                "Content-Security-Policy": FILE_POLICY,
            }
            if not kind or "save" in query:
                headers["Content-Disposition"] = attachment(path.name)
            return await stream(
                request, chain([head], iter(partial(file.read, BLOCK), b"")), headers
            )

    def overview(self, _: web.Request) -> Any:
        """Return the figures of every output."""
        return {"runs": [{**item.public(), "again": self.again(item)} for item in self.outputs]}

    def again(self, output: Output) -> str:
        """Return the command that runs the lines of an output that are not done."""
        command = ["gpt4batch", "batchsvc", "-i", str(output.source or "INPUT.jsonl")]
        command += ["-o", str(output.path)]
        homes, here = self.folders.homes, Path.cwd()
        if (folder := homes["dl"]) != homes["in"]:
            folder = folder.relative_to(here) if folder.is_relative_to(here) else folder
            command += ["-d", str(folder)]
        return shlex.join([*command, "-f"])

    def index(self, request: web.Request, name: str = "run") -> Index:
        """Return the index that a request asks about."""
        run = whole(request, name)
        if run >= len(self.outputs):
            raise web.HTTPNotFound
        return self.outputs[run].index

    def filtered(self, request: web.Request, index: Index) -> Filter | None:
        """Return the filter that a request asks for, None for all lines."""
        asked = question(request)
        return None if asked.is_all() else self.filters.get(index, asked)

    def rows(self, request: web.Request) -> Any:
        """Return some rows of the list, and how far the filter has come."""
        index, query = self.index(request), question(request).query
        start, count = whole(request, "from"), min(whole(request, "count"), MOST_ROWS)
        chosen = self.filtered(request, index)
        total = len(index.rows) if chosen is None else len(chosen.rows)
        numbers: Iterable[int] = range(start, min(start + count, total))
        sort = request.query.get("sort", "")
        if sort.removeprefix("-") in NUMBERS:
            numbers = self.orders.get(index, chosen, sort)[start : start + count]
        elif chosen is not None:
            numbers = chosen.slice(start, count)
        return {
            "generation": index.generation,
            "version": index.version,
            "total": total,
            "of": len(index.rows),
            "scanned": len(index.rows) if chosen is None else chosen.scanned,
            "complete": index.complete and (chosen is None or chosen.complete),
            "rows": [detail.summary(index, row, query) for row in numbers],
        }

    def line(self, request: web.Request) -> Any:
        """Return one line as a conversation."""
        index = self.index(request)
        return detail.conversation(index, known_row(request, index), self.folders)

    def raw(self, request: web.Request) -> Any:
        """Return the JSON of one line."""
        index = self.index(request)
        return detail.raw(index, known_row(request, index))

    def find(self, request: web.Request) -> Any:
        """Return where a line stands now; the file may have been put in order since."""
        index = self.index(request)
        try:
            return {"row": index.rows.key.index(int(request.query.get("key", ""), 16))}
        except (ValueError, OverflowError):
            return {"row": None}

    def pictures(self, request: web.Request) -> Any:
        """Return some of all pictures."""
        index = self.index(request)
        start, count = whole(request, "from"), min(whole(request, "count"), MOST_PICTURES)
        return {
            "total": index.figures.pictures,
            "pictures": detail.pictures(index, self.folders, start, count),
        }

    def pairs(self, request: web.Request) -> Any:
        """Return some pairs of lines of two outputs."""
        left, right = self.index(request, "left"), self.index(request, "right")
        kind = request.query.get("kind", "all")
        if kind not in KINDS:
            raise web.HTTPBadRequest
        pairing = self.pairings.get(left, right)
        start, count = whole(request, "from"), min(whole(request, "count"), MOST_ROWS)
        shown = pairing.slice(kind, start, count)
        return {
            "counts": pairing.counts(),
            "total": len(pairing.pairs[kind][1]),
            "progress": pairing.done / (pairing.total or 1),
            "complete": pairing.complete,
            "version": pairing.versions,
            "pairs": [[summary_of(left, one), summary_of(right, other)] for one, other in shown],
        }

    async def save(self, request: web.Request) -> web.StreamResponse:
        """Send the lines of a filter as a file."""
        index = self.index(request)
        name = Path(self.outputs[whole(request, "run")].path.name).stem
        chosen = self.filtered(request, index)
        if chosen is not None:
            await run_sync(chosen.advance)
        numbers = range(len(index.rows)) if chosen is None else chosen.rows[:]
        if request.query.get("as") == "csv":
            headers = saved_as(f"{name}.csv", "text/csv; charset=utf-8")
            return await stream(request, save.table(index, numbers), headers)
        suffix = "failed" if question(request).states == {State.FAILED} else "lines"
        headers = saved_as(f"{name}.{suffix}.jsonl", "application/x-ndjson")
        return await stream(request, save.jsonl(index, numbers), headers)


async def harden(_: web.Request, response: web.StreamResponse) -> None:
    """Give every response the headers that keep the page to itself."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "gpt4batch"


def as_json(answer: Callable[[web.Request], Any]) -> Handler:
    """Return a handler that works in a thread, so that no large line holds up the others."""

    async def handler(request: web.Request) -> web.StreamResponse:
        value = await run_sync(answer, request)
        return web.Response(body=rawjson.dumps(value), content_type="application/json")

    return handler


async def stream(
    request: web.Request, pieces: Iterator[bytes], headers: dict[str, str]
) -> web.StreamResponse:
    """Send what is read or made on the way."""
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    while block := await run_sync(some, pieces):
        await response.write(block)
    await response.write_eof()
    return response


def saved_as(name: str, kind: str) -> dict[str, str]:
    """Return the headers of a file to be saved."""
    return {"Content-Disposition": attachment(name), "Content-Type": kind}


def some(pieces: Iterator[bytes], enough: int = BLOCK) -> bytes:
    """Return the next pieces together."""
    block = bytearray()
    for piece in pieces:
        block += piece
        if len(block) >= enough:
            break
    return bytes(block)


def attachment(name: str) -> str:
    """Return a Content-Disposition that saves a file under its name."""
    plain = "".join(char if char.isascii() and char.isprintable() else "_" for char in name)
    plain = plain.replace("\\", "_").replace('"', "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def question(request: web.Request) -> Question:
    """Return what lines a request asks for."""
    query = request.query
    names = [name for name in query.get("state", "").split(",") if name]
    try:
        states = frozenset(int(State[name.upper()]) for name in names)
    except KeyError:
        raise web.HTTPBadRequest from None
    return Question(
        states=states,
        cause=whole(request, "cause"),
        text=query.get("q", "").strip()[:LONGEST],
        pictures=query.get("pictures") == "1",
        finish=whole(request, "finish"),
    )


def whole(request: web.Request, name: str) -> int:
    """Return a parameter as a whole number, 0 where it is missing."""
    text = request.query.get(name, "0")
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise web.HTTPBadRequest(text=f"400: {name} is no number\n")
    return int(text)


def known_row(request: web.Request, index: Index) -> int:
    """Return the row a request asks for, if there is one."""
    row = whole(request, "row")
    if row >= len(index.rows):
        raise web.HTTPNotFound
    return row


def summary_of(index: Index, row: int | None) -> dict[str, Any] | None:
    """Return a row of the list, or None for none."""
    return None if row is None else detail.summary(index, row)


def is_address(name: str) -> bool:
    """Tell whether a host is written as an IP address: such a name cannot be rebound."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach the host."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


class Server:
    """A page that is being served; `url` is the address to open."""

    def __init__(self, viewer: Viewer, runner: web.AppRunner, url: str) -> None:
        self.viewer = viewer
        self.runner = runner
        self.url = url

    async def close(self) -> None:
        """Stop serving at once."""
        self.viewer.close()
        await self.runner.cleanup()


async def serve(show: Show, host: str = "127.0.0.1", port: int = 0) -> Server:
    """Serve the page over outputs; port 0 is a free one."""
    viewer = Viewer(show, secrets.token_urlsafe(SECRET_BYTES))
    runner = web.AppRunner(viewer.application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise UsageError(
            tr(
                "--host {host} --port {port}: {reason}",
                host=host,
                port=port,
                reason=because(error),
            )
        ) from None
    viewer.host, viewer.port = host, runner.addresses[0][1]
    for output in show.outputs:
        output.start()
    shown = host if not is_wildcard(host) else "127.0.0.1"
    shown = f"[{shown}]" if ":" in shown else shown
    return Server(viewer, runner, f"http://{shown}:{viewer.port}/{viewer.secret.decode()}/")


def is_wildcard(host: str) -> bool:
    """Tell whether a host means all addresses of this machine."""
    return is_address(host) and ipaddress.ip_address(host).is_unspecified
