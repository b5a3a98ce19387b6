"""The openai SDK in a loop with a semaphore, as its users write it: `IN OUT BASE_URL [aiohttp]`."""

import asyncio
import sys

import openai
import orjson
import uvloop


async def call(client: openai.AsyncOpenAI, gate: asyncio.Semaphore, raw: bytes, write) -> None:
    async with gate:
        line = orjson.loads(raw)
        messages = [{"role": "user", "content": line["asks"][0]["content"]}]
        reply = await client.chat.completions.create(model="gpt-4", messages=messages)
        line["answers"] = [reply.model_dump()]
        write(orjson.dumps(line) + b"\n")


async def main(source: str, out: str, base_url: str, *over: str) -> None:
    gate = asyncio.Semaphore(60)
    transport = openai.DefaultAioHttpClient() if over else None
    with open(source, "rb") as lines, open(out, "ab", buffering=0) as log:
        async with (
            openai.AsyncOpenAI(api_key="x", base_url=base_url, http_client=transport) as client,
            asyncio.TaskGroup() as group,
        ):
            for raw in lines:
                group.create_task(call(client, gate, raw, log.write))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
