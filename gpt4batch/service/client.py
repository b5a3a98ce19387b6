"""The service over HTTP: uploads and chats, each with its retries."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import anyio
import httpx

from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.control import Stopped
from gpt4batch.dialects.base import Call
from gpt4batch.dialects.known import GPT4API
from gpt4batch.errors import (
    AuthError,
    CallError,
    Crowded,
    NetworkError,
    RateLimited,
    ReplyError,
    RetryableError,
    UnclearQuota,
)
from gpt4batch.journal.in_flight import InFlight
from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import BOM
from gpt4batch.service.counters import Made
from gpt4batch.service.exchange import OutOfDescriptors
from gpt4batch.service.failures import calling
from gpt4batch.service.probing import Probing
from gpt4batch.service.replies import Replies
from gpt4batch.service.retry import LONGEST_AFTER, retrying
from gpt4batch.service.transport import body_of
from gpt4batch.settings import VERSION
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gpt4batch.control import Control
    from gpt4batch.dialects.base import Answer, Dialect
    from gpt4batch.service.allowance import Allowance
    from gpt4batch.service.pacing import Pace
    from gpt4batch.service.tokens import Tokens

log = logging.getLogger(__name__)
T = TypeVar("T")

USER_AGENT = f"gpt4batch/{VERSION}"
CUT_OFF = (httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError)
"""A chat that ends so was sent: it may be paid for, though no answer came."""

MOST_ADDRESSES = 64
"""Addresses below a base that are remembered; a run calls a few, a service of ours any."""

DESCRIPTOR_WAIT = 0.2
"""Seconds between two tries to open a connection where this machine has no descriptor left."""


class Where(NamedTuple):
    """The ask that a call is made for, as the log names it."""

    file: str = ""
    line: int = 0
    id: str | int | None = None
    ask: str | int | None = None


NOWHERE = Where()
NO_CALL = Call("", {})


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the service.

    Args:
        raw: Its text, JSON in one line.
        doc: The same, decoded.
        seconds: How long the call took that brought it.
        attempts: How many calls it needed.
        answer: What it tells about itself.
    """

    raw: bytes
    doc: dict[str, Any]
    seconds: float
    attempts: int
    answer: Answer


