"""Downloads: names that are safe whatever the service sends, files that are whole or not there."""

from __future__ import annotations

import logging
import os
import re
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, cast
from urllib.parse import parse_qs, unquote, urlsplit

import anyio
import anyio.lowlevel
import httpx
from pathvalidate import sanitize_filename

from gpt4batch import disk
from gpt4batch.errors import DownloadError, NetworkError, OutputError, RetryableError, ServerError
from gpt4batch.service.retry import LONGEST_AFTER, backoff, retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from gpt4batch.control import Control

log = logging.getLogger(__name__)

LONGEST_NAME = 255
PART = ".part"
AT_ONCE = 16
IDLE = 60.0
ABANDONED = 3600.0
"""Seconds after its last byte at which a part is nobody's, where that cannot be seen by a lock."""
"""Seconds without a byte after which a download is tried again."""

PARAMETER = re.compile(r'(?<![^\s;,"])([^\s;,="]++)\s*+=\s*+("(?:\\.|[^"\\])*+"|[^;]*+)', re.DOTALL)
"""A name and its value in a Content-Disposition; a quoted value may hold anything."""

OURS = re.compile(r"(.*_)?\d{19}_file\.part", re.DOTALL)
"""The names of parts: those of others in the folder, a browser's say, are left alone."""

STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that steer a terminal or turn the direction of a name: `exe.txt` for `txt.exe`."""

CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(?:\d*/(\d{1,18})$)?")
VERSION = ("etag", "last-modified", "content-encoding")
"""The headers that are the same for every part of one version of an asset."""

CHUNK = 1 << 16
UNPACKED = {"gzip": 31, "deflate": zlib.MAX_WBITS}
"""The compressions that can be read, and what zlib calls them."""

UNREADABLE = {"br", "zstd", "compress", "dcb", "dcz"}
PACKED = (".gz", ".tgz", ".svgz")

PASSING = (408, 425, 429)
GONE = (401, 403, 404, 410)


class Opener(Protocol):
    """Opens an address as `Client.open_url` does."""

    def __call__(
        self, url: str, headers: dict[str, str], public: Callable[[httpx.URL], bool]
    ) -> AbstractAsyncContextManager[httpx.Response]:
        """Open the address."""


# -- names -----------------------------------------------------------------------------------


def suggested_name(url: str, headers: Mapping[str, str]) -> str:
    """Return the file name that an address or its reply suggests.

    The `filename=` in the query's `rscd` or `response-content-disposition` comes first, then the
    Content-Disposition header, then the path's last part.
    """
    parts = urlsplit(_plain(url))
    query = parse_qs(parts.query, keep_blank_values=True, errors="replace")
    for key in ("rscd", "response-content-disposition"):
        for value in query.get(key, ()):
            if name := _disposition_name(value):
                return name
    if name := _disposition_name(headers.get("content-disposition", "")):
        return name
    return unquote(parts.path.rpartition("/")[2], errors="replace")


def _plain(text: str) -> str:
    """Return a text without the one escape of HTML that services leave in addresses.

    Others are not undone: HTML has them without a semicolon too, and `&times` begins `&timestamp=`.
    """
    return text.replace("&amp;", "&")


def _disposition_name(text: str) -> str:
    """Return the file name in a Content-Disposition; `filename*` knows more than `filename`."""
    found = reversed(PARAMETER.findall(_plain(text)))  # of equal ones the first counts
    given = {name.lower(): _unquoted(value) for name, value in found}
    return _extended(given.get("filename*", "")) or _decoded(given.get("filename", ""))


def _unquoted(value: str) -> str:
    # Other backslashes are those of a path of Windows.
    return re.sub(r'\\(["\\])', r"\1", value.strip().removeprefix('"').removesuffix('"'))


def _extended(value: str) -> str:
    """Return the text of `charset'language'text`; some leave out all but the text."""
    charset, _, text = value.split("'", 2) if value.count("'") > 1 else ("", "", value)
    return _decoded(_unquoted(text), charset)


def _decoded(text: str, charset: str = "") -> str:
    """Undo percent-encoding; a charset that Python does not know is read as UTF-8."""
    try:
        return unquote(text, charset or "utf-8", "replace")
    except (LookupError, ValueError):
        return unquote(text, errors="replace")


def local_name(prefix: str, line_id: str, ask_id: str, suggested: str) -> str:
    """Return `PREFIX_<id>_<ask id>_<unix ns>_<file name>`, legal on every system.

    It has 250 bytes at most, which leaves five for `.part`.
    """
    words = [_legal(word, 60) for word in (prefix, line_id, ask_id)]
    head = "_".join([word for word in words if word] + [str(time.time_ns())])
    room = LONGEST_NAME - len(PART) - len(head.encode()) - 1
    name = _legal(suggested.replace("\\", "/").rpartition("/")[2], room, keep_ending=True)
    return disk.encodable(f"{head}_{name or 'file'}".lstrip(".-"))


def _legal(text: str, room: int, *, keep_ending: bool = False) -> str:
    text = STEERING.sub("_", text.encode("utf-8", "replace").decode()).strip()
    ending = Path(text.replace("\0", "_")).suffix if keep_ending else ""
    stem = _sanitized(text[: len(text) - len(ending)])
    ending = _sanitized(ending).rstrip(" .")
    if len(ending.encode()) > 20:
        stem, ending = stem + ending, ""
    return _cut(stem, room - len(ending.encode())).strip(" .") + ending


def _sanitized(text: str) -> str:
    # The library cuts to 255 bytes, which is the end of an ending: endings go in alone.
    return str(sanitize_filename(text, replacement_text="_", platform="universal"))


def _cut(text: str, size: int) -> str:
    """Return the beginning of a text that fits into so many bytes."""
    return text.encode()[: max(size, 0)].decode(errors="ignore")


# -- addresses -------------------------------------------------------------------------------


def guard(own_hosts: frozenset[str], *, allow_private: bool) -> Callable[[httpx.URL], bool]:
    """Return what tells whether an address has to be on the public internet.

    A link in an answer must not make this machine fetch from its neighbours; the service's own
    hosts are allowed whatever they are.
    """
    return lambda url: not allow_private and url.host not in own_hosts


# -- files -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Part:
    """A file on its way: what is there so far and which version of the asset it is of.

    `total` is the size of the whole where it is known, `told` the headers of the version.
    """

    file: IO[bytes]
    path: Path
    size: int = 0
    total: int | None = None
    told: dict[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Return what If-Range compares; a weak ETag does not do for that."""
        etag = self.told.get("etag", "")
        return etag if etag and not etag.startswith("W/") else self.told.get("last-modified", "")

    @property
    def coding(self) -> str:
        """Return how the asset is compressed: some servers do so though they are told not to."""
        return self.told.get("content-encoding", "").strip().lower().removeprefix("x-")


