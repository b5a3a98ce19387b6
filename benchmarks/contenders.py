"""What is measured, and the command that runs it over one input against one service."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.services import Service

HERE = Path(__file__).resolve().parent
Command = list[str | Path]


def floor(source: Path, out: Path, service: Service) -> Command:
    return [sys.executable, HERE / "floor.py", "chat", source, out, service.chat]


def httpx_loop(source: Path, out: Path, service: Service) -> Command:
    return [sys.executable, HERE / "peers" / "httpx_loop.py", source, out, service.chat]


def openai_loop(source: Path, out: Path, service: Service) -> Command:
    return [sys.executable, HERE / "peers" / "openai_loop.py", source, out, service.origin + "/v1"]


def openai_aiohttp(source: Path, out: Path, service: Service) -> Command:
    return [*openai_loop(source, out, service), "aiohttp"]


def batchllm(source: Path, out: Path, service: Service) -> Command:
    words = [Path(sys.executable).with_name("batchllm"), "run", source, "-o", out, "-c", "60"]
    return [*words, "-m", "gpt-4", "--base-url", service.origin + "/v1", "--api-key", "x"]


@dataclass(frozen=True)
class Peer:
    """Another way to do the job; the slow ones get fewer lines: what counts is one line's cost."""

    name: str
    command: Callable[[Path, Path, Service], Command]
    needs: str
    lines: int
    plain_prompts: bool = False


PEERS = (
    Peer("httpx loop", httpx_loop, "httpx", 2000),
    Peer("openai SDK", openai_loop, "openai", 2000),
    Peer("openai SDK over aiohttp", openai_aiohttp, "openai", 2000),
    Peer("batchllm-ai", batchllm, "batchllm", 1000, plain_prompts=True),
)


@dataclass(frozen=True)
class Product:
    """The command under measurement."""

    program: Path

    def batch(
        self, source: Path, out: Path, service: Service, *flags: str, qps: float = 0
    ) -> Command:
        words: Command = [self.program, "batchsvc", "-i", source, "-o", out, "-q", f"{qps:g}"]
        words += ["-g", "60", "--token", "x", "-u", service.chat]
        usual = ([] if "-r" in flags else ["-r=false"]) + (
            [] if "--progress" in flags else ["--quiet"]
        )
        return [*words, *usual, *(flag for flag in flags if flag != "--progress")]
