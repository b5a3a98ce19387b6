"""Downloads: files that are whole or not there, fetched a few at a time and tried again."""

from __future__ import annotations

import logging
import os
import zlib
from typing import IO, TYPE_CHECKING, cast
from weakref import WeakValueDictionary

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx

from gpt4batch import disk
from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.errors import DownloadError, NetworkError, OutputError, RetryableError, ServerError
from gpt4batch.service.failures import calling
from gpt4batch.service.file_names import LONGEST_NAME, PART, cut, local_name, suggested_name
from gpt4batch.service.links import address_of, data_of, is_data
from gpt4batch.service.part_file import CONTENT_RANGE, PartFile, remove_abandoned
from gpt4batch.service.retry import retry_after, retrying
from gpt4batch.service.unpacking import CHUNK, UNPACKED, UNREADABLE, is_marked, unpacked
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import AsyncIterable
    from pathlib import Path

    from gpt4batch.control import Control
    from gpt4batch.service.links import Links

log = logging.getLogger(__name__)

AT_ONCE = 32
AT_ONCE_OF_A_HOST = 16
"""A host that is slow leaves places to the others."""

SPAN = 60.0
"""Seconds over which the speed is measured, and without a byte a download is tried again."""

PACKED = (".gz", ".tgz", ".svgz")
PASSING = (408, 409, 425, 429)
GONE = (401, 403, 404, 410)


