"""A plain loop over httpx, 60 workers, the floor's work otherwise: `IN OUT URL`."""

import asyncio
import sys
from collections.abc import Callable, Iterator

import httpx
import orjson
import uvloop


async def work(
    lines: Iterator[bytes], client: httpx.AsyncClient, url: str, write: Callable[[bytes], int]
) -> None:
    for raw in lines:
        line = orjson.loads(raw)
        body = {
            "message": line["asks"][0]["content"],
            "model": "gpt-4-gizmo",
            "history_and_training_disabled": True,
        }
        reply = await client.post(url, content=orjson.dumps(body))
        line["answers"] = [orjson.loads(reply.content)]
        write(orjson.dumps(line) + b"\n")


async def main(source: str, out: str, url: str) -> None:
    headers = {"Authorization": "Bearer x", "Content-Type": "application/json"}
    limits = httpx.Limits(max_connections=60, max_keepalive_connections=60)
    with open(source, "rb") as lines, open(out, "ab", buffering=0) as log:
        async with httpx.AsyncClient(headers=headers, limits=limits, timeout=60) as client:
            async with asyncio.TaskGroup() as group:
                for _ in range(60):
                    group.create_task(work(lines, client, url, log.write))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
