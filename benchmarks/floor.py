"""The floor: the same work over aiohttp, with nothing that makes a batch safe.

aiohttp on uvloop, orjson, 60 workers over one file, one write a line. No checks, no retries, no
pace, no resuming. `chat IN OUT URL [N]`, `upload URL FILE…`, `download FOLDER URL…`, `scan FILE`.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import orjson
import uvloop

HEADERS = {"Authorization": "Bearer x", "Content-Type": "application/json"}


async def chats(
    lines: Iterator[bytes], session: aiohttp.ClientSession, url: str, write: Callable[[bytes], int]
) -> None:
    for raw in lines:
        line = orjson.loads(raw)
        started, answers, calls = time.time(), [], []
        for ask in line["asks"]:
            began = time.perf_counter()
            body = {
                "message": ask["content"],
                "model": "gpt-4-gizmo",
                "history_and_training_disabled": True,
            }
            if answers:
                body["conversation_id"] = answers[-1]["conversation_id"]
                body["parent_message_id"] = answers[-1]["message_id"]
            async with session.post(url, data=orjson.dumps(body)) as response:
                reply = orjson.loads(await response.read())
            reply["spec_downloads"] = []
            answers.append(reply)
            calls.append({"seconds": round(time.perf_counter() - began, 3), "attempts": 1})
        line["answers"] = answers
        line["meta"] = {"started": started, "finished": time.time(), "calls": calls}
        write(orjson.dumps(line) + b"\n")


async def chat(source: str, out: str, url: str, workers: str = "60") -> None:
    connector = aiohttp.TCPConnector(limit=0)
    with open(source, "rb") as lines, open(out, "ab", buffering=0) as log:
        async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:
            async with asyncio.TaskGroup() as group:
                for _ in range(int(workers)):
                    group.create_task(chats(lines, session, url, log.write))


async def upload(url: str, *files: str) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer x"}) as session:
        for name in files:
            with open(name, "rb") as file:
                form = aiohttp.FormData({"conversation_id": "", "type": "my_files"})
                form.add_field("file", file, filename=Path(name).name)
                async with session.post(url, data=form) as response:
                    await response.read()


async def download(folder: str, *urls: str) -> None:
    async with aiohttp.ClientSession(read_bufsize=1 << 18) as session:
        for url in urls:
            async with session.get(url) as response:
                with open(Path(folder, url.rsplit("/", 1)[1]), "wb") as file:
                    async for chunk in response.content.iter_any():
                        file.write(chunk)


async def scan(name: str) -> None:
    with open(name, "rb") as lines:
        for raw in lines:
            orjson.loads(raw)


if __name__ == "__main__":
    jobs = {"chat": chat, "upload": upload, "download": download, "scan": scan}
    uvloop.run(jobs[sys.argv[1]](*sys.argv[2:]))
