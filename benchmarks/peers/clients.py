"""Calls by one HTTP client and nothing else: `clients.py CLIENT URL CALLS`, 60 at a time."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from ssl import create_default_context

import uvloop

AT_ONCE = 60
BODY = b'{"message":"' + b"jar " * 170 + b'","model":"gpt-4-gizmo"}'
HEADERS = {"authorization": "Bearer x", "content-type": "application/json"}

Call = Callable[[], Awaitable[bytes]]


@asynccontextmanager
async def by_aiohttp(url: str):
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0, ssl=create_default_context())
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:

        async def call() -> bytes:
            async with session.post(url, data=BODY) as response:
                return await response.read()

        yield call


@asynccontextmanager
async def by_pyreqwest(url: str):
    from pyreqwest.client import ClientBuilder

    builder = ClientBuilder().default_headers(HEADERS).max_connections(AT_ONCE).http1_only()
    if authority := os.environ.get("SSL_CERT_FILE"):
        builder = builder.add_root_certificate_pem(Path(authority).read_bytes())
    async with builder.build() as client:

        async def call() -> bytes:
            response = await client.post(url).body_bytes(BODY).build().send()
            return bytes(await response.bytes())

        yield call


@asynccontextmanager
async def by_wreq(url: str):
    import wreq

    authority = os.environ.get("SSL_CERT_FILE")
    client = wreq.Client(**({"tls_verify": Path(authority)} if authority else {}))

    async def call() -> bytes:
        response = await client.post(url, headers=HEADERS, body=BODY)
        return await response.bytes()

    yield call


@asynccontextmanager
async def by_httpx(url: str):
    import httpx

    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(
        limits=limits, headers=HEADERS, verify=create_default_context()
    ) as client:

        async def call() -> bytes:
            return (await client.post(url, content=BODY)).content

        yield call


CLIENTS = {
    "aiohttp": by_aiohttp,
    "pyreqwest": by_pyreqwest,
    "wreq": by_wreq,
    "httpx": by_httpx,
}


async def main(name: str, url: str, calls: int) -> None:
    left = iter(range(calls))

    async def work(call: Call) -> None:
        for _ in left:
            assert len(await call()) > 100

    async with CLIENTS[name](url) as call, asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work(call))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
