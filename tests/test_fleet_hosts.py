"""A fleet on hosts of its own: network namespaces, with links between them that are cut."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOOLS = Path(__file__).parent.parent / ".tools" / "bin"
COMMAND = [sys.executable, "-m", "gpt4batch"]
CUT = 20
DEADLINE = 200


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Hosts:
    """Three hosts: `nsqd` in the middle, `coordinator` and `workers` each on a link to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"g4b{os.getpid() % 100_000}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.spaces: list[str] = []

    def build(self) -> None:
        for name in ("nsqd", "coordinator", "workers"):
            ip("netns", "add", self.space(name))
            self.spaces.append(self.space(name))
            ip("-n", self.space(name), "link", "set", "lo", "up")
        for number, name in enumerate(("coordinator", "workers"), 1):
            ends = [self.space("nsqd"), self.space(name)]
            ip(*("link", "add", self.link(name), "netns", ends[0], "type", "veth"),
               *("peer", "name", "wire", "netns", ends[1]))  # fmt: skip
            ip("-n", ends[0], "address", "add", f"10.99.{number}.1/24", "dev", self.link(name))
            ip("-n", ends[1], "address", "add", f"10.99.{number}.2/24", "dev", "wire")
            ip("-n", ends[0], "link", "set", self.link(name), "up")
            ip("-n", ends[1], "link", "set", "wire", "up")

    def space(self, name: str) -> str:
        return f"{self.mark}-{name}"

    def link(self, name: str) -> str:
        return f"{name[:11]}"

    def set_link(self, name: str, state: str) -> None:
        ip("-n", self.space("nsqd"), "link", "set", self.link(name), state)

    def spawn(self, host: str, log: str, *words: str) -> subprocess.Popen[bytes]:
        folder = self.folder / log
        folder.mkdir(exist_ok=True)
        with (self.folder / f"{log}.log").open("ab") as file:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.space(host), *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=folder,
            )
        self.processes.append(process)
        return process

    def said(self, log: str) -> str:
        return (self.folder / f"{log}.log").read_text()

    def stats(self, origin: str) -> Any:
        code = f"import urllib.request as u; print(u.urlopen('{origin}/stats').read().decode())"
        words = ["ip", "netns", "exec", self.space("workers"), sys.executable, "-c", code]
        return orjson.loads(subprocess.run(words, check=True, capture_output=True).stdout)

    def remove(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        for name in self.spaces:
            ip("netns", "del", name)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2's ip")
    if not (TOOLS / "nsqd").exists():
        pytest.skip("no nsqd in .tools/bin: `make nsqd` builds it where Go is installed")
    made = Hosts(tmp_path)
    try:
        try:
            made.build()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        yield made
    finally:
        made.remove()


@pytest.mark.chaos
@pytest.mark.timeout(300)
@pytest.mark.parametrize("cut", ["workers", "coordinator"])
async def test_link_cut_for_twenty_seconds_only_delays(
    hosts: Hosts, until: Callable[[Callable[[], Any]], Any], cut: str
) -> None:
    lines = [{"id": n, "asks": [{"id": 0, "content": f"question {n}"}]} for n in range(200)]
    source = hosts.folder / "in.jsonl"
    source.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    hosts.spawn("nsqd", "nsqd", str(TOOLS / "nsqd"), "--tcp-address=0.0.0.0:4150", "--data-path=.")
    hosts.spawn("workers", "mock", *COMMAND, "mocksvc", "--port", "8787", "--latency", "0.5")
    await until(lambda: "listens" in hosts.said("mock") and "TCP: listening" in hosts.said("nsqd"))
    origin = "http://127.0.0.1:8787"
    given = ["--nsqd-tcp-address", "10.99.2.1:4150", "--token", "mock-token", "-g", "5"]
    for name in ("a", "b"):
        words = ["worksvc", "--name", name, "-u", f"{origin}/standard/all-tools", *given]
        hosts.spawn("workers", name, *COMMAND, *words)
    out = hosts.folder / "out.jsonl"
    words = ["batchsvc", "--fleet", "--nsqd-tcp-address", "10.99.1.1:4150", "-q", "0"]
    words += ["-i", str(source), "-o", str(out), "--summary", "sum.json"]
    coordinator = hosts.spawn("coordinator", "coordinator", *COMMAND, *words)
    await until(lambda: out.exists() and out.read_bytes().count(b"\n") > 20)
    hosts.set_link(cut, "down")
    await anyio.sleep(CUT)
    hosts.set_link(cut, "up")
    with anyio.fail_after(DEADLINE):
        while coordinator.poll() is None:
            await anyio.sleep(0.1)
    assert coordinator.returncode == 0, hosts.said("coordinator")
    found = [orjson.loads(text) for text in out.read_bytes().splitlines()]
    assert [line["id"] for line in found] == list(range(200))
    assert all("iErr" not in line and len(line["answers"]) == 1 for line in found)
    stats = hosts.stats(origin)
    print(cut, stats["chats_answered"], stats["answered_twice"]["count"])
    assert stats["answered_twice"]["count"] == 0
