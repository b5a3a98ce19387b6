"""The service over HTTP: uploads and chats, each with its retries.

The wire format is that of the service's own documentation. This is the one place where a status
or a lost connection becomes an error of ours.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import anyio
import httpx

from gpt4batch.control import Stopped
from gpt4batch.dialects.base import Refusal
from gpt4batch.dialects.gpt4api import CHAT, GIZMOS, UPLOAD, Gpt4Api
from gpt4batch.dialects.meaning import error_text
from gpt4batch.errors import (
    AuthError,
    CallError,
    Crowded,
    Gpt4BatchError,
    NetworkError,
    QuotaError,
    RateLimited,
    ReplyError,
    RetryableError,
    UnclearQuota,
)
from gpt4batch.journal.in_flight import InFlight
from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import BOM
from gpt4batch.service.exchange import OutOfDescriptors
from gpt4batch.service.failures import SHOWN, failure, shortened
from gpt4batch.service.limits import limits_of
from gpt4batch.service.probing import Probing
from gpt4batch.service.retry import LONGEST_AFTER, retry_after, retrying
from gpt4batch.service.transport import body_of, damage_of
from gpt4batch.settings import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gpt4batch.control import Control
    from gpt4batch.dialects.base import Call, Dialect
    from gpt4batch.service.pacing import Pace
    from gpt4batch.service.tokens import Tokens
    from gpt4batch.settings import Endpoints

log = logging.getLogger(__name__)
T = TypeVar("T")

USER_AGENT = f"gpt4batch/{VERSION}"
REDIRECTS = (301, 302, 303, 307, 308)
CUT_OFF = (httpx.ReadError, httpx.RemoteProtocolError)
"""A chat that ends so was sent: it may be paid for, though no answer came."""

DESCRIPTOR_WAIT = 0.2
"""Seconds between two tries to open a connection where this machine has no descriptor left."""


class Where(NamedTuple):
    """The ask that a call is made for, as the log names it."""

    file: str = ""
    line: int = 0
    id: str | int | None = None
    ask: str | int | None = None


NOWHERE = Where()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the service.

    Args:
        raw: Its text, JSON in one line.
        doc: The same, decoded.
        seconds: How long the call took that brought it.
        attempts: How many calls it needed.
    """

    raw: bytes
    doc: dict[str, Any]
    seconds: float
    attempts: int


