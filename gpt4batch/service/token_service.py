"""The service that issues tokens for an email address and a password."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from gpt4batch.dialects.meaning import error_text, refusal_of
from gpt4batch.errors import AuthError, CallError, NetworkError, RetryableError
from gpt4batch.lines import rawjson
from gpt4batch.service.credentials import Credentials
from gpt4batch.service.failures import calling, failure, shortened
from gpt4batch.service.retry import retry_after, retrying
from gpt4batch.service.secrets import Secrets
from gpt4batch.service.transport import body_of
from gpt4batch.settings import VERSION
from gpt4batch.words import joined, tr

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gpt4batch.service.credentials import Account

    Pause = Callable[[RetryableError, float], Awaitable[None]]

HEADERS = {"content-type": "application/json", "user-agent": f"gpt4batch/{VERSION}"}
TIMEOUT = 60.0
"""Seconds that one call may take."""

SET_BY = tr("It is set by GPT4BATCH_TOKEN_URL, or by -u of authsvc")


async def _give_up(error: RetryableError, _delay: float) -> None:
    raise error


async def fetch_token(
    transport: httpx.AsyncBaseTransport,
    account: Account,
    *,
    retries: int = 0,
    pause: Pause = _give_up,
) -> Credentials:
    """Ask the token service for a token, again where it failed in passing.

    Raises:
        AuthError: It refuses, cannot be reached or answers something else.
    """
    body = rawjson.dumps({name: getattr(account, name) for name in ("email", "password", "ttl")})
    secrets = Secrets()
    secrets.add(account.password)
    causes: list[str] = []

    def unreachable(why: str) -> str:
        return tr("{url} cannot be reached: {why}; is the network up?", url=account.url, why=why)

    async def attempt(_number: int) -> Credentials:
        try:
            with calling("token", unreachable):
                request = httpx.Request("POST", account.url, headers=HEADERS, content=body)
                request.extensions["timeout"] = TIMEOUT
                response = await transport.handle_async_request(request)
            return _read(account.url, response, secrets)
        except CallError as error:
            causes.append(str(error))
            raise

    try:
        return await retrying(attempt, retries, pause)
    except CallError as error:
        # What went wrong first is the cause; what follows may be its consequence.
        parts = [causes[0]]
        parts += [tr("; then: {error}", error=error)] if str(error) != causes[0] else []
        if error.attempts > 1:
            parts.append(tr(" ({attempts} attempts)", attempts=error.attempts))
        raise AuthError(joined("", parts)) from error


def _read(url: str, response: httpx.Response, secrets: Secrets) -> Credentials:
    """Return the token of a reply.

    Raises:
        AuthError: The service refuses, or answers something else.
        RetryableError: It failed in passing.
    """
    raw = body_of(response)
    credentials = Credentials.from_reply(raw) if response.is_success else None
    if credentials is not None:
        return credentials
    status = f"{response.status_code} {response.reason_phrase}".strip()
    words = ""
    try:
        words = shortened(secrets.scrub(error_text(rawjson.loads(raw))))
    except rawjson.JSONError:
        text = tr(
            "{url} answered {status}, but no JSON; is it the right address? {set_by}",
            url=url,
            status=status,
            set_by=SET_BY,
        )
        if response.is_success:  # a gateway's page, as while the service behind it restarts
            raise NetworkError(text, stage="token") from None
    else:
        if response.is_success:
            text = tr("{url} answered without a token", url=url)
            raise AuthError(tr("{text}: {words}", text=text, words=words) if words else text)
        status += f" ({words})" if words else ""
        text = tr("{url} answered {status}", url=url, status=status)
    refusal = refusal_of(response.status_code, response.headers, raw)
    after = retry_after(response.headers)
    error = failure(refusal, text, "token", refusal.after if after is None else after)
    if isinstance(error, RetryableError):
        raise error
    text = tr("{url} refused: {status}", url=url, status=status)
    if response.is_client_error:
        text += tr("; check the email address and the password")
    raise AuthError(text)
