"""A request that the service does not answer, and what it says instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping


class Refusal(Exception):
    """The service answers with a 4xx or 5xx that says what was wrong.

    Args:
        status: The HTTP status.
        message: What was wrong, in words.
        headers: Headers of the response.
        code: The word for it of services that have one.
        kind: What such services call its type; left out, it follows from the status.
        param: The field of the request that it is about.
    """

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        code: str | None = None,
        kind: str = "",
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.code = code
        self.kind = kind
        self.param = param

    def response(self) -> web.Response:
        """Return the refusal as a JSON response."""
        body = {"error": {"code": self.status, "message": self.message}}
        return json_response(body, status=self.status, headers=self.headers)


def json_response(
    body: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return a response of JSON."""
    return web.Response(
        body=orjson.dumps(body),
        status=status,
        headers=headers,
        content_type="application/json",
    )