class Client:
    """The calls of one run.

    Args:
        transport: Sends the requests.
        endpoints: The addresses to call.
        tokens: The token, and how to renew it.
        pacer: Lets calls go.
        control: Ends waiting when the run is halted.
        retries: Tries after the first for what failed in passing.
        timeout: Seconds that the reply to one call may take.
        before_chat: Called before each attempt of a chat; may refuse it by raising.
        on_retry: Called with the error and the delay in seconds before each further attempt.
        in_flight: Is told of the chats that leave and of those that have come to their end.
        dialect: Says what replies mean.
        probing: Holds calls while it is unclear whether the account is empty.
    """

    def __init__(  # noqa: PLR0913 - one argument a collaborator
        self,
        transport: httpx.AsyncBaseTransport,
        endpoints: Endpoints,
        tokens: Tokens,
        pacer: Pace,
        control: Control,
        *,
        retries: int = 5,
        timeout: float = 480.0,
        before_chat: Callable[[], None] = lambda: None,
        on_retry: Callable[[RetryableError, float], None] = lambda _error, _delay: None,
        in_flight: InFlight | None = None,
        dialect: Dialect | None = None,
        probing: Probing | None = None,
    ) -> None:
        self._transport = transport
        self._endpoints = endpoints
        self._tokens = tokens
        self._pacer = pacer
        self._control = control
        self._retries = retries
        self._timeout = timeout
        self._before_chat = before_chat
        self._on_retry = on_retry
        self._in_flight = in_flight or InFlight(None)
        self._dialect = dialect or Gpt4Api()
        self._probing = probing or Probing(control)
        self._urls = {
            CHAT: httpx.URL(endpoints.chat),
            GIZMOS: httpx.URL(endpoints.gizmos),
            UPLOAD: httpx.URL(endpoints.upload),
        }
        self._sent: dict[int, float] = {}
        self._warned = False
        self.calls = 0
        self.uploads = 0
        self.unanswered = 0

    @property
    def in_flight(self) -> int:
        """Return how many calls have no reply yet."""
        return len(self._sent)

    @property
    def longest(self) -> float:
        """Return how long the oldest call in flight has been waiting; 0 where there is none."""
        oldest = next(iter(self._sent.values()), None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    async def chat(self, call: Call, where: Where = NOWHERE, *, new: bool = False) -> Reply:
        """Ask once and return the answer; `new` says that it is the first call of a line.

        Raises:
            CallError: No answer was received.
            FatalError: The run has to stop.
        """
        content = httpx.ByteStream(rawjson.dumps(call.fields))
        url = self._urls[call.address]
        extensions = {"said": call.said}

        def request(headers: dict[str, str]) -> httpx.Request:
            self._before_chat()
            headers["content-type"] = "application/json"
            return httpx.Request(
                "POST", url, headers=headers, stream=content, extensions=extensions
            )

        return await self._call("chat", request, where, new=new)

    async def upload(
        self, path: Path, call: Call, where: Where = NOWHERE, *, new: bool = False
    ) -> Reply:
        """Send a file, streamed from disk.

        Raises:
            CallError: It could not be sent.
            FatalError: The run has to stop.
        """
        url = self._urls[call.address]
        try:
            with path.open("rb") as file:

                def request(headers: dict[str, str]) -> httpx.Request:
                    file.seek(0)
                    files = {"file": (_sent_name(path), file)}
                    return httpx.Request(
                        "POST", url, headers=headers, data=call.fields, files=files
                    )

                return await self._call("upload", request, where, new=new)
        except OSError as error:
            raise CallError(f"cannot read {path}: {error.strerror}", stage="attachment") from error

    async def _call(
        self,
        stage: str,
        request: Callable[[dict[str, str]], httpx.Request],
        where: Where,
        *,
        new: bool,
    ) -> Reply:
        """Make a call, again where that may help; waiting is never counted as trying."""

        async def attempt(number: int) -> Reply:
            first = new and number == 1
            while (reply := await self._send(stage, request, where, number, new=first)) is None:
                first = False
            return reply

        return await retrying(attempt, self._retries, self._pause)

    async def _send(
        self,
        stage: str,
        request: Callable[[dict[str, str]], httpx.Request],
        where: Where,
        number: int,
        *,
        new: bool,
    ) -> Reply | None:
        """Send a call once; None where it has to be sent again and this was no attempt of it."""
        async with self._probing.turn() as probe:
            sent = await self._pacer.wait(new=new)
            if self._probing.on and not probe:
                return None  # it began while this call waited for the pace
            token = await self._tokens.current()
            if self._control.halted:
                raise Stopped
            message = request({"authorization": f"Bearer {token}", "user-agent": USER_AGENT})
            try:
                reply = await self._attempt(stage, message, number, where)
                self._check(stage, reply, message)
            except AuthError as error:
                await self._tokens.renew(token, str(error))
                return None
            except UnclearQuota as error:
                self._probing.refused(error, sent)
                return None
            except RetryableError as error:
                self._slow_down(error, sent)
                raise
            finally:
                self._pacer.done()
            self._pacer.speed_up()
            if probe:
                self._probing.succeeded(stage, sent)
            return reply

    def _slow_down(self, error: RetryableError, sent: float) -> None:
        """Tell the pace of a refusal that asks for fewer calls, a second or at a time."""
        if isinstance(error, RateLimited):
            self._pacer.slow_down(sent, _held_by(error))
        elif isinstance(error, Crowded) or (error.code == 503 and error.after is not None):
            self._pacer.crowded(sent)

    async def _pause(self, error: RetryableError, delay: float) -> None:
        """Wait before the next attempt."""
        self._on_retry(error, delay)
        text = "%s: attempt %d failed (%s); again in %.1f s"
        log.debug(text, error.stage, error.attempts, error, delay)
        with self._control.waiting():
            await anyio.sleep(delay)

    async def _attempt(
        self, stage: str, request: httpx.Request, attempt: int, where: Where
    ) -> Reply:
        began = time.monotonic()
        try:
            response = await self._exchange(stage, request)
        except NetworkError:
            _log_call(where, stage, None, time.monotonic() - began, attempt)
            raise
        if limits := limits_of(response.headers):
            self._pacer.limits(limits)
        body = body_of(response).removeprefix(BOM)
        seconds = time.monotonic() - began
        _log_call(where, stage, response.status_code, seconds, attempt)
        if not response.is_success:
            raise self._refusal(response, body, stage, request)
        damage = damage_of(response)
        try:
            doc = rawjson.loads(body)
        except rawjson.JSONError as error:
            untaken = isinstance(error, rawjson.UntakenError) or rawjson.objects_in(body)
            if damage or untaken:
                # It may be an answer that was paid for: another one would be no better.
                kept = rawjson.dumps(body.decode(errors="surrogateescape"))
                text = f"the reply cannot be read: {damage}" if damage else f"the reply is {error}"
                raise ReplyError(text, kept) from None
            text = f"the reply is {error}: {self._words(body)}"
            raise NetworkError(text, stage=stage, code=response.status_code) from None
        raw = rawjson.one_line(body)
        if not isinstance(doc, dict):
            raise ReplyError(f"the reply is no JSON object: {self._words(body)}", raw)
        return Reply(raw, doc, seconds, attempt)

    async def _exchange(self, stage: str, request: httpx.Request) -> httpx.Response:
        """Send a request and read the whole reply."""
        self.calls += 1
        if stage == "upload":
            self.uploads += 1
        number = self.calls
        self._sent[number] = time.monotonic()
        request.extensions["timeout"] = self._timeout
        chat = stage == "chat"
        if chat:
            self._in_flight.sent()
        try:
            return await self._deliver(request)
        except httpx.ReadTimeout:
            self.unanswered += chat
            raise NetworkError(f"no answer within {self._timeout:g} s", stage=stage) from None
        except httpx.HTTPError as error:
            self.unanswered += chat and isinstance(error, CUT_OFF)
            raise NetworkError(self._scrub(str(error) or repr(error)), stage=stage) from error
        except anyio.get_cancelled_exc_class():
            self.unanswered += chat
            chat = False  # nobody will learn what became of it: it stays in flight
            raise
        finally:
            del self._sent[number]
            if chat:
                self._in_flight.settled()

    async def _deliver(self, request: httpx.Request) -> httpx.Response:
        """Send a request; where this machine is out of descriptors, when it has one again.

        Raises:
            Stopped: The run was halted meanwhile.
            httpx.HTTPError: There is no whole response.
        """
        began = time.monotonic()
        while True:
            try:
                return await self._transport.handle_async_request(request)
            except OutOfDescriptors as error:
                if time.monotonic() - began > self._timeout:
                    raise
                if not self._warned:
                    self._warned = True
                    log.warning("%s: calls wait until others end; raise ulimit -n", error)
                with self._control.waiting():
                    await anyio.sleep(DESCRIPTOR_WAIT)

    def _refusal(
        self, response: httpx.Response, body: bytes, stage: str, request: httpx.Request
    ) -> Gpt4BatchError:
        """Turn a status that is no success into the error that says how it is treated."""
        code, said = response.status_code, request.extensions.get("said", "")
        refusal = self._dialect.refusal(code, response.headers, body, said)
        text = f"{code} {response.reason_phrase}".strip()
        if words := self._shown(refusal.words):
            text = f"{text}: {words}"
        if code in REDIRECTS:
            target = self._scrub(response.headers.get("location", "nowhere"))
            text += f" to {target}; the token is not sent on"
        after = retry_after(response.headers)
        return failure(refusal, text, stage, refusal.after if after is None else after)

    def _check(self, stage: str, reply: Reply, request: httpx.Request) -> None:
        """Refuse a reply with status 200 that does not answer its ask."""
        if stage != "chat":
            return
        found = self._dialect.answer(reply.doc, request.extensions["said"])
        if not isinstance(found, Refusal):
            return
        text = self._shown(found.words)
        error = failure(found, text, "reply", None)
        if isinstance(error, QuotaError | UnclearQuota):
            raise error
        kept = ReplyError(text, self.scrubbed(reply.raw))
        kept.forgotten = error.forgotten if isinstance(error, CallError) else ""
        raise kept

    def _words(self, body: bytes) -> str:
        """Return what a reply that is no JSON object says, in one short line."""
        return self._shown(body[: SHOWN * 8].decode(errors="replace"))

    def _shown(self, words: str) -> str:
        return shortened(self._scrub(words))

    def _scrub(self, text: str) -> str:
        return self._tokens.scrub(text)

    def no_upload(self, text: str, reply: Reply) -> ReplyError:
        """Return the error of a reply to an upload without what an upload becomes."""
        words = self._shown(error_text(reply.doc))
        error = ReplyError(f"{text}: {words}" if words else text, self.scrubbed(reply.raw))
        error.attempts = reply.attempts
        return error

    def scrubbed(self, reply: bytes) -> bytes:
        """Return a reply that is kept in an error without any secret in it."""
        return self._scrub(reply.decode(errors="surrogateescape")).encode(errors="surrogateescape")


def _sent_name(path: Path) -> str:
    """Return a file's name as a header can carry it."""
    return path.name.encode("utf-8", "replace").decode()


def _held_by(error: RetryableError) -> float | None:
    """Return the seconds for which everybody waits: those that a 429 asks for."""
    known = error.after and error.after <= LONGEST_AFTER
    return error.after if known and isinstance(error, RateLimited) else None


def _log_call(where: Where, stage: str, status: int | None, seconds: float, attempt: int) -> None:
    if not log.isEnabledFor(logging.DEBUG):
        return
    call = {
        "file": where.file,
        "line": where.line,
        "id": where.id,
        "ask": where.ask,
        "stage": stage,
        "status": status,
        "seconds": round(seconds, 3),
        "attempt": attempt,
    }
    log.debug(
        "%(file)s:%(line)d: %(stage)s of id %(id)s, ask %(ask)s: %(status)s in %(seconds).2f s,"
        " attempt %(attempt)d",
        call,
        extra={"call": call},
    )