class Downloads:
    """Fetch assets into one folder, a few at a time.

    Args:
        folder: Where the files go.
        prefix: How their names begin.
        open_url: Opens an address.
        public: Tells whether an address has to be on the public internet.
        control: Ends waiting when the run is halted.
        retries: Tries after the first.
        max_size: Most bytes of one file; 0 is no limit.
    """

    def __init__(  # noqa: PLR0913 - one argument a collaborator
        self,
        folder: Path,
        prefix: str,
        open_url: Opener,
        public: Callable[[httpx.URL], bool],
        control: Control,
        *,
        retries: int = 5,
        max_size: int = 0,
    ) -> None:
        self.folder = folder
        self.count = 0
        self.bytes = 0
        self._prefix = prefix
        self._open_url = open_url
        self._public = public
        self._control = control
        self._retries = retries
        self._max_size = max_size
        self._slots = anyio.CapacityLimiter(AT_ONCE)

    def prepare(self, *, chosen: bool = True) -> None:
        """Make the folder and remove what a killed run left half-way in it.

        Args:
            chosen: The user named it; where nobody did, there may be nothing to download either.

        Raises:
            OutputError: The folder cannot be made or written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob(f"*{PART}"):
                if OURS.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                    _remove_abandoned(path)
        except OSError as error:
            raise OutputError(
                f"cannot write downloads to {self.folder}: {error.strerror}"
            ) from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            text = f"cannot write downloads to {self.folder}; choose another folder with -d"
            if chosen:
                raise OutputError(text)
            log.warning("%s", text)

    async def fetch(self, url: str, line_id: str, ask_id: str) -> str:
        """Fetch an asset and return the name of its file in the folder.

        Raises:
            DownloadError: It cannot be had.
            OutputError: The disk is full, or the folder is gone.
            Stopped: The run was halted meanwhile.
        """
        async with self._slots:
            try:
                return await self._fetch(_plain(url), line_id, ask_id)
            except OSError as error:
                raise OutputError(
                    f"cannot write downloads to {self.folder}: {error.strerror}"
                ) from error

    async def _fetch(self, url: str, line_id: str, ask_id: str) -> str:
        name = local_name(self._prefix, line_id, ask_id, "")
        path = self.folder / (name + PART)
        part = _Part(_made(path), path)
        try:
            suggested = await self._fill(part, url)
            part.file.flush()
            name = self._publish(part, local_name(self._prefix, line_id, ask_id, suggested))
        finally:
            with suppress(OSError):
                path.unlink()
            part.file.close()
        self.count += 1
        self.bytes += part.size
        return name

    def _publish(self, part: _Part, name: str) -> str:
        """Give the whole file its name; a name that is taken is left alone."""
        while True:
            try:
                os.link(part.path, self.folder / name)
            except FileExistsError:
                name = _cut(f"{time.time_ns()}_{name}", LONGEST_NAME - len(PART))
            except OSError:
                if not part.path.exists() or (self.folder / name).exists():
                    raise
                part.path.rename(self.folder / name)  # a file system without links
                return name
            else:
                return name

    async def _fill(self, part: _Part, url: str) -> str:
        """Download into the part, going on where an attempt ended; return the suggested name."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._attempt(part, url)
            except DownloadError as error:
                error.attempts = attempt
                raise
            except RetryableError as error:
                if attempt > self._retries or (error.after or 0) > LONGEST_AFTER:
                    raise _given_up(error, attempt) from error
                delay = error.after if error.after is not None else backoff(attempt)
                log.debug("download: attempt %d failed (%s)", attempt, error)
                with self._control.waiting():
                    await anyio.sleep(delay)

    async def _attempt(self, part: _Part, url: str) -> str:
        headers = {"accept-encoding": "identity"}
        if part.size and part.version:
            headers |= {"range": f"bytes={part.size}-", "if-range": part.version}
        async with self._open_url(url, headers, self._public) as response:
            self._check(response, part)
            await self._receive(response, part)
        name = suggested_name(url, response.headers)
        # Many servers name the compression of an archive twice: as its name and as its encoding.
        if part.size and part.coding in UNPACKED and not name.endswith(PACKED):
            await self._unpack(part)
        return name

    def _check(self, response: httpx.Response, part: _Part) -> None:
        """See what the reply is: the rest, the whole from its beginning, or none."""
        code = response.status_code
        if code == 206 and part.size and _is_rest(response, part):
            return
        if code == 416 or code == 206:
            _start_over(part)
            raise ServerError(f"{code}: another part than was asked for", stage="download")
        if code in PASSING or code >= 500:
            text = f"{code} {response.reason_phrase}"
            after = retry_after(response.headers)
            raise ServerError(text, code=code, stage="download", after=after)
        if code in GONE:
            text = f"{code} {response.reason_phrase}: the link has expired or is not valid"
            raise DownloadError(text, code=code)
        if code != 200:
            raise DownloadError(f"{code} {response.reason_phrase}", code=code)
        _start_over(part)
        length = response.headers.get("content-length", "")
        part.total = int(length) if length.isdecimal() else None
        part.told = {name: response.headers.get(name, "") for name in VERSION}
        if UNREADABLE & set(re.split(r"[\s,]+", part.coding)) or "," in part.coding:
            raise DownloadError(f"Content-Encoding {part.coding} cannot be read")
        self._check_size(part.total or 0)

    def _check_size(self, size: int) -> None:
        if self._max_size and size > self._max_size:
            raise DownloadError(f"{size} bytes are more than --max-download-size allows")

    async def _receive(self, response: httpx.Response, part: _Part) -> None:
        chunks = cast("AsyncIterable[bytes]", response.stream)
        try:
            with anyio.fail_after(IDLE) as idle:
                async for chunk in chunks:
                    part.file.write(chunk)
                    part.size += len(chunk)
                    self._check_size(part.size)
                    idle.deadline = anyio.current_time() + IDLE
        except TimeoutError:
            raise NetworkError(f"no byte for {IDLE:.0f} s", stage="download") from None
        except httpx.HTTPError as error:
            raise NetworkError(str(error) or repr(error), stage="download") from error
        if part.total is not None and part.size != part.total:
            text = f"{part.size} bytes came of {part.total}"
            if part.size > part.total:
                _start_over(part)
            raise NetworkError(text, stage="download")

    async def _unpack(self, part: _Part) -> None:
        """Put what a compressed part holds in its place.

        Lengths and ranges are about the compressed bytes, so these have to be whole first.
        """
        with part.path.open("rb") as packed:
            part.file.close()
            part.path.unlink()
            part.file, part.size = _made(part.path), 0
            try:
                for piece in _unpacked(packed, part.coding):
                    part.file.write(piece)
                    part.size += len(piece)
                    self._check_size(part.size)
                    await anyio.lowlevel.checkpoint()
            except EOFError:
                text = f"Content-Encoding {part.coding}: the file ends too early"
                _start_over(part)
                raise NetworkError(text, stage="download") from None
            except zlib.error as error:
                raise DownloadError(f"Content-Encoding {part.coding}: {error}") from error


