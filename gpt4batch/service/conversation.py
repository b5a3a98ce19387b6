"""One line's asks to answers: attachments first, ids threaded, downloads fetched at once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.control import Stopped
from gpt4batch.dialects.base import NOWHERE, PLAIN_ANSWER, Refusal, Turn, Upload
from gpt4batch.errors import CallError, DownloadError, FatalError, RejectedError, ReplyError
from gpt4batch.lines import rawjson
from gpt4batch.lines.blank import blank_ask
from gpt4batch.lines.causes import cause_of
from gpt4batch.lines.links import notes_in, with_downloads
from gpt4batch.lines.parse import BATCH
from gpt4batch.lines.record import (
    NOT_DOWNLOADED,
    calls_before,
    error_record,
    superseded,
    usage_in,
)
from gpt4batch.lines.steps import Standing
from gpt4batch.service.attachments import files_of, measure
from gpt4batch.service.client import Where
from gpt4batch.service.counters import CallStats, Tally
from gpt4batch.service.inline import InlineFiles
from gpt4batch.usage import NO_USAGE
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gpt4batch.dialects.base import Thread
    from gpt4batch.lines.parse import Ask, Line
    from gpt4batch.service.client import Client, Reply
    from gpt4batch.service.downloads import Downloads
    from gpt4batch.usage import Usage

log = logging.getLogger(__name__)

UNREAD = tr(
    "%s:%d: not fetched, as they have no address: %d of the reply's downloads; see the answer"
)

NO_PLACE = tr(
    "the answer to ask {place} does not say which conversation and message it is "
    "({words}), so ask {next} was not asked: it would have begun a new conversation. The "
    "answers are kept; to ask the line from the start, remove it from the output"
)


@dataclass(slots=True)
class Outcome:
    """How far a line came: its answers so far, its error, and what `meta` tells of it.

    `ran` names the worker of a fleet that ran the line, and which of its goes it was. `calls`
    counts the chat calls made for the line, those of earlier runs included. `inherited` says that
    the uploads are an earlier run's; `vain` is what replies cost that were no answers, those of
    earlier runs included; `refused_anew` is why an ask was refused in a new beginning as
    it had been before.
    """

    line: Line
    answers: list[bytes]
    error: CallError | None = None
    lost: DownloadError | None = None
    uploads: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    superseded: list[Any] = field(default_factory=list)
    inherited: bool = False
    refused_anew: str = ""
    begun: bool = False
    published: int = 0
    ran: dict[str, Any] = field(default_factory=dict)
    calls: int = 0
    vain: Usage = NO_USAGE
    clock: Clock = SYSTEM
    started: datetime = field(init=False)
    _forgotten: tuple[list[bytes], list[dict[str, Any]], list[Any], int] | None = None

    def __post_init__(self) -> None:
        self.started = self.clock.now()

    def forget(self) -> None:
        """Begin the line anew: the service has no memory of what it answered."""
        self._forgotten = (self.answers, self.timings, self.superseded, self.line.answered)
        self.superseded = self.superseded + [rawjson.Fragment(answer) for answer in self.answers]
        self.answers, self.timings, self.published = [], [], 0
        self.uploads.clear()
        self.line.answered = -1  # from here on nothing is of an earlier run

    def remember(self, error: CallError) -> None:
        """Go back to the earlier answers if the new beginning brought no answer.

        Where it came as far and no further, say why: another new beginning would not help.
        """
        if self._forgotten is None:
            return
        refused = isinstance(error, RejectedError) or error.forgotten
        if refused and len(self.answers) == len(self._forgotten[0]):
            self.refused_anew = cause_of(str(error))
        if not self.answers:
            self.answers, self.timings, self.superseded, self.line.answered = self._forgotten
            self.published = len(self.answers)

    @property
    def is_as_before(self) -> bool:
        """Return whether nothing was answered that an earlier run had not."""
        return self.published == len(self.answers) == self.line.answered

    def first(self) -> bool:
        """Tell once whether the next call is the first one of the line in this run."""
        begun, self.begun = self.begun, True
        return not begun

    @property
    def done(self) -> bool:
        """Return whether every ask has its answer and nothing failed."""
        return self.error is None and len(self.answers) == len(self.line.asks)

    def standing(self, *, finished: bool = True) -> Standing:
        """Return what the log is to tell of how far the line came."""
        meta: dict[str, Any] = {"started": self.started, "calls": self.calls}
        error = error_record(self.error) if self.error else None
        if self.error and error and self.error.refusal and BATCH in self.line.options:
            error["reply"] = rawjson.Fragment(self.error.refusal)  # goes into the row as it is
        if finished:
            meta["finished"] = self.clock.now()
        elif len(self.answers) == len(self.line.asks):
            error = NOT_DOWNLOADED  # every ask is answered, and the line is not done for all that
        if BATCH in self.line.options:
            meta["key"] = self.line.key.hex()  # so that no later reader has to digest the request
        meta |= self.ran
        meta["asks"] = list(self.timings)
        if self.vain.total:
            meta["vain"] = {"tokens": list(self.vain)}
        for name in ("uploads", "superseded", "refused_anew"):
            if value := getattr(self, name):
                meta[name] = value.copy() if isinstance(value, list) else value
        return Standing(self.line, list(self.answers), error, meta)


@dataclass(frozen=True, slots=True)
class Manner:
    """How every line of a run is asked; a line's own options come before these."""

    folder: Path
    options: Mapping[str, Any]
    input: str = ""


