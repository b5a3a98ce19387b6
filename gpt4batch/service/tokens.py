"""The token in use, and its renewal while the run is on."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import anyio

from gpt4batch.errors import AuthError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

SHORTEST_SECRET = 6
"""A shorter text is a word of every message; no service issues such a token."""

RENEWAL_INTERVAL = 300.0
"""Seconds in which a token is renewed once at most."""


class Tokens:
    """The token that every call carries.

    Args:
        token: The first one.
        fetch: Fetches and stores a new one; None where no credentials are known.
        secrets: More texts that no message may show, such as the password.
    """

    def __init__(
        self,
        token: str,
        fetch: Callable[[], Awaitable[str]] | None = None,
        secrets: tuple[str, ...] = (),
    ) -> None:
        self._token = token
        self._fetch = fetch
        self._secrets = {text for text in (token, *secrets) if len(text) >= SHORTEST_SECRET}
        self._renewing = anyio.Lock(fast_acquire=True)
        self._renewed_at = float("-inf")
        self.renewals = 0

    async def current(self) -> str:
        """Return the token, waiting while a new one is being fetched."""
        if self._renewing.locked():
            async with self._renewing:
                pass
        return self._token

    async def renew(self, refused: str) -> None:
        """Replace a token that was refused, once for all the calls that carried it.

        Raises:
            AuthError: There are no credentials, or the last renewal is too recent.
        """
        async with self._renewing:
            if self._token != refused:
                return
            if self._fetch is None:
                raise AuthError(
                    "the service does not accept the token (401); fetch a new one with: gpt4batch "
                    "authsvc -e EMAIL, then run again with -f. With GPT4BATCH_EMAIL and "
                    "GPT4BATCH_PASSWORD set, a run renews its token itself"
                )
            if time.monotonic() - self._renewed_at < RENEWAL_INTERVAL:
                raise AuthError(
                    "the service does not accept the token that was fetched less than 5 minutes "
                    "ago (401); is -u the right address for this account?"
                )
            self._renewed_at = time.monotonic()
            self._token = await self._fetch()
            self._secrets.add(self._token)
            self.renewals += 1
            log.info("the token was refused (401); a new one was fetched")

    def scrub(self, text: str) -> str:
        """Return a text without any secret in it."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text
