"""The command `mocksvc`: run the embedded service until it is interrupted."""

from __future__ import annotations

import logging
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gpt4batch.cli.flags import say
from gpt4batch.errors import UsageError
from gpt4batch.mock.settings import MockSettings
from gpt4batch.settings import LOGGING, flag

if TYPE_CHECKING:
    from gpt4batch.mock.server import MockService

HELP = (
    "Run the embedded service: rehearse a batch, with faults if you like, and pay nothing.",
    "运行内置模拟服务:免费演练批量任务,可按需制造故障.",
)
PORT = 8787


@dataclass(frozen=True, slots=True, kw_only=True)
class MockCommandSettings(MockSettings):
    """The service's settings, on a port that can be remembered, and its log."""

    port: int = flag(
        PORT, "port", "Port to listen on; 0 takes a free one.", "监听端口,0为任意空闲端口."
    )
    access_log: str = flag(
        "",
        "access-log",
        "Append a line for each request to this file; - is standard error.",
        "将每个请求记录到此文件, - 为标准错误.",
        panel=LOGGING,
    )


SETTINGS = MockCommandSettings


def action(settings: MockCommandSettings) -> None:
    """Serve until Ctrl-C or SIGTERM, then say what was seen."""
    from gpt4batch.cli import loop

    with ExitStack() as stack:
        if settings.access_log:
            stack.callback(_stop_log, _start_log(settings.access_log))
        loop.run(_serve, settings)


async def _serve(settings: MockCommandSettings) -> None:
    import anyio

    from gpt4batch.mock.server import MockService

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with MockService(settings) as service:
            typer.echo(greeting(service))
            async for _ in signals:
                break
    typer.echo(farewell(service.stats.to_dict()))


def greeting(service: MockService) -> str:
    """Return the addresses, the token and the command line to use them with."""
    origin, base = service.origin, f"{service.origin}/standard"
    shared = f"gpt4batch batchsvc --token {service.token} -i example.jsonl -o out.jsonl"
    commands = [
        f"{shared} -u {base}/all-tools -l {base}/uploaded",
        f"{shared} -u {origin}/v1 -m mock-model",
    ]
    head = say(
        f"The embedded service listens on {origin}; Ctrl-C ends it.",
        f"内置模拟服务正在监听 {origin} ,按Ctrl-C结束.",
    )
    paths = [f"POST {base}/{end}" for end in ("uploaded", "all-tools", "gizmos")]
    paths += [f"POST {origin}/v1/{end}" for end in ("chat/completions", "embeddings", "responses")]
    paths += [f"POST {origin}/console/access_token", f"GET  {origin}/stats"]
    token = say(f"Token: {service.token}", f"令牌: {service.token}")
    rehearse = say("Rehearse with one of these:", "演练命令 (任选其一):")
    return "\n".join([head, *paths, token, rehearse, *commands])


def farewell(seen: dict[str, Any]) -> str:
    """Return what the service saw, in short."""
    calls, window, peak = seen["arrivals"], seen["worst_window"], seen["concurrency"]["peak"]
    chats, twice = seen["chats_answered"], seen["answered_twice"]["count"]
    uploads, downloads = seen["uploads_answered"], seen["files"]["downloads"]
    faults = ", ".join(f"{kind} {number}" for kind, number in seen["faults"].items())
    english = (
        f"Calls: {calls}, at most {window} in one second and {peak} at the same time\n"
        f"Answered: {chats} chats ({twice} of them asked before), {uploads} uploads,"
        f" {downloads} downloads\n"
        f"Faults: {faults or 'none'}"
    )
    chinese = (
        f"调用: {calls}次,一秒内最多{window}次,同时最多{peak}个\n"
        f"已应答: 对话{chats}次(其中重复提问{twice}次),上传{uploads}次,下载{downloads}次\n"
        f"故障: {faults or '无'}"
    )
    return say(english, chinese)


def _start_log(target: str) -> logging.Handler:
    try:
        handler = (
            logging.StreamHandler()
            if target == "-"
            else logging.FileHandler(Path(target), encoding="utf-8")
        )
    except OSError as error:
        raise UsageError(f"--access-log {target}: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("gpt4batch.mock")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    return handler


def _stop_log(handler: logging.Handler) -> None:
    logging.getLogger("gpt4batch.mock").removeHandler(handler)
    handler.close()
