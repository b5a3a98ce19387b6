"""One line's asks to answers: attachments first, ids threaded, downloads fetched at once."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4batch import jsonl
from gpt4batch.attachments import measure
from gpt4batch.client import Where
from gpt4batch.control import Stopped
from gpt4batch.errors import (
    CallError,
    DownloadError,
    FatalError,
    RejectedError,
    ReplyError,
)
from gpt4batch.records import (
    NOT_DOWNLOADED,
    calls_before,
    downloads_of,
    error_record,
    render,
    with_downloads,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gpt4batch.assets import Downloads
    from gpt4batch.client import Client, Reply
    from gpt4batch.records import Ask, Line

log = logging.getLogger(__name__)

KINDS = {"part": "multimodal", "attachment": "my_files"}
"""What an upload comes back as, and the type it is sent as."""

THREAD = re.compile(r"conversation|parent|attachment|asset|会话|对话|附件", re.IGNORECASE)
LOST = re.compile(
    r"not found|unknown|expired|exist|no such|invalid|gone|forgotten|not the last"
    r"|不存在|未找到|找不到|过期|失效|无效",
    re.IGNORECASE,
)
"""A refusal with words of both says that the service no longer knows what an earlier run had."""


@dataclass(slots=True)
class Outcome:
    """How far a line came: its answers so far, its error, and what `meta` tells of it.

    `ran` names the worker of a fleet that ran the line, and which of its goes it was. `calls`
    counts the chat calls made for the line, those of earlier runs included.
    """

    line: Line
    answers: list[bytes]
    error: CallError | None = None
    lost: DownloadError | None = None
    uploads: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    superseded: list[Any] = field(default_factory=list)
    begun: bool = False
    published: int = 0
    ran: dict[str, str] = field(default_factory=dict)
    calls: int = 0
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    _forgotten: tuple[list[bytes], list[dict[str, Any]], list[Any], int] | None = None

    def forget(self) -> None:
        """Begin the line anew: the service has no memory of what it answered."""
        self._forgotten = (self.answers, self.timings, self.superseded, self.line.answered)
        self.superseded = self.superseded + [jsonl.Fragment(answer) for answer in self.answers]
        self.answers, self.timings, self.published = [], [], 0
        self.line.answered = -1  # from here on nothing is of an earlier run

    def remember(self) -> None:
        """Go back to the earlier answers where the new beginning brought none."""
        if self._forgotten is not None and not self.answers:
            self.answers, self.timings, self.superseded, self.line.answered = self._forgotten
            self.published = len(self.answers)

    def first(self) -> bool:
        """Tell once whether the next call is the first one of the line in this run."""
        begun, self.begun = self.begun, True
        return not begun

    @property
    def done(self) -> bool:
        """Tell whether every ask has its answer and nothing failed."""
        return self.error is None and len(self.answers) == len(self.line.asks)

    def record(self, *, finished: bool = True) -> bytes:
        """Return the line of output that tells how far the line came."""
        meta: dict[str, Any] = {"started": self.started, "calls": self.calls}
        error = error_record(self.error) if self.error else None
        if finished:
            meta["finished"] = datetime.now(UTC)
        elif len(self.answers) == len(self.line.asks):
            error = NOT_DOWNLOADED  # every ask is answered, and the line is not done for all that
        meta |= self.ran
        meta["asks"] = self.timings
        if self.uploads:
            meta["uploads"] = self.uploads
        if self.superseded:
            meta["superseded"] = self.superseded
        return render(self.line.raw, self.answers, error, meta)


@dataclass(frozen=True, slots=True)
class Manner:
    """How every line of a run is asked."""

    folder: Path
    model: str
    gizmo_id: str = ""
    history_disabled: bool = True
    input: str = ""


class Conversation:
    """Hold the conversation of one line, going on where an earlier run ended.

    Args:
        client: Makes the calls.
        downloads: Fetches what answers link to; None leaves it.
        manner: How lines are asked.
        keep: Called with a line that is half-way, whenever something was added that must not be
            lost; returns when it is safe.
    """

    def __init__(
        self,
        client: Client,
        downloads: Downloads | None,
        manner: Manner,
        keep: Callable[[Outcome], Awaitable[None]],
    ) -> None:
        self._client = client
        self._downloads = downloads
        self._manner = manner
        self._keep = keep

    async def hold(self, line: Line) -> Outcome:
        """Ask what is not answered yet and fetch what is missing.

        An error of a call becomes the outcome's; only what stops the run is raised.
        """
        outcome = Outcome(line, line.answers(), published=line.answered)
        outcome.timings = _list(line.meta.get("asks"))[: line.answered]
        outcome.uploads = _list(line.meta.get("uploads"))
        outcome.superseded = _list(line.meta.get("superseded"))
        outcome.calls = calls_before(line.meta)
        try:
            for place in range(len(outcome.answers)):
                await self._download(outcome, place)
            while len(outcome.answers) < len(line.asks):
                await self._ask(outcome)
            outcome.error = outcome.lost
        except CallError as error:
            outcome.error = error
            outcome.remember()
        except (FatalError, Stopped):
            raise
        except Exception as error:
            log.exception("line %d: a defect of this tool; the other lines go on", line.number)
            outcome.error = CallError(f"a defect of this tool: {error!r}", stage="internal")
        return outcome

    # -- asking ------------------------------------------------------------------------------

    async def _ask(self, outcome: Outcome) -> None:
        """Bring the answer to the first ask that has none."""
        place = len(outcome.answers)
        remembered = place > 0 or bool(outcome.uploads)
        try:
            reply = await self._chat(outcome, place)
        except RejectedError as error:
            resumed = place == outcome.line.answered and remembered
            if not resumed or not _is_unknown(error):
                raise
            _forget(outcome)
            return
        outcome.uploads.clear()
        outcome.answers.append(reply.raw)
        outcome.timings.append({"seconds": round(reply.seconds, 3), "attempts": reply.attempts})
        last = len(outcome.answers) == len(outcome.line.asks)
        waiting = self._downloads is not None and bool(downloads_of(reply.doc))
        if waiting or not last:
            await self._keep(outcome)
        if waiting:
            await self._download(outcome, place)

    async def _chat(self, outcome: Outcome, place: int) -> Reply:
        line, ask = outcome.line, outcome.line.asks[place]
        conversation, parent = _thread(outcome.answers)
        conversation, sent = await self._attach(outcome, ask, conversation)
        body: dict[str, Any] = {"message": ask.content, "model": line.model or self._manner.model}
        if conversation:
            body["conversation_id"] = conversation
        if parent:
            body["parent_message_id"] = parent
        body |= {name: parts for name, parts in sent.items() if parts}
        if gizmo_id := line.gizmo_id or self._manner.gizmo_id:
            body["gizmo_id"] = gizmo_id
        body["history_and_training_disabled"] = self._manner.history_disabled
        try:
            where = self._where(line, place)
            reply = await self._client.chat(body, where, new=outcome.first())
        except CallError as error:
            outcome.calls += error.attempts
            raise
        outcome.calls += reply.attempts
        return reply

    def _where(self, line: Line, place: int) -> Where:
        return Where(self._manner.input, line.number, line.id, line.asks[place].id)

    async def _attach(
        self, outcome: Outcome, ask: Ask, conversation: str
    ) -> tuple[str, dict[str, list[Any]]]:
        """Upload what an ask needs; return the conversation it is in and what it became."""
        paths = [("part", path) for path in ask.images]
        paths += [("attachment", path) for path in ask.files]
        versions = [measure(self._manner.folder, path) for _, path in paths]
        sent: dict[str, list[Any]] = {"parts": [], "attachments": []}
        for number, ((kind, path), version) in enumerate(zip(paths, versions, strict=True)):
            if not _is_up(outcome.uploads[number : number + 1], path, version):
                del outcome.uploads[number:]
                upload = await self._upload(outcome, kind, path, conversation)
                outcome.uploads.append({"path": path, "version": version, **upload})
                await self._keep(outcome)
            upload = outcome.uploads[number]
            conversation = conversation or str(upload.get("conversation_id") or "")
            sent[f"{kind}s"].append(upload["sent"])
        return conversation, sent

    async def _upload(
        self, outcome: Outcome, kind: str, path: str, conversation: str
    ) -> dict[str, Any]:
        where = self._where(outcome.line, len(outcome.answers))
        reply = await self._client.upload(
            self._manner.folder / path, KINDS[kind], conversation, where, new=outcome.first()
        )
        sent = reply.doc.get(kind)
        if not sent:
            text = f"the reply to the upload of {path} has no {kind}"
            raise ReplyError(text, self._client.scrubbed(reply.raw))
        return {"conversation_id": reply.doc.get("conversation_id"), "sent": sent}

    # -- downloads ---------------------------------------------------------------------------

    async def _download(self, outcome: Outcome, place: int) -> None:
        """Fetch what an answer links to and is not here yet; note it in the answer."""
        answer = outcome.answers[place]
        if self._downloads is None or b'"downloads"' not in answer:
            return
        reply = jsonl.loads(answer)
        noted = reply.get("spec_downloads")
        here = [
            item
            for item in (noted if isinstance(noted, list) else ())
            if isinstance(item, dict) and item.get("local") and not item.get("error")
        ]
        missing = [url for url in downloads_of(reply) if url not in {i.get("origin") for i in here}]
        if not missing:
            return
        found = {item.get("origin"): item for item in here}
        for url in (wanted := list(dict.fromkeys(missing))):
            found[url] = await self._fetch(outcome, place, url)
            outcome.answers[place] = with_downloads(
                answer, [found[link] for link in downloads_of(reply) if link in found]
            )
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
            outcome.lost = DownloadError(f"{error} ({_shortened(url)})", code=error.code)
            return {"origin": url, "local": "", "error": str(error)}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else []


def _is_up(known: list[Any], path: str, version: list[int]) -> bool:
    """Tell whether an upload of an earlier run is of this very file."""
    return bool(known) and known[0].get("path") == path and known[0].get("version") == version


def _thread(answers: list[bytes]) -> tuple[str, str]:
    """Return the conversation and the message that the next ask follows."""
    if not answers:
        return "", ""
    reply = jsonl.loads(answers[-1])
    return str(reply.get("conversation_id") or ""), str(reply.get("message_id") or "")


def _is_unknown(error: RejectedError) -> bool:
    """Tell whether a refusal may mean that the service has forgotten the conversation."""
    text = str(error)
    return error.code in (404, 409, 410) or bool(THREAD.search(text) and LOST.search(text))


def _forget(outcome: Outcome) -> None:
    """Drop first the uploads of an earlier run; were there none, begin the line anew."""
    if outcome.uploads:
        outcome.uploads.clear()
        return
    outcome.forget()


def _shortened(url: str) -> str:
    """Return an address without its query, which holds signatures."""
    return url.partition("?")[0][:200]
