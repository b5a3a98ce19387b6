"""The token in use, and its renewal while the run is on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.errors import AuthError
from gpt4batch.service.secrets import SHORTEST, Secrets
from gpt4batch.words import Message, tr

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

log = logging.getLogger(__name__)

RENEWAL_INTERVAL = 300.0
"""Seconds in which a token is fetched once at most."""

NO_ACCOUNT = tr(
    "{reason}; fetch a new one with: gpt4batch authsvc -e EMAIL, then run again with -f. With"
    " GPT4BATCH_EMAIL and GPT4BATCH_PASSWORD set, a run renews its token itself"
)
TOO_SOON = tr(
    "{reason}; this one was fetched less than 5 minutes ago, so another would not help: is -u the"
    " right address for this account, and is the account in order?"
)


class Tokens:
    """The token that every call carries.

    Args:
        token: The first one; empty where calls carry none.
        fetch: Fetches and stores a new one; None where no credentials are known.
        headers: More headers that every call carries, by their names in lower case; they come
            before those of the token, and their values are secrets.
        secrets: More texts that no message may show, such as the password.
        stored: Reads the files that tokens are kept in, where another run of the same account may
            have put a newer one.
        advice: What a refused token that cannot be renewed is told with.
        clock: Tells the time.
    """

    def __init__(  # noqa: PLR0913 - one argument a property
        self,
        token: str,
        fetch: Callable[[], Awaitable[str]] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
        stored: Callable[[], list[str]] = list,
        advice: Message = NO_ACCOUNT,
        clock: Clock = SYSTEM,
    ) -> None:
        self._clock = clock
        self._token = token
        self._fetch = fetch
        self._advice = advice
        self._stored = stored
        self._secrets = Secrets()
        self.headers = dict(headers or {})
        values = self.headers.values()
        for text in (token, *secrets, *values, *" ".join(values).split()):
            self._hide(text)
        self._refused: set[str] = set()
        self._renewing = anyio.Lock(fast_acquire=True)
        self._renewed_at = float("-inf")
        self._failed_at, self._failure = float("-inf"), tr("")
        self.renewals = 0

    async def current(self) -> str:
        """Return the token, waiting while a new one is being fetched."""
        if self._renewing.locked():
            async with self._renewing:
                pass
        return self._token

    def changed(self, token: str) -> bool:
        """Return whether a token is not that in use any more, or is just being renewed."""
        return self._renewing.locked() or token != self._token

    async def renew(self, refused: str, reason: str) -> None:
        """Replace a token that was refused, once for all the calls that carried it.

        Args:
            refused: The token.
            reason: What the service says about it.

        Raises:
            AuthError: There are no credentials, or the last renewal is too recent.
        """
        async with self._renewing:
            if self._token != refused:
                return
            self._refused.add(refused)
            if not self._take_stored():
                await self._renew(reason)

    def _take_stored(self) -> bool:
        """Use the token that another run has stored meanwhile."""
        found = next((text for text in self._stored() if text not in self._refused), None)
        if found is None:
            return False
        self._hide(found)
        self._token = found
        log.info("the token was refused (401); the one that was stored meanwhile is used")
        return True

    async def _renew(self, reason: str) -> None:
        if self._fetch is None:
            raise AuthError(self._advice.filled(reason=reason))
        if self._clock.monotonic() - self._renewed_at < RENEWAL_INTERVAL:
            raise AuthError(TOO_SOON.filled(reason=reason))
        if self._clock.monotonic() - self._failed_at < RENEWAL_INTERVAL:
            raise AuthError(self._failure)  # a login that fails is not tried by every call
        try:
            found = await self._fetch()
        except AuthError as error:
            if self._take_stored():
                return
            self._failure = tr(
                "{reason}, and no new one could be fetched: {error}",
                reason=reason,
                error=self.scrub(error.args[0]),  # it may name the old one
            )
            self._failed_at = self._clock.monotonic()
            raise AuthError(self._failure) from error
        self._renewed_at = self._clock.monotonic()
        self._hide(found)
        self._token = found
        self.renewals += 1
        log.info("the token was refused (401); a new one was fetched")

    def _hide(self, text: str) -> None:
        if len(text) >= SHORTEST:  # no service issues a shorter token
            self._secrets.add(text)

    def scrub(self, text: str) -> str:
        """Return a text without any secret in it."""
        return self._secrets.scrub(text)
