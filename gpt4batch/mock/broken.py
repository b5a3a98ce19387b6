"""Responses that break: connections that end too early, bodies that are no reply."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

GARBAGE = (
    b"<html><head><title>Welcome</title></head><body>Sign in to the network</body></html>",
    b'{"created": 1708834483, "message_id": "7da0',
    b"",
)


def reset(request: BaseRequest) -> web.StreamResponse:
    """Break the connection at once; the response goes nowhere."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response(status=499)


async def cut(request: BaseRequest, body: bytes) -> web.StreamResponse:
    """Announce the length of a body, send half of it, and close."""
    response = web.StreamResponse()
    response.content_type = "application/json"
    response.content_length = len(body)
    response.force_close()
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    return response


def garbage(key: bytes) -> web.Response:
    """Answer 200 with something that is no JSON."""
    body = GARBAGE[key[0] % len(GARBAGE)]
    kind = "application/json" if body.startswith(b"{") else "text/html"
    return web.Response(body=body, content_type=kind)