class Places(Protocol):
    """The places of the lines that ask at the same time; fetching files needs no place."""

    def lend(self, item: int) -> None:
        """Let another line have the place of this one."""

    async def take_back(self, item: int) -> None:
        """Wait for a place where the line has lent its own."""


class Conversation:
    """Hold the conversation of one line, going on where an earlier run ended.

    Args:
        client: Makes the calls.
        downloads: Fetches what answers link to; None leaves it.
        manner: How lines are asked.
        keep: Called with a line that is half-way, whenever something was added that must not be
            lost; returns when it is safe.
        places: Are lent to other lines while files come; None keeps them.
        clock: Tells the time.
    """

    def __init__(
        self,
        client: Client,
        downloads: Downloads | None,
        manner: Manner,
        keep: Callable[[Outcome], Awaitable[None]],
        *,
        places: Places | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._client = client
        self._downloads = downloads
        self._manner = manner
        self._keep = keep
        self._dialect = client.dialect
        self._inline = InlineFiles(manner.folder, client.dialect)
        self._tally = Tally()
        self._places = places
        self._clock = clock

    def stats(self) -> CallStats:
        """Return what was done so far for all lines."""
        client, downloads = self._client, self._downloads
        return CallStats(
            calls=client.made.calls,
            uploads=client.made.uploads,
            unanswered=client.made.unanswered,
            in_flight=client.in_flight,
            longest=client.longest,
            downloads=downloads.count if downloads else 0,
            download_bytes=downloads.bytes if downloads else 0,
            usage=self._tally.usage,
            finishes=self._tally.finishes,
        )

    async def hold(self, line: Line) -> Outcome:
        """Ask what is not answered yet and fetch what is missing.

        An error of a call becomes the outcome's; only what stops the run is raised.
        """
        outcome = Outcome(line, line.answers(), published=line.answered, clock=self._clock)
        _read_notes(outcome)
        if line.anew:
            outcome.forget()
        try:
            for place in range(len(outcome.answers)):
                await self._download(outcome, place)
            # Before anything more of the line is paid for; a fleet's own dialect is the worker's.
            if reason := blank_ask(line) or self._dialect.wrong(line, self._manner.options):
                outcome.error = CallError(
                    tr("{reason}; nothing was sent", reason=reason), code=400, stage="input"
                )
                return outcome
            while len(outcome.answers) < len(line.asks):
                await self._ask(outcome)
            outcome.error = outcome.lost
        except CallError as error:
            outcome.error = error
            outcome.remember(error)
        except (FatalError, Stopped):
            raise
        except Exception as error:
            log.exception("line %d: a defect of this tool; the other lines go on", line.number)
            outcome.error = CallError(
                tr("a defect of this tool: {error!r}", error=error), stage="internal"
            )
        return outcome

    # -- asking ------------------------------------------------------------------------------

    async def _ask(self, outcome: Outcome) -> None:
        """Ask the first ask that has no answer yet."""
        if self._places is not None:
            await self._places.take_back(outcome.line.index)
        place = len(outcome.answers)
        try:
            reply = await self._chat(outcome, place)
        except CallError as error:
            if place != outcome.line.answered or not _drop_forgotten(outcome, error):
                raise
            return
        outcome.uploads.clear()
        outcome.inherited = False
        outcome.answers.append(reply.raw)
        timing: dict[str, Any] = {"seconds": round(reply.seconds, 3), "attempts": reply.attempts}
        if reply.answer is not PLAIN_ANSWER:
            timing |= self._tally.add(reply.answer)
        outcome.timings.append(timing)
        last = len(outcome.answers) == len(outcome.line.asks)
        links = self._dialect.links(reply.doc)
        waiting = self._downloads is not None and bool(links.addresses)
        if self._downloads is not None and links.unread:
            log.warning(UNREAD, self._manner.input, outcome.line.number, links.unread)
        if waiting or not last:
            await self._keep(outcome)
        if waiting:
            await self._download(outcome, place)

    async def _chat(self, outcome: Outcome, place: int) -> Reply:
        line = outcome.line
        asks, thread = line.asks[: place + 1], self._thread(outcome)
        if self._dialect.upload_scope == "inline":
            files = [file for ask in asks for file in files_of(ask)]
            uploads = [await self._inline.read(kind, path) for kind, path in files]
        else:
            uploads = await self._attach(outcome, asks[-1], thread)
        own = {name: line.options[name] for name in self._dialect.options if line.options.get(name)}
        options, params = {**self._manner.options, **own}, line.params(place)
        turn = Turn(asks, outcome.answers, options, thread, uploads, params, line.request())
        try:
            where = self._where(line, place)
            call = self._dialect.chat(turn)
            reply = await self._client.chat(call, where, new=outcome.first())
        except CallError as error:
            outcome.calls += error.attempts
            if isinstance(error, ReplyError) and error.usage is not None:
                outcome.vain = outcome.vain.plus(error.usage)
            raise
        outcome.calls += reply.attempts
        return reply

    def _thread(self, outcome: Outcome) -> Thread:
        """Return the place in the conversation that the next ask follows.

        Raises:
            CallError: The last answer does not say where it stands.
        """
        if not outcome.answers:
            return NOWHERE
        thread = self._dialect.thread(rawjson.loads(outcome.answers[-1]))
        if isinstance(thread, Refusal):
            answered = len(outcome.answers)
            text = NO_PLACE.filled(place=answered, words=thread.words, next=answered + 1)
            raise CallError(text, stage="reply")
        return thread

    def _where(self, line: Line, place: int) -> Where:
        return Where(self._manner.input, line.number, line.id, line.asks[place].id)

    async def _attach(self, outcome: Outcome, ask: Ask, thread: Thread) -> list[Upload]:
        """Upload what an ask needs and is not up yet; return all of it."""
        paths, folder, most = files_of(ask), self._manner.folder, self._dialect.largest_file
        versions = [measure(folder, path, most) for _, path in paths]
        uploads: list[Upload] = []
        for number, ((kind, path), version) in enumerate(zip(paths, versions, strict=True)):
            known = outcome.uploads[number : number + 1]
            if [(note["path"], note["version"]) for note in known] != [(path, version)]:
                del outcome.uploads[number:]
                call = self._dialect.upload(kind, thread, uploads)
                where = self._where(outcome.line, len(outcome.answers))
                reply = await self._client.upload(folder / path, call, where, new=outcome.first())
                note = self._dialect.uploaded(kind, reply.doc)
                if isinstance(note, Refusal):
                    error = self._client.replies.no_upload(path, note, reply.raw)
                    error.attempts = reply.attempts
                    raise error
                outcome.uploads.append({"path": path, "version": version, **note})
                await self._keep(outcome)
            uploads.append(Upload(kind, outcome.uploads[number]))
        return uploads

    # -- downloads ---------------------------------------------------------------------------

    async def _download(self, outcome: Outcome, place: int) -> None:
        """Fetch what an answer links to and is not here yet; note it in the answer."""
        if self._downloads is None:
            return
        answer = outcome.answers[place]
        reply = rawjson.loads(answer)
        links = self._dialect.links(reply).addresses
        found = {
            note.get("origin"): note
            for note in notes_in(reply)
            if note.get("local") and not note.get("error")
        }
        wanted = list(dict.fromkeys(url for url in links if url not in found))
        if wanted and self._places is not None:
            self._places.lend(outcome.line.index)
        for url in wanted:
            found[url] = await self._fetch(outcome, place, url)
            notes = [found[link] for link in links if link in found]
            outcome.answers[place] = with_downloads(answer, notes)
            if url != wanted[-1] or place + 1 < len(outcome.line.asks):
                await self._keep(outcome)

    async def _fetch(self, outcome: Outcome, place: int, url: str) -> dict[str, str]:
        assert self._downloads is not None
        line, ask = outcome.line, outcome.line.asks[place]
        line_id = str(line.number if line.id is None else line.id)
        ask_id = str(place + 1 if ask.id is None else ask.id)
        try:
            return {"origin": url, "local": await self._downloads.fetch(url, line_id, ask_id)}
        except DownloadError as error:
            where = url.partition("?")[0][:200]  # without its query, which holds signatures
            outcome.lost = DownloadError(
                tr("{error} ({where})", error=error, where=where), code=error.code
            )
            outcome.lost.attempts = error.attempts
            return {"origin": url, "local": "", "error": str(error)}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else []


def _read_notes(outcome: Outcome) -> None:
    """Read what an earlier run noted about the line, leaving out what this tool did not write."""
    line, meta = outcome.line, outcome.line.meta
    if not meta and not line.answered:
        return
    timings = [item if isinstance(item, dict) else {} for item in _list(meta.get("asks"))]
    outcome.timings = (timings + [{}] * line.answered)[: line.answered]
    outcome.uploads = [
        note
        for note in _list(meta.get("uploads"))
        if isinstance(note, dict) and note.keys() >= {"path", "version", "sent"}
    ]
    outcome.inherited = bool(outcome.uploads)
    outcome.superseded = superseded(meta)
    outcome.refused_anew = str(meta.get("refused_anew") or "")
    outcome.calls = calls_before(meta)
    outcome.vain = usage_in(meta.get("vain"))


def _drop_forgotten(outcome: Outcome, error: CallError) -> bool:
    """Drop what the service has forgotten of an earlier run; False where it forgot nothing of it.

    First the uploads; were there none, the line begins anew, unless that was of no use before.
    """
    if not error.forgotten:
        return False
    if outcome.inherited:
        outcome.uploads.clear()
        outcome.inherited = False
        return True
    lost = error.forgotten == "conversation" and bool(outcome.answers)
    if not lost or outcome.refused_anew == cause_of(str(error)):
        return False
    outcome.forget()
    return True
