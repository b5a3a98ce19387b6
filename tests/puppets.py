"""A service that says what a test wants, and the ways to ask it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

from gpt4batch.lines import rawjson
from gpt4batch.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from aiohttp.web_request import BaseRequest

    Answer = Callable[[BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """Serve with one function on a free port; yield the origin."""
    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def reply_of(**more: Any) -> dict[str, Any]:
    content: dict[str, Any] = {"error": None, "message": {"content": {"parts": ["answer"]}}}
    return {"message_id": "m", "conversation_id": "c", "contents": [content], **more}


def saying(**more: Any) -> Answer:
    """Answer every chat with the same reply."""

    async def answer(request: BaseRequest) -> web.StreamResponse:
        await request.read()
        return web.Response(body=rawjson.dumps(reply_of(**more)), content_type="application/json")

    return answer


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_bytes(b"".join(rawjson.dumps(line) + b"\n" for line in lines))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [rawjson.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]


def ask(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"asks": [{"content": text, **more}]}


def settings(folder: Path, origin: str, **more: Any) -> Settings:
    given = {
        "input": str(folder / "in.jsonl"),
        "out": str(folder / "out.jsonl"),
        "download_dir": str(folder / "downloads"),
        "url": f"{origin}/standard/all-tools",
        "token": "a-token-of-the-test",
        "qps": 0.0,
        "retries": 0,
    }
    return Settings(**{**given, **more})