class Downloads:
    """Fetch assets into one folder, a few at a time.

    Args:
        folder: Where the files go.
        prefix: How their names begin.
        links: Opens links.
        control: Ends waiting when the run is halted.
        retries: Tries after the first.
        max_size: Most bytes of one file; 0 is no limit.
        min_speed: Least bytes a second; 0 is no limit.
        span: Seconds over which the speed is measured.
        synced: A file is on the disk before it counts.
        clock: Tells the time.
    """

    def __init__(  # noqa: PLR0913 - one argument a collaborator
        self,
        folder: Path,
        prefix: str,
        links: Links,
        control: Control,
        *,
        retries: int = 5,
        max_size: int = 0,
        min_speed: int = 0,
        span: float = SPAN,
        synced: bool = True,
        clock: Clock = SYSTEM,
    ) -> None:
        self.folder = folder
        self.count = 0
        self.bytes = 0
        self.under_way = 0
        self._prefix = prefix
        self._links = links
        self._control = control
        self._retries = retries
        self._max_size = max_size
        self._min_speed = min_speed
        self._span = span
        self._synced = synced
        self._clock = clock
        self._places = anyio.CapacityLimiter(AT_ONCE)
        self._places_of: WeakValueDictionary[str, anyio.CapacityLimiter] = WeakValueDictionary()

    def prepare(self, *, chosen: bool = True) -> None:
        """Make the folder and remove what a killed run left half-way in it.

        Args:
            chosen: The user named it; where nobody did, there may be nothing to download either.

        Raises:
            OutputError: The folder cannot be made or written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self.folder)
        except OSError as error:
            raise self._unwritable(error) from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            text = tr(
                "cannot write downloads to {folder}; choose another folder with -d",
                folder=self.folder,
            )
            if chosen:
                raise OutputError(text)
            log.warning("%s", text)

    async def fetch(self, url: str, line_id: str, ask_id: str) -> str:
        """Fetch an asset and return the name of its file in the folder.

        Raises:
            DownloadError: It cannot be fetched.
            OutputError: The disk is full, or the folder is gone.
            Stopped: The run was halted meanwhile.
        """
        part = PartFile(self.folder / (self._name(line_id, ask_id, "") + PART))
        self.under_way += 1
        try:
            if is_data(url):
                content, suggested = data_of(url)
                self._check_size(len(content))
                part.start_over()
                part.write(content)
            else:
                suggested = await self._fill(part, url)
            part.flush()
            if self._synced:
                await anyio.to_thread.run_sync(part.sync)
            name = self._publish(part, self._name(line_id, ask_id, suggested))
            if self._synced:  # else a power cut may take a file whose line is done
                await anyio.to_thread.run_sync(disk.sync_folder, self.folder)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            self.under_way -= 1
            part.discard()
        self.count += 1
        self.bytes += part.size
        return name

    def _name(self, line_id: str, ask_id: str, suggested: str) -> str:
        return local_name(self._prefix, line_id, ask_id, suggested, self._clock.ns())

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(
            tr(
                "cannot write downloads to {folder}: {reason}",
                folder=self.folder,
                reason=because(error),
            )
        )

    def _publish(self, part: PartFile, name: str) -> str:
        """Give the whole file its name; a name that is taken is left alone."""
        while True:
            try:
                os.link(part.path, self.folder / name)
            except FileExistsError:
                name = cut(f"{self._clock.ns()}_{name}", LONGEST_NAME - len(PART))
            except OSError:
                if not part.path.exists() or (self.folder / name).exists():
                    raise
                part.path.rename(self.folder / name)  # a file system without links
                return name
            else:
                return name

    # -- attempts ----------------------------------------------------------------------------

    async def _fill(self, part: PartFile, url: str) -> str:
        """Download into the part, going on where an attempt ended; return the suggested name."""
        address = address_of(url, self._links.base)

        async def attempt(_number: int) -> str:
            # One of the host's places first, so that nobody waits for that host.
            places = self._places_of.setdefault(
                address.host, anyio.CapacityLimiter(AT_ONCE_OF_A_HOST)
            )
            async with places, self._places:
                return await self._attempt(part, address)

        async def pause(error: RetryableError, delay: float) -> None:
            log.debug("download: attempt %d failed (%s)", error.attempts, error)
            with self._control.waiting():
                await anyio.sleep(delay)

        try:
            return await retrying(attempt, self._retries, pause)
        except RetryableError as error:
            final = DownloadError(str(error), code=error.code)
            final.attempts = error.attempts
            raise final from error

    async def _attempt(self, part: PartFile, address: httpx.URL) -> str:
        headers = {"accept-encoding": "identity"} | part.to_go_on
        async with self._links.open(address, headers) as response:
            self._check(response, part)
            await self._receive(response, part)
        octets = {name.lower(): value for name, value in response.headers.raw}
        told = octets.get(b"content-disposition", b"").decode("latin-1")
        name = suggested_name(str(address), {"content-disposition": told})
        # Many servers name the compression of an archive twice: as its name and as its encoding.
        if part.size and not name.endswith(PACKED):
            for coding in part.codings:
                await self._unpack(part, coding)
        return name

    def _check(self, response: httpx.Response, part: PartFile) -> None:
        """Tell the rest of the file from the whole of it, and refuse any other reply."""
        code = response.status_code
        text = f"{code} {response.reason_phrase}".strip()
        if code == 206 and part.size and part.is_continued_by(response.headers):
            return
        if code == 416 or (code == 206 and (part.size or not _is_beginning(response))):
            part.start_over()
            raise ServerError(
                tr("{code}: a different part from the one requested", code=code), stage="download"
            )
        if code in PASSING or code >= 500:
            after = retry_after(response.headers, self._clock.now())
            raise ServerError(text, code=code, stage="download", after=after)
        if code in GONE:
            raise DownloadError(
                tr("{text}: the link has expired or is not valid", text=text), code=code
            )
        if code not in (200, 203, 206):
            raise DownloadError(text, code=code)
        part.begin(response.headers, _whole_size(response))
        self._check_size(part.total or 0)

    def _check_size(self, size: int) -> None:
        if self._max_size and size > self._max_size:
            raise DownloadError(tr("{size} bytes, more than --max-download-size allows", size=size))

    async def _receive(self, response: httpx.Response, part: PartFile) -> None:
        chunks = cast("AsyncIterable[bytes]", response.stream)
        since, before = anyio.current_time(), part.size
        try:
            with calling("download"), anyio.fail_after(self._span) as idle:
                async for chunk in chunks:
                    part.write(chunk)
                    self._check_size(part.size)
                    now = anyio.current_time()
                    idle.deadline = now + self._span
                    if now - since >= self._span:
                        self._check_speed(part.size - before, now - since)
                        since, before = now, part.size
        except TimeoutError:
            raise NetworkError(
                tr("no byte for {span:.0f} s", span=self._span), stage="download"
            ) from None
        if part.total is not None and part.size != part.total:
            text = tr("{size} of {total} bytes arrived", size=part.size, total=part.total)
            if part.size > part.total:
                part.start_over()
            raise NetworkError(text, stage="download")

    def _check_speed(self, size: int, seconds: float) -> None:
        """Give up a download that trickles: it would hold its place for hours."""
        if size < self._min_speed * seconds:
            raise DownloadError(
                tr(
                    "too slow: {size} bytes in {seconds:.0f} s; --download-min-speed asks for "
                    "{min_speed} a second; -f fetches it later",
                    size=size,
                    seconds=seconds,
                    min_speed=self._min_speed,
                )
            )

    # -- what comes compressed ---------------------------------------------------------------

    async def _unpack(self, part: PartFile, coding: str) -> None:
        """Put what a compressed part holds in its place.

        Lengths and ranges are about the compressed bytes, so these have to be whole first. What is
        only labelled as compressed stays as it came.
        """
        part.flush()
        with part.path.open("rb") as packed:
            if not await _is_packed(packed, coding):
                return
            if coding in UNREADABLE:
                raise DownloadError(tr("Content-Encoding {coding} cannot be read", coding=coding))
            part.renew()
            try:
                for piece in unpacked(packed, coding):
                    part.write(piece)
                    self._check_size(part.size)
                    await anyio.lowlevel.checkpoint()
            except EOFError:
                text = tr("Content-Encoding {coding}: the file ends too early", coding=coding)
                part.start_over()
                raise NetworkError(text, stage="download") from None
            except zlib.error as error:
                raise DownloadError(
                    tr("Content-Encoding {coding}: {error}", coding=coding, error=error)
                ) from error


async def _is_packed(file: IO[bytes], coding: str) -> bool:
    """Return whether a file is compressed as its label says; many are labelled and are not."""
    if coding not in UNPACKED and coding not in UNREADABLE:
        return False
    marked = is_marked(file.read(CHUNK), coding)
    file.seek(0)
    if marked is not None:
        return marked
    try:
        for _ in unpacked(file, coding):
            await anyio.lowlevel.checkpoint()
    except (EOFError, zlib.error):
        return False
    file.seek(0)
    return True


def _is_beginning(response: httpx.Response) -> bool:
    """Return whether a 206 to a request for the whole begins at the first byte."""
    if response.headers.get("content-type", "").startswith("multipart/byteranges"):
        return False
    told = response.headers.get("content-range")
    if told is None:
        return True
    found = CONTENT_RANGE.match(told)
    return found is not None and int(found[1]) == 0


def _whole_size(response: httpx.Response) -> int | None:
    """Return the size of an asset as its reply tells it, where it does so in one voice."""
    if response.status_code == 206:
        found = CONTENT_RANGE.match(response.headers.get("content-range", ""))
        if found is not None:
            return int(found[2]) if found[2] else None
    if "transfer-encoding" in response.headers:  # which tells where the reply ends
        return None
    told = {text.strip() for text in response.headers.get("content-length", "").split(",")}
    size = told.pop()
    return int(size) if size.isdecimal() and not told else None
