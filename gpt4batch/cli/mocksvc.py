"""The command `mocksvc`: run the embedded service until it is interrupted."""

from __future__ import annotations

import logging
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gpt4batch.errors import UsageError
from gpt4batch.mock.settings import MockSettings
from gpt4batch.settings import LOGGING, flag
from gpt4batch.words import because, say, tr

if TYPE_CHECKING:
    from gpt4batch.mock.server import MockService

HELP = tr("Run the embedded service: rehearse a batch, with faults if you like, and pay nothing.")
EXAMPLES = ("gpt4batch mocksvc --latency 2 --rate-limit-rate 0.1",)
PORT = 8787


@dataclass(frozen=True, slots=True, kw_only=True)
class MockCommandSettings(MockSettings):
    """The service's settings, on a port that can be remembered, and its log."""

    port: int = flag(PORT, "port", "Port to listen on; 0 takes a free one.")
    access_log: str = flag(
        "",
        "access-log",
        "Append a line for each request to this file; - is standard error.",
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
    head = say("The embedded service listens on {origin}; Ctrl-C ends it.", origin=origin)
    paths = [f"POST {base}/{end}" for end in ("uploaded", "all-tools", "gizmos")]
    paths += [f"POST {origin}/v1/{end}" for end in ("chat/completions", "embeddings", "responses")]
    paths += [f"POST {origin}/console/access_token", f"GET  {origin}/stats"]
    token = say("Token: {token}", token=service.token)
    rehearse = say("Rehearse with one of these:")
    return "\n".join([head, *paths, token, rehearse, *commands])


def farewell(seen: dict[str, Any]) -> str:
    """Return what the service saw, in short."""
    faults = ", ".join(f"{kind} {number}" for kind, number in seen["faults"].items())
    return say(
        "Calls: {calls}, at most {window} in one second and {peak} at the same time\n"
        "Answered: {chats} chats ({twice} of them asked before), {uploads} uploads,"
        " {downloads} downloads\n"
        "Faults: {faults}",
        calls=seen["arrivals"],
        window=seen["worst_window"],
        peak=seen["concurrency"]["peak"],
        chats=seen["chats_answered"],
        twice=seen["answered_twice"]["count"],
        uploads=seen["uploads_answered"],
        downloads=seen["files"]["downloads"],
        faults=faults or tr("none"),
    )


def _start_log(target: str) -> logging.Handler:
    try:
        handler = (
            logging.StreamHandler()
            if target == "-"
            else logging.FileHandler(Path(target), encoding="utf-8")
        )
    except OSError as error:
        raise UsageError(
            tr("--access-log {path}: {reason}", path=target, reason=because(error))
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("gpt4batch.mock")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    return handler


def _stop_log(handler: logging.Handler) -> None:
    logging.getLogger("gpt4batch.mock").removeHandler(handler)
    handler.close()