def _unpacked(packed: IO[bytes], coding: str) -> Iterator[bytes]:
    """Yield what a compressed file holds, in pieces of a bounded size.

    Raises:
        EOFError: The file is cut short.
        zlib.error: It is none of this kind.
    """
    data = packed.read(CHUNK)
    bits = UNPACKED[coding]
    if coding == "deflate" and data and data[0] & 15 != zlib.DEFLATED:
        bits = -bits  # without the header that it should have
    while data:  # gzip may have several members
        inflate = zlib.decompressobj(bits)
        while not inflate.eof:
            data = data or packed.read(CHUNK)
            piece = inflate.decompress(data, CHUNK)
            if not data and not piece:
                raise EOFError
            yield piece
            data = inflate.unconsumed_tail
        data = inflate.unused_data or packed.read(CHUNK)


def _given_up(error: RetryableError, attempts: int) -> DownloadError:
    final = DownloadError(str(error), code=error.code)
    final.attempts = attempts
    return final


def _is_rest(response: httpx.Response, part: _Part) -> bool:
    """Tell whether a reply goes on where the part ends, with the same version of the asset.

    Some servers know Range and not If-Range: they send the rest of whatever is there now. A size
    that was not known before is known from here on.
    """
    found = CONTENT_RANGE.match(response.headers.get("content-range", ""))
    if found is None or not part.version or int(found[1]) != part.size:
        return False
    known, part.total = part.total, int(found[2]) if found[2] else part.total
    same = all(response.headers.get(name, told) == told for name, told in part.told.items())
    return same and known in (None, part.total)


def _start_over(part: _Part) -> None:
    if part.size:  # ext4 writes a file that was truncated to the disk when it is closed
        part.file.seek(0)
        part.file.truncate()
    part.size, part.total, part.told = 0, None, {}


def _made(path: Path) -> IO[bytes]:
    """Make a part and hold its lock, by which other runs see that it is not abandoned."""
    file = path.open("xb")
    with suppress(OSError):  # a lock that cannot be had must not cost an answer
        disk.lock(file.fileno())
    return file


def _remove_abandoned(path: Path) -> None:
    """Remove a part that no living run holds; where nothing can be locked, an old one."""
    with path.open("r+b") as file:
        try:
            locked = disk.lock(file.fileno())
        except OSError:
            locked = None
        old = time.time() - path.stat().st_mtime > ABANDONED
        if locked or (locked is None and old):
            path.unlink()
