"""The service over HTTP: uploads, chats, tokens and downloads, each with its retries.

The wire format is that of the service's own documentation. This is the one place where a status
or a lost connection becomes an error of ours.
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urljoin

import anyio
import httpx

from gpt4batch.errors import (
    AuthError,
    CallError,
    DownloadError,
    Gpt4BatchError,
    NetworkError,
    QuotaError,
    RateLimited,
    RejectedError,
    ReplyError,
    RetryableError,
    ServerError,
)
from gpt4batch.journal.in_flight import InFlight
from gpt4batch.lines import rawjson
from gpt4batch.lines.records import BOM
from gpt4batch.service.credentials import Credentials
from gpt4batch.service.limits import limits_of
from gpt4batch.service.retry import LONGEST_AFTER, backoff, retry_after
from gpt4batch.service.transport import body_of
from gpt4batch.settings import VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gpt4batch.control import Control
    from gpt4batch.service.pacing import Pace
    from gpt4batch.service.tokens import Tokens
    from gpt4batch.settings import Endpoints

log = logging.getLogger(__name__)
T = TypeVar("T")

USER_AGENT = f"gpt4batch/{VERSION}"
SHOWN = 300
"""How much of a service's own words goes into a message, in characters."""

SPENT = re.compile(
    r"insufficient_quota|billing_hard_limit_reached|exceeded your current quota"
    r"|余额(不足|不够|已用)|额度(不足|不够|已用|用完|耗尽|已耗尽)|次数(已用|用完|不足)",
    re.IGNORECASE,
)
"""Words that can only mean that the account's quota is used up."""

QUOTA = re.compile(
    r"quota[^.]{0,40}(exceeded|exhausted|used up)|exceeded[^.]{0,20}quota", re.IGNORECASE
)
RATE = re.compile(r"per[ _-]?(second|minute|min)\b|rate.?limit", re.IGNORECASE)
"""A quota of calls a minute comes back by itself."""

WORDS = 4096
"""Bytes of a refusal in which words are looked for."""

REDIRECTS = (301, 302, 303, 307, 308)
REDIRECTS_FOLLOWED = 5
CUT_OFF = (httpx.ReadError, httpx.RemoteProtocolError)
"""A chat that ends so was sent: it may be paid for, though no answer came."""

