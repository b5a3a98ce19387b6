"""Which tokens the service issues and accepts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt4batch.mock.digests import digest, letters_of
from gpt4batch.mock.recent import Recent
from gpt4batch.mock.refusal import Refusal

if TYPE_CHECKING:
    from gpt4batch.mock.settings import MockSettings

TOKENS_KEPT = 1000


@dataclass(slots=True)
class Token:
    """One token: when it ends and how many calls it was used for."""

    expires_at: float
    calls: int = 0


class Tokens:
    """The tokens of the one account there is."""

    def __init__(self, settings: MockSettings) -> None:
        self._settings = settings
        self._tokens: Recent[str, Token] = Recent(TOKENS_KEPT)
        self._issued = 0
        if settings.token:
            self._first = Token(expires_at=float("inf"))

    def admit(self, authorization: str | None) -> None:
        """Let a call pass, or refuse it with 401."""
        scheme, _, value = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not value.strip():
            raise Refusal(
                401,
                "no access token: send the header Authorization: Bearer <token>",
                code="invalid_api_key",
            )
        value, own = value.strip(), self._settings.token
        token = self._first if own and value == own else self._tokens.get(value)
        if token is None and own:
            raise Refusal(401, "the access token is not known", code="invalid_api_key")
        if token is None:
            token = Token(expires_at=float("inf"))
            self._tokens.put(value, token)
        limit = self._settings.token_calls
        if time.time() >= token.expires_at or (limit and token.calls >= limit):
            raise Refusal(
                401, "the access token has expired: fetch a new one", code="invalid_api_key"
            )
        token.calls += 1

    def issue(self, order: Any) -> dict[str, Any]:
        """Return a new token for `{"email", "password", "ttl"}`, or refuse."""
        email, ttl = self._checked(order)
        ttl = self._settings.token_ttl or ttl
        self._issued += 1
        value = "mock-" + letters_of(digest(self._settings.seed, "token", self._issued), 32)
        expires_at = time.time() + ttl
        self._tokens.put(value, Token(expires_at))
        return {"access_token": value, "expired_at": int(expires_at), "username": email}

    def _checked(self, order: Any) -> tuple[str, float]:
        if not isinstance(order, dict):
            raise Refusal(400, "the body must be a JSON object")
        if unknown := order.keys() - {"email", "password", "ttl"}:
            raise Refusal(422, f"unknown field {min(unknown)!r}")
        for name in ("email", "password"):
            if not isinstance(order.get(name), str) or not order[name]:
                raise Refusal(422, f"{name} is missing or not a string")
        ttl = order.get("ttl", 86400)
        if not isinstance(ttl, int) or isinstance(ttl, bool) or ttl <= 0:
            raise Refusal(422, "ttl must be a whole number of seconds, more than 0")
        wanted = {"email": self._settings.email, "password": self._settings.password}
        if any(value and order[name] != value for name, value in wanted.items()):
            raise Refusal(401, "wrong email or password")
        return order["email"], ttl
