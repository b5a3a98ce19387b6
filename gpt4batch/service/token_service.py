"""The service that issues tokens for an email address and a password."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from gpt4batch.dialects.meaning import error_text, refusal_of
from gpt4batch.errors import AuthError, CallError, NetworkError, RetryableError
from gpt4batch.lines import rawjson
from gpt4batch.service.credentials import Credentials
from gpt4batch.service.failures import failure, shortened
from gpt4batch.service.retry import retry_after, retrying
from gpt4batch.service.secrets import Secrets
from gpt4batch.service.transport import body_of
from gpt4batch.settings import VERSION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gpt4batch.service.credentials import Account

    Pause = Callable[[RetryableError, float], Awaitable[None]]

TIMEOUT = 60.0
"""Seconds that one call may take."""


async def _not_at_all(error: RetryableError, _delay: float) -> None:
    raise error


async def fetch_token(
    transport: httpx.AsyncBaseTransport,
    account: Account,
    *,
    retries: int = 0,
    pause: Pause = _not_at_all,
) -> Credentials:
    """Ask the token service for a token, again where it failed in passing.

    Raises:
        AuthError: It refuses, cannot be reached or answers something else.
    """
    url = account.url
    fields = {"email": account.email, "password": account.password, "ttl": account.ttl}
    body = rawjson.dumps(fields)
    secrets = Secrets()
    secrets.add(account.password)
    causes: list[str] = []

    async def attempt(_number: int) -> Credentials:
        try:
            return _read(url, await _sent(transport, url, body), secrets)
        except CallError as error:
            causes.append(str(error))
            raise

    try:
        return await retrying(attempt, retries, pause)
    except CallError as error:
        # What went wrong first is the cause; what follows may be its consequence.
        later = f"; then: {error}" if str(error) != causes[0] else ""
        tries = f" ({error.attempts} attempts)" if error.attempts > 1 else ""
        raise AuthError(f"{causes[0]}{later}{tries}") from error


async def _sent(transport: httpx.AsyncBaseTransport, url: str, body: bytes) -> httpx.Response:
    headers = {"content-type": "application/json", "user-agent": f"gpt4batch/{VERSION}"}
    request = httpx.Request(
        "POST", url, headers=headers, content=body, extensions={"timeout": TIMEOUT}
    )
    try:
        return await transport.handle_async_request(request)
    except httpx.ReadTimeout:
        text = f"{url} does not answer ({TIMEOUT:.0f} s); is the network up?"
        raise NetworkError(text, stage="token") from None
    except httpx.HTTPError as error:
        text = f"{url} cannot be reached: {error}; is the network up?"
        raise NetworkError(text, stage="token") from error


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
    try:
        words = shortened(secrets.scrub(error_text(rawjson.loads(raw))))
    except rawjson.JSONError:
        text = f"{url} answered {status}, but no JSON; is it the right address (-u)?"
        if response.is_success:
            raise AuthError(text) from None
    else:
        if response.is_success:
            raise AuthError(f"{url} answered without a token" + (f": {words}" if words else ""))
        text = f"{url} answered {status}" + (f" ({words})" if words else "")
    refusal = refusal_of(response.status_code, response.headers, raw)
    after = retry_after(response.headers)
    error = failure(refusal, text, "token", refusal.after if after is None else after)
    if isinstance(error, RetryableError):
        raise error
    hint = "; check the email address and the password" if response.is_client_error else ""
    raise AuthError(text.replace(" answered ", " refused: ", 1) + hint)