PASSING = (408, 425)
TOKEN_TIMEOUT = 60.0


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
        timeout: Seconds one call may take.
        before_chat: Called before each attempt of a chat; may refuse it by raising.
        on_retry: Called with the error and the delay in seconds before each further attempt.
        in_flight: Is told of the chats that leave and of those that have come to their end.
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
        self._chat_url = httpx.URL(endpoints.chat)
        self._gizmos_url = httpx.URL(endpoints.gizmos)
        self._upload_url = httpx.URL(endpoints.upload)
        self._sent: dict[int, float] = {}
        self.calls = 0
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

    async def chat(
        self, body: dict[str, Any], where: Where = NOWHERE, *, new: bool = False
    ) -> Reply:
        """Ask once and return the answer; `new` says that it is the first call of a line.

        Raises:
            CallError: There is no answer to be had.
            FatalError: The run has to stop.
        """
        content = httpx.ByteStream(rawjson.dumps(body))
        url = self._gizmos_url if "gizmo_id" in body else self._chat_url

        def request(headers: dict[str, str]) -> httpx.Request:
            self._before_chat()
            headers["content-type"] = "application/json"
            return httpx.Request("POST", url, headers=headers, stream=content)

        attempts = 0
        try:
            reply = await self._call("chat", request, where, new=new)
            attempts = reply.attempts
            _check_answer(reply)
        except ReplyError as error:
            if SPENT.search(str(error)):
                raise QuotaError(
                    f"the account's quota is used up ({self._scrub(str(error))})"
                ) from None
            shown = ReplyError(self._scrub(str(error)), self.scrubbed(error.reply))
            shown.attempts = error.attempts or attempts
            raise shown from None
        return reply

    async def upload(
        self,
        path: Path,
        kind: str,
        conversation_id: str,
        where: Where = NOWHERE,
        *,
        new: bool = False,
    ) -> Reply:
        """Send a file, streamed from disk; `kind` is `multimodal` or `my_files`.

        Raises:
            CallError: It could not be sent.
            FatalError: The run has to stop.
        """
        fields = {"conversation_id": conversation_id, "type": kind}
        try:
            with path.open("rb") as file:

                def request(headers: dict[str, str]) -> httpx.Request:
                    file.seek(0)
                    files = {"file": (_sent_name(path), file)}
                    return httpx.Request(
                        "POST", self._upload_url, headers=headers, data=fields, files=files
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
        attempt = 0
        while True:
            sent = await self._pacer.wait(new=new and attempt == 0)
            token = await self._tokens.current()
            if self._control.halted:
                with self._control.waiting():  # raises
                    pass
            attempt += 1
            try:
                try:
                    headers = {"authorization": f"Bearer {token}", "user-agent": USER_AGENT}
                    reply = await self._attempt(stage, request(headers), attempt, where)
                finally:
                    self._pacer.done()
            except AuthError:
                await self._tokens.renew(token)
                attempt -= 1  # a refused token is no failure of the call
            except RetryableError as error:
                await self._again(error, attempt, sent)
            except CallError as error:
                error.attempts = attempt
                raise
            else:
                self._pacer.speed_up()
                return reply

    async def _again(self, error: RetryableError, attempt: int, sent: float) -> None:
        """Wait before the next attempt, or raise the error where there is none."""
        error.attempts = attempt
        if isinstance(error, RateLimited):
            after = error.after if error.after and error.after <= LONGEST_AFTER else None
            self._pacer.slow_down(sent, after)
        elif error.code == 503 and error.after is not None:
            self._pacer.crowded(sent)
        if attempt > self._retries:
            raise error
        if error.after is not None and error.after > LONGEST_AFTER:
            text = f"{error}; asked to wait {error.after:.0f} s, more than {LONGEST_AFTER:.0f} s"
            raise _like(error, text) from error
        delay = error.after if error.after is not None else backoff(attempt)
        self._on_retry(error, delay)
        log.debug("%s: attempt %d failed (%s); again in %.1f s", error.stage, attempt, error, delay)
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
            raise self._refusal(response, body, stage)
        try:
            doc = rawjson.loads(body)
        except rawjson.UntakenError as error:
            # It may be an answer that was paid for: another one would be no better.
            kept = rawjson.dumps(body.decode(errors="surrogateescape"))
            raise ReplyError(f"the reply is {error}", kept) from None
        except rawjson.JSONError as error:
            text = f"the reply is {error}: {self._words(body)}"
            raise NetworkError(text, stage=stage, code=response.status_code) from None
        raw = rawjson.one_line(body)
        if not isinstance(doc, dict):
            raise ReplyError(f"the reply is no JSON object: {self._words(body)}", raw)
        return Reply(raw, doc, seconds, attempt)

    async def _exchange(self, stage: str, request: httpx.Request) -> httpx.Response:
        """Send a request and read the whole reply."""
        self.calls += 1
        number = self.calls
        self._sent[number] = time.monotonic()
        request.extensions["timeout"] = self._timeout
        chat = stage == "chat"
        if chat:
            self._in_flight.sent()
        try:
            return await self._transport.handle_async_request(request)
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

    def _refusal(self, response: httpx.Response, body: bytes, stage: str) -> Gpt4BatchError:
        """Turn a status that is no success into the error that says how it is treated."""
        code = response.status_code
        text = f"{code} {response.reason_phrase}".strip()
        if words := self._words(body):
            text = f"{text}: {words}"
        if code == 401:
            return AuthError(f"the service does not accept the token ({text})")
        after = retry_after(response.headers)
        if code == 402 or _is_spent(code, body, words, after):
            return QuotaError(f"the account's quota is used up ({text})")
        if code == 429:
            return RateLimited(text, code=code, stage=stage, after=after)
        if code in PASSING or code >= 500:
            return ServerError(text, code=code, stage=stage, after=after)
        if code in REDIRECTS:
            target = self._scrub(response.headers.get("location", "nowhere"))
            text += f" to {target}; the token is not sent on"
        return RejectedError(text, code=code, stage=stage)

    def _words(self, body: bytes) -> str:
        """Return what a reply says of an error, in one short line."""
        text = body[: SHOWN * 8].decode(errors="replace")
        try:
            doc = rawjson.loads(body)
        except rawjson.JSONError:
            pass
        else:
            text = _error_text(doc) or text
        text = " ".join(text.split())
        text = self._scrub(text)
        return text if len(text) <= SHOWN else text[:SHOWN] + "…"

    def _scrub(self, text: str) -> str:
        return self._tokens.scrub(text)

    def no_upload(self, text: str, reply: Reply) -> ReplyError:
        """Return the error of a reply to an upload without what an upload becomes."""
        words = self._words(reply.raw) if _error_text(reply.doc) else ""
        error = ReplyError(f"{text}: {words}" if words else text, self.scrubbed(reply.raw))
        error.attempts = reply.attempts
        return error

    def scrubbed(self, reply: bytes) -> bytes:
        """Return a reply that is kept in an error without any secret in it."""
        return self._scrub(reply.decode(errors="surrogateescape")).encode(errors="surrogateescape")

    # -- downloads ---------------------------------------------------------------------------

    @asynccontextmanager
    async def open_url(
        self, url: str, headers: dict[str, str], public: Callable[[httpx.URL], bool]
    ) -> AsyncIterator[httpx.Response]:
        """Open a download; redirects are followed, `public` says which addresses must be.

        Raises:
            DownloadError: The address is refused, or the file is not there.
            RetryableError: It may be there later.
        """
        for _ in range(REDIRECTS_FOLLOWED + 1):
            address = _parsed(url)
            response = await self._get(address, headers, public=public(address))
            if response.status_code not in REDIRECTS:
                try:
                    yield response
                finally:
                    await response.aclose()
                return
            await response.aclose()
            url = _redirected(address, response)
        raise DownloadError(f"more than {REDIRECTS_FOLLOWED} redirects")

    async def _get(
        self, url: httpx.URL, headers: dict[str, str], *, public: bool
    ) -> httpx.Response:
        headers = {"user-agent": USER_AGENT, "accept": "*/*", **headers}
        extensions = {"streamed": True} | ({"public": True} if public else {})
        request = httpx.Request("GET", url, headers=headers, extensions=extensions)
        try:
            with anyio.fail_after(self._timeout):
                return await self._transport.handle_async_request(request)
        except TimeoutError:
            raise NetworkError(f"no answer within {self._timeout:g} s", stage="download") from None
        except httpx.HTTPError as error:
            raise NetworkError(str(error) or repr(error), stage="download") from error


def _is_spent(code: int, body: bytes, words: str, after: float | None) -> bool:
    """Tell whether a refusal means that the account's quota is used up.

    Elsewhere than in a 403 or 429 only a short text counts: a long one may repeat a prompt.
    """
    with suppress(rawjson.JSONError):
        body = rawjson.dumps(rawjson.loads(body))  # without escapes
    text = body[:WORDS].decode(errors="replace")
    if code not in (403, 429):
        return len(text) < SHOWN and bool(SPENT.search(text))
    if SPENT.search(text):
        return True
    return bool(QUOTA.search(words)) and after is None and not RATE.search(words)


def _sent_name(path: Path) -> str:
    """Return a file's name as a header can carry it."""
    return path.name.encode("utf-8", "replace").decode()


def _parsed(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
        fetched = address.scheme in ("http", "https") and bool(address.host)
        if (address.port or 0) > 65535:
            raise DownloadError(f"not an address: there is no port {address.port}")
    except (httpx.InvalidURL, ValueError) as error:  # a host may be refused when it is read
        raise DownloadError(f"not an address: {error}") from None
    if not fetched:
        raise DownloadError(f"only http and https addresses are fetched, not {url[:100]!r}")
    return address


def _redirected(address: httpx.URL, response: httpx.Response) -> str:
    target: str = response.headers.get("location", "")
    try:
        return urljoin(str(address), target)
    except ValueError as error:
        raise DownloadError(f"a redirect to no address: {error}") from None


def _like(error: RetryableError, text: str) -> RetryableError:
    other = type(error)(text, code=error.code, stage=error.stage, after=error.after)
    other.attempts = error.attempts
    return other


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


def _check_answer(reply: Reply) -> None:
    """Refuse a reply that is no answer: no `contents`, or an error in one of them."""
    contents = reply.doc.get("contents")
    if not isinstance(contents, list) or not contents:
        words = _error_text(reply.doc)
        text = f"the reply has no contents: {words}" if words else "the reply has no contents"
        raise ReplyError(text, reply.raw)
    for content in contents:
        error = content.get("error") if isinstance(content, dict) else None
        if error:
            raise ReplyError(f"the reply says: {_error_text(error) or error}"[:SHOWN], reply.raw)


def _error_text(doc: Any) -> str:
    """Return the words of an error in the shapes that services use."""
    if isinstance(doc, str):
        return doc
    if isinstance(doc, dict):
        for name in ("error", "message", "detail", "msg", "error_description"):
            if text := _error_text(doc.get(name)):
                return text
    if isinstance(doc, list) and doc:
        return _error_text(doc[0])
    return ""


async def fetch_token(
    transport: httpx.AsyncBaseTransport, url: str, email: str, password: str, ttl: int
) -> Credentials:
    """Ask the token service for a token.

    Raises:
        AuthError: It refuses, cannot be reached or answers something else.
    """
    body = rawjson.dumps({"email": email, "password": password, "ttl": ttl})
    headers = {"content-type": "application/json", "user-agent": USER_AGENT}
    request = httpx.Request(
        "POST", url, headers=headers, content=body, extensions={"timeout": TOKEN_TIMEOUT}
    )
    try:
        response = await transport.handle_async_request(request)
    except httpx.ReadTimeout:
        text = f"{url} does not answer ({TOKEN_TIMEOUT:.0f} s); is the network up?"
        raise AuthError(text) from None
    except httpx.HTTPError as error:
        raise AuthError(f"{url} cannot be reached: {error}; is the network up?") from error
    raw = body_of(response)
    credentials = Credentials.from_reply(raw) if response.is_success else None
    if credentials is None:
        raise AuthError(_token_refusal(url, response, raw).replace(password, "***"))
    return credentials


def _token_refusal(url: str, response: httpx.Response, raw: bytes) -> str:
    status = f"{response.status_code} {response.reason_phrase}".strip()
    try:
        words = " ".join(_error_text(rawjson.loads(raw)).split())[:SHOWN]
    except rawjson.JSONError:
        return f"{url} answered {status}, but no JSON; is it the right address (-u)?"
    if response.is_success:
        return f"{url} answered without a token" + (f": {words}" if words else "")
    hint = "; check the email address and the password" if response.is_client_error else ""
    return f"{url} refused: {status}" + (f" ({words})" if words else "") + hint