class Client:
    """The calls of one run.

    Args:
        transport: Sends the requests.
        addresses: The addresses to call, by the dialect's names for them.
        tokens: The token, and how to renew it.
        pacer: Lets calls go.
        control: Ends waiting when the run is halted.
        retries: Tries after the first for what failed in passing.
        timeout: Seconds that the reply to one call may take.
        before_chat: Called before each attempt of a chat; may refuse it by raising.
        on_retry: Called with the error and the delay in seconds before each further attempt.
        idle_timeout: Seconds in which nothing of a stream that was asked for may come.
        in_flight: Is told of the chats that leave and of those that have come to their end.
        dialect: Says what replies mean.
        probing: Holds calls while it is unclear whether the account is empty.
        allowance: Holds chats to tokens a minute, and tokens and money in all.
        clock: Tells the time.
    """

    def __init__(  # noqa: PLR0913 - one argument a collaborator
        self,
        transport: httpx.AsyncBaseTransport,
        addresses: Mapping[str, str],
        tokens: Tokens,
        pacer: Pace,
        control: Control,
        *,
        retries: int = 5,
        timeout: float = 480.0,
        before_chat: Callable[[], None] = lambda: None,
        on_retry: Callable[[RetryableError, float], None] = lambda _error, _delay: None,
        idle_timeout: float = float("inf"),
        in_flight: InFlight | None = None,
        dialect: Dialect = GPT4API,
        probing: Probing | None = None,
        allowance: Allowance | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._clock = clock
        self._transport = transport
        self._tokens = tokens
        self._pacer = pacer
        self._control = control
        self._retries = retries
        self._timeout = timeout
        self._before_chat = before_chat
        self._on_retry = on_retry
        self._idle_timeout = idle_timeout
        self._in_flight = in_flight or InFlight(None)
        self.dialect = dialect
        self.replies = Replies(dialect, tokens.scrub)
        self._probing = probing or Probing(control, clock=clock)
        self._allowance = allowance
        self._urls = {name: httpx.URL(url) for name, url in addresses.items()}
        self._warned = False
        self.made = Made()

    @property
    def in_flight(self) -> int:
        """Return how many calls have no reply yet."""
        return len(self.made.out)

    @property
    def longest(self) -> float:
        """Return how long the oldest call in flight has been waiting; 0 if no call is in flight."""
        oldest = next(iter(self.made.out.values()), None)
        return 0.0 if oldest is None else self._clock.monotonic() - oldest

    async def chat(self, call: Call, where: Where = NOWHERE, *, new: bool = False) -> Reply:
        """Ask once and return the answer; `new` says that it is the first call of a line.

        Raises:
            CallError: No answer was received.
            FatalError: The run has to stop.
        """
        body = rawjson.dumps(call.fields) if call.body is None else call.body
        content = httpx.ByteStream(body)
        url = self._url(call)
        extensions: dict[str, Any] = {"call": call}
        if self.dialect.takes_events:
            extensions |= {"fold": self.dialect.fold, "idle": self._idle_timeout}

        def request(headers: dict[str, str]) -> httpx.Request:
            self._before_chat()
            headers["content-type"] = "application/json"
            return httpx.Request(
                "POST", url, headers=headers, stream=content, extensions=extensions
            )

        if self._allowance is None:
            return await self._call("chat", request, where, new=new)
        async with self._allowance.call(len(body)) as held:
            extensions["held"] = held
            try:
                reply = await self._call("chat", request, where, new=new)
            except ReplyError as error:  # it was no answer, and may have cost as much as one
                held.answered, held.usage = error.usage is not None, error.usage
                raise
            held.answered, held.usage = True, reply.answer.usage
        return reply

    def _url(self, call: Call) -> httpx.URL:
        """Return the address that a call goes to."""
        url = self._urls.get(call.address + call.path)
        if url is None:
            base = self._urls[call.address]
            url = base.copy_with(path=base.path.rstrip("/") + call.path)
            if len(self._urls) < MOST_ADDRESSES:
                self._urls[call.address + call.path] = url
        return url

    async def upload(
        self, path: Path, call: Call, where: Where = NOWHERE, *, new: bool = False
    ) -> Reply:
        """Send a file, streamed from disk.

        Raises:
            CallError: It could not be sent.
            FatalError: The run has to stop.
        """
        url = self._urls[call.address]
        name = path.name.encode("utf-8", "replace").decode()  # as a header can carry it
        try:
            with path.open("rb") as file:

                def request(headers: dict[str, str]) -> httpx.Request:
                    file.seek(0)
                    files = {"file": (name, file)}
                    return httpx.Request(
                        "POST", url, headers=headers, data=call.fields, files=files
                    )

                return await self._call("upload", request, where, new=new)
        except OSError as error:
            raise CallError(
                tr("cannot read {path}: {reason}", path=path, reason=because(error)),
                stage="attachment",
            ) from error

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
            token = await self._tokens.current()  # first: a turn is over when a renewal is
            sent = await self._pacer.wait(new=new)
            if (self._probing.on and not probe) or self._tokens.changed(token):
                self._pacer.unused(sent)  # that began while this call waited for the pace
                return None
            if self._control.halted:
                raise Stopped
            headers = {**self.dialect.headers(token), "user-agent": USER_AGENT}
            headers.update(self._tokens.headers)
            message = request(headers)
            try:
                reply = await self._attempt(stage, message, number, where)
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
            named = error.after and error.after <= LONGEST_AFTER
            self._pacer.slow_down(sent, error.after if named else None)
        elif error.after == 0:
            return  # the service says itself that the next call may come at once
        elif isinstance(error, Crowded) or (error.code == 503 and error.after):
            self._pacer.crowded(sent)

    async def _pause(self, error: RetryableError, delay: float) -> None:
        """Wait before the next attempt."""
        self._on_retry(error, delay)
        text = tr("%s: attempt %d failed (%s); again in %.1f s")
        log.debug(text, error.stage, error.attempts, error, delay)
        with self._control.waiting():
            await anyio.sleep(delay)

    async def _attempt(
        self, stage: str, request: httpx.Request, attempt: int, where: Where
    ) -> Reply:
        began = self._clock.monotonic()
        try:
            response = await self._exchange(stage, request)
        except NetworkError:
            _log_call(where, stage, None, self._clock.monotonic() - began, attempt)
            raise
        now = self._clock.now()
        if limits := self.dialect.limits(response.headers, now):
            self._pacer.limits(limits)
        body = body_of(response).removeprefix(BOM)
        seconds = self._clock.monotonic() - began
        _log_call(where, stage, response.status_code, seconds, attempt)
        call = request.extensions.get("call", NO_CALL)
        raw, doc, answer = self.replies.read(response, body, stage, call, now)
        return Reply(raw, doc, seconds, attempt, answer)

    async def _exchange(self, stage: str, request: httpx.Request) -> httpx.Response:
        """Send a request and read the whole reply."""
        self.made.calls += 1
        if stage == "upload":
            self.made.uploads += 1
        number = self.made.calls
        self.made.out[number] = self._clock.monotonic()
        request.extensions["timeout"] = self._timeout
        chat, lost = stage == "chat", False
        if chat:
            self._in_flight.sent()
        try:
            with calling(stage, self._tokens.scrub):
                return await self._deliver(request)
        except NetworkError as error:
            lost = isinstance(error.__cause__, CUT_OFF)
            raise
        except anyio.get_cancelled_exc_class():
            lost = True
            raise
        finally:
            del self.made.out[number]
            if chat and lost:
                if (held := request.extensions.get("held")) is not None:
                    held.lost += 1
                self.made.unanswered += 1  # and stays noted until a summary tells of it
            elif chat:
                self._in_flight.settled()

    async def _deliver(self, request: httpx.Request) -> httpx.Response:
        """Send a request; where this machine is out of descriptors, when it has one again.

        Raises:
            Stopped: The run was halted meanwhile.
            httpx.HTTPError: There is no whole response.
        """
        began = self._clock.monotonic()
        while True:
            try:
                return await self._transport.handle_async_request(request)
            except OutOfDescriptors as error:
                if self._clock.monotonic() - began > self._timeout:
                    raise
                if not self._warned:
                    self._warned = True
                    log.warning("%s: calls wait until others end; raise ulimit -n", error)
                with self._control.waiting():
                    await anyio.sleep(DESCRIPTOR_WAIT)


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
