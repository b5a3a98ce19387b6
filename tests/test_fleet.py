"""A batch on a fleet: real nsqd, real processes; every line is done once whatever is killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest

from gpt4batch.mock.server import MockService
from gpt4batch.mock.settings import MockSettings
from gpt4batch.nsq.consumer import Consumer
from gpt4batch.nsq.publisher import Publisher
from gpt4batch.nsq.spool import Backlog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Until = Callable[[Callable[[], Any]], Any]

TOOLS = Path(__file__).parent.parent / ".tools" / "bin"
DEADLINE = 100
COMMAND = (sys.executable, "-m", "gpt4batch")


def binary(name: str) -> str:
    built = TOOLS / name
    found = str(built) if built.exists() else shutil.which(name)
    if found:
        return found
    reason = f"no {name} in .tools/bin or on the PATH: `make nsqd` builds it where Go is installed"
    if os.environ.get("GPT4BATCH_REQUIRE_NSQ") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Fleet:
    """An nsqd, a service, workers and a coordinator, each a process that can be killed."""

    def __init__(self, folder: Path, service: MockService) -> None:
        self.folder = folder
        self.service = service
        self.port, self.http_port = free_port(), free_port()
        self.nsqd_flags: tuple[str, ...] = ()
        self.nsqd: subprocess.Popen[bytes] | None = None
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def out(self) -> Path:
        return self.folder / "out.jsonl"

    def spawn(self, log: str, *words: str, folder: Path | None = None) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as file:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=folder or self.folder
            )
        self.processes.append(process)
        return process

    async def start_nsqd(self) -> None:
        data = self.folder / "nsqd"
        data.mkdir(exist_ok=True)
        self.nsqd = self.spawn(
            "nsqd.log",
            binary("nsqd"),
            f"--data-path={data}",
            f"--tcp-address={self.address}",
            f"--http-address=127.0.0.1:{self.http_port}",
            *self.nsqd_flags,
        )
        with anyio.fail_after(DEADLINE):
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                        return
                await anyio.sleep(0.02)

    def topics(self) -> bytes:
        """Return what nsqd says of its topics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/stats?format=json") as page:
            return bytes(page.read())

    def kill(self, process: subprocess.Popen[bytes] | None, how: int = signal.SIGKILL) -> None:
        assert process is not None
        process.send_signal(how)
        process.wait(DEADLINE)

    def write(self, count: int, asks: int = 1, text: str = "question") -> None:
        lines = [
            {"id": n, "asks": [{"id": a, "content": f"{text} {n}.{a}"} for a in range(asks)]}
            for n in range(count)
        ]
        path = self.folder / "in.jsonl"
        path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))

    def worker(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        url = f"{self.service.origin}/standard/all-tools"
        given = ["worksvc", "--name", name, "--nsqd-tcp-address", self.address, "-u", url]
        given += ["--token", self.service.token, "-g", "4", "--grace", "5", *words]
        return self.spawn(f"{name}.log", *COMMAND, *given, folder=folder)

    def coordinator(self, *words: str) -> subprocess.Popen[bytes]:
        given = ["batchsvc", "--fleet", "--nsqd-tcp-address", self.address, "-i", "in.jsonl"]
        given += ["-q", "0", "--lease", "3", "--progress-interval", "1", "--summary", "sum.json"]
        return self.spawn("coordinator.log", *COMMAND, *given, *words)

    def said(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    async def end(self, process: subprocess.Popen[bytes], within: float = DEADLINE) -> int:
        try:
            with anyio.fail_after(within):
                while process.poll() is None:
                    await anyio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(self.said("coordinator")[-3000:]) from None
        return process.returncode

    def records(self) -> int:
        return self.out.read_bytes().count(b"\n") if self.out.exists() else 0

    def paid_again(self) -> int:
        """Return how many lines the run says it may have paid for twice."""
        totals = self.summary()["fleet"]
        return int(totals["asked_again"])

    def granted(self) -> int:
        """Return how many calls the coordinator has granted."""
        book = self.out.with_name(f"{self.out.name}.fleet")
        entries = [orjson.loads(text) for text in book.read_bytes().splitlines()]
        return sum(len(entry.get("out", ())) for entry in entries)

    def lines(self) -> list[Any]:
        return [orjson.loads(text) for text in self.out.read_bytes().splitlines()]

    def summary(self) -> Any:
        return orjson.loads((self.folder / "sum.json").read_bytes())

    def check(self, count: int, asks: int = 1) -> None:
        """Every line is done, once, in order."""
        lines = self.lines()
        assert [line["id"] for line in lines] == list(range(count))
        for line in lines:
            assert "iErr" not in line, line
            assert len(line["answers"]) == asks
            for ask, answer in zip(line["asks"], line["answers"], strict=True):
                said = answer["contents"][-1]["message"]["content"]["parts"][0]
                assert said.partition("\n")[0].endswith(ask["content"]), line["id"]

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def fleets(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Return how to make a fleet around a service that behaves as told."""
    binary("nsqd")
    async with AsyncExitStack() as stack:

        async def make(*nsqd_flags: str, **behaviour: Any) -> Fleet:
            service = await stack.enter_async_context(MockService(MockSettings(**behaviour)))
            fleet = Fleet(tmp_path, service)
            fleet.nsqd_flags = nsqd_flags
            stack.callback(fleet.stop)
            await fleet.start_nsqd()
            return fleet

        yield make


async def test_lines_go_to_the_workers_and_come_back_in_order(fleets: Any) -> None:
    fleet = await fleets(latency=0.05)
    fleet.write(60, asks=2)
    for name in ("a", "b"):
        fleet.worker(name)
    assert await fleet.end(fleet.coordinator()) == 0
    fleet.check(60, asks=2)
    assert {line["meta"]["worker"].rpartition("-")[0] for line in fleet.lines()} == {"a", "b"}
    summary = fleet.summary()
    assert summary["chats"] == fleet.service.stats.chats_answered == 120
    assert summary["fleet"] == {
        "workers": 2,
        "foreign": 0,
        "asked_again": 0,
        "paid_twice": 0,
        "left_out": {},
    }
    assert not (fleet.folder / "out.jsonl.fleet").exists()
    assert "workers" in fleet.said("coordinator")


async def test_uploads_lost_replies_and_downloads_of_the_workers_are_in_the_summary(
    fleets: Any,
) -> None:
    fleet = await fleets(asset_rate=1.0, asset_size=1000)
    ask = {"id": 0, "files": ["there.txt"]}
    lines: list[Any] = [{"id": n, "asks": [{**ask, "content": f"see {n}"}]} for n in range(5)]
    lines += [{"id": 5, "asks": [{"id": 0, "content": "cut short [[mock:reset*2]]"}]}]
    (fleet.folder / "in.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    (fleet.folder / "there.txt").write_text("here")
    for name in ("a", "b"):
        fleet.worker(name, "--allow-private-downloads")
    assert await fleet.end(fleet.coordinator("--inline-files", "1")) == 0
    summary, seen = fleet.summary(), fleet.service.stats
    assert summary["uploads"] == seen.uploads_answered == 5
    assert summary["chats"] == 6 + summary["unanswered"]
    assert summary["unanswered"] == summary["retries"] >= 1
    assert (summary["downloads"], summary["download_bytes"]) == (seen.downloads, 6000) == (6, 6000)
    assert "downloads: with the workers (6 files" in fleet.said("coordinator")


async def test_workers_own_address_decides_what_is_spoken(fleets: Any) -> None:
    fleet = await fleets()
    (fleet.folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    images = ["a.png", "https://example.test/b.png"]
    asks = [{"content": "one", "images": images}, {"content": "two"}]
    line = {"id": 0, "asks": asks, "system": "be brief", "params": {"seed": 7}}
    (fleet.folder / "in.jsonl").write_bytes(orjson.dumps(line) + b"\n")
    first = fleet.worker("a")
    how = ("--api", "openai", "-m", "m-1", "--inline-files", "1")
    assert await fleet.end(fleet.coordinator(*how)) == 1
    assert "system belongs to --api openai" in fleet.lines()[0]["iErr"]["message"]
    assert fleet.service.stats.chats_answered == 0
    fleet.kill(first, signal.SIGTERM)
    fleet.worker("b", f"-u={fleet.service.origin}/v1", "--stream")
    assert await fleet.end(fleet.coordinator(*how, "-f")) == 0
    answers = fleet.lines()[0]["answers"]
    assert [answer["object"] for answer in answers] == ["chat.completion"] * 2
    assert fleet.service.stats.chats_answered == 2
    assert fleet.summary()["tokens"]["input"] > 0


@pytest.mark.parametrize(
    "budget", [("--max-tokens", "500"), ("--max-cost", "0.0005", "--price", "in=1,out=1")]
)
async def test_tokens_and_money_are_held_to_and_overrun_by_one_call_at_most(
    fleets: Any, budget: tuple[str, ...]
) -> None:
    fleet = await fleets()
    fleet.write(30, asks=2)
    for name in ("a", "b"):
        fleet.worker(name, f"-u={fleet.service.origin}/v1")
    how = ("--api", "openai", "-m", "m-1")
    assert await fleet.end(fleet.coordinator(*how, *budget)) == 3
    asks = [ask["tokens"] for line in fleet.lines() for ask in line.get("meta", {}).get("asks", ())]
    assert len(asks) == fleet.service.stats.chats_answered
    tokens = [asked + answered for asked, _, answered, _ in asks]
    assert 500 <= sum(tokens) <= 500 + max(tokens)
    assert budget[0] in fleet.said("coordinator")
    assert await fleet.end(fleet.coordinator(*how, "-f")) == 0
    assert fleet.service.stats.chats_answered == 60


async def test_tokens_a_minute_are_held_to_by_all_workers_together(fleets: Any) -> None:
    fleet = await fleets()
    fleet.write(200)
    for name in ("a", "b"):
        fleet.worker(name, f"-u={fleet.service.origin}/v1")
    coordinator = fleet.coordinator("--api", "openai", "-m", "m-1", "--tpm", "600", "-q", "0")
    with anyio.move_on_after(4):
        await fleet.end(coordinator)
    assert coordinator.poll() is None
    assert 0 < fleet.service.stats.chats_answered <= 40


async def test_worker_of_openai_asks_no_line_without_a_model(fleets: Any) -> None:
    fleet = await fleets()
    fleet.write(2)
    fleet.worker("b", f"-u={fleet.service.origin}/v1")
    assert await fleet.end(fleet.coordinator()) == 1
    assert "no model is named" in fleet.lines()[0]["iErr"]["message"]
    assert fleet.service.stats.chats_answered == 0
    assert await fleet.end(fleet.coordinator("-m", "m-1", "-f")) == 0
    assert fleet.service.stats.chats_answered == 2


async def test_worker_sends_the_requests_of_a_batch_file_to_its_own_address(fleets: Any) -> None:
    fleet = await fleets()
    body = {"model": "m-1", "messages": [{"role": "user", "content": "hi"}]}
    (fleet.folder / "in.jsonl").write_bytes(orjson.dumps({"custom_id": "a", "body": body}) + b"\n")
    fleet.worker("b", f"-u={fleet.service.origin}/v1")
    assert await fleet.end(fleet.coordinator("-u", "http://127.0.0.1:9", "--api", "openai")) == 0
    assert fleet.lines()[0]["response"]["status_code"] == 200


async def test_worker_of_gpt4api_runs_lines_of_a_coordinator_that_speaks_openai(
    fleets: Any,
) -> None:
    fleet = await fleets()
    fleet.write(3)
    fleet.worker("a")
    assert await fleet.end(fleet.coordinator("--api", "openai", "-m", "m-1")) == 0
    fleet.check(3)


async def test_failed_line_is_told_with_the_services_words_and_runs_again_with_fix(
    fleets: Any,
) -> None:
    fleet = await fleets()
    fleet.write(3, text="[[mock:400*1]]")
    fleet.worker("a")
    assert await fleet.end(fleet.coordinator()) == 1
    assert [line["iErr"]["code"] for line in fleet.lines()] == [400] * 3
    assert "on purpose" in fleet.lines()[0]["iErr"]["message"]
    assert await fleet.end(fleet.coordinator("-f")) == 0
    fleet.check(3)


async def test_reply_that_is_no_answer_is_kept_verbatim(fleets: Any) -> None:
    fleet = await fleets()
    fleet.write(1, text="[[mock:content-error]]")
    fleet.worker("a")
    assert await fleet.end(fleet.coordinator()) == 1
    error = fleet.lines()[0]["iErr"]
    assert (error["stage"], error["code"]) == ("reply", 200)
    assert error["reply"]["contents"]


async def test_missing_attachment_fails_the_line_with_the_workers_name(
    fleets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = await fleets()
    line = {"id": 0, "asks": [{"id": 0, "content": "see", "files": ["there.txt"]}]}
    (fleet.folder / "in.jsonl").write_bytes(orjson.dumps(line) + b"\n")
    fleet.worker("alpha")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")  # of the coordinator alone
    assert await fleet.end(fleet.coordinator()) == 1
    message = fleet.lines()[0]["iErr"]["message"]
    assert "there.txt" in message
    assert "on worker alpha" in message
    assert "无法读取附件" in fleet.said("coordinator")
    assert message not in fleet.said("coordinator")
    (fleet.folder / "alpha" / "there.txt").write_text("here")
    assert await fleet.end(fleet.coordinator("-f")) == 0
    assert fleet.service.stats.uploads_answered == 1


async def test_small_attachment_travels_with_its_line(fleets: Any) -> None:
    fleet = await fleets()
    asks = [{"id": 0, "content": "see", "files": ["notes/there.txt"]}]
    lines = [{"id": n, "asks": asks} for n in range(3)]
    (fleet.folder / "in.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    (fleet.folder / "notes").mkdir()
    (fleet.folder / "notes" / "there.txt").write_text("here")
    worker = fleet.worker("a")
    assert await fleet.end(fleet.coordinator("--inline-files", "1")) == 0
    assert fleet.service.stats.uploads_answered == 3
    fleet.check(3)
    worker.terminate()
    assert await fleet.end(worker) == 0
    assert [path.name for path in (fleet.folder / "a").iterdir()] == ["a.lock"]


async def test_killed_workers_lines_run_elsewhere(fleets: Any, until: Until) -> None:
    fleet = await fleets(latency=0.5)
    fleet.write(24)
    first = fleet.worker("a")
    coordinator = fleet.coordinator()
    await until(lambda: fleet.service.stats.now == 4 and fleet.granted() == 4)
    fleet.kill(first)
    fleet.worker("b")
    assert await fleet.end(coordinator) == 0
    fleet.check(24)
    twice = fleet.service.stats.answered_twice
    assert twice <= fleet.summary()["fleet"]["asked_again"] <= 8
    assert "asked again" in fleet.said("coordinator")


async def test_answer_of_a_killed_worker_is_not_asked_again(fleets: Any, until: Until) -> None:
    fleet = await fleets(latency=0.3)
    fleet.write(4, asks=6)
    first = fleet.worker("a")
    coordinator = fleet.coordinator()
    await until(lambda: fleet.records() >= 8)
    fleet.kill(first)
    fleet.worker("b")
    assert await fleet.end(coordinator) == 0
    fleet.check(4, asks=6)
    assert fleet.service.stats.chats_answered <= 24 + 4


async def test_worker_told_to_stop_hands_its_lines_back(fleets: Any, until: Until) -> None:
    fleet = await fleets(latency=0.4)
    fleet.write(8, asks=4)
    first = fleet.worker("a", "--grace", "0.5")
    coordinator = fleet.coordinator()
    await until(lambda: fleet.records() >= 4)
    first.terminate()
    assert await fleet.end(first) == 0
    fleet.worker("b", "-g", "8")
    assert await fleet.end(coordinator) == 0
    fleet.check(8, asks=4)
    assert not list((fleet.folder / "a").glob("*.nsq-spool"))


async def test_killed_coordinator_goes_on_and_pays_nothing_twice(fleets: Any, until: Until) -> None:
    fleet = await fleets(latency=0.4)
    fleet.write(60)
    fleet.worker("a")
    fleet.worker("b")
    for flags in ((), ("-f",)):
        enough = fleet.records() + 8
        coordinator = fleet.coordinator(*flags)
        while fleet.records() < enough:
            await anyio.sleep(0.02)
        fleet.kill(coordinator)
    assert await fleet.end(fleet.coordinator("-f")) == 0
    fleet.check(60)
    assert fleet.service.stats.chats_answered == 60


async def test_nsqd_killed_and_restarted_loses_and_doubles_nothing(
    fleets: Any, until: Until
) -> None:
    fleet = await fleets("--mem-queue-size=1", "--sync-every=1", latency=0.4)
    fleet.write(60)
    fleet.worker("a")
    fleet.worker("b")
    coordinator = fleet.coordinator("--lease", "6")
    await until(lambda: fleet.records() >= 8)
    fleet.kill(fleet.nsqd)
    await anyio.sleep(1)
    await fleet.start_nsqd()
    assert await fleet.end(coordinator) == 0
    fleet.check(60)
    assert fleet.service.stats.answered_twice <= fleet.paid_again()


async def test_nsqd_that_is_full_only_delays(fleets: Any, until: Until) -> None:
    """Its memory holds one message and its folder is gone: the disk is as good as full."""
    fleet = await fleets("--mem-queue-size=1", "--max-bytes-per-file=1024", latency=0.2)
    fleet.write(60)
    fleet.worker("a")
    coordinator = fleet.coordinator("--lease", "6")
    await until(lambda: fleet.records() >= 8)
    data, away = fleet.folder / "nsqd", fleet.folder / "away"
    data.rename(away)
    await until(lambda: "E_PUB_FAILED" in fleet.said("coordinator") + fleet.said("a"))
    away.rename(data)
    assert await fleet.end(coordinator) == 0
    fleet.check(60)
    assert fleet.service.stats.chats_answered == 60


async def test_two_coordinators_keep_their_batches_apart(fleets: Any) -> None:
    fleet = await fleets(latency=0.05)
    fleet.write(30)
    fleet.worker("a")
    fleet.worker("b")
    both = [fleet.coordinator(), fleet.coordinator("-o", "other.jsonl", "--summary", "")]
    for coordinator in both:
        assert await fleet.end(coordinator) == 0
    fleet.check(30)
    shutil.copy(fleet.folder / "other.jsonl", fleet.out)
    fleet.check(30)
    assert fleet.service.stats.chats_answered == 60


async def test_foreign_messages_are_passed_over_and_counted(fleets: Any, until: Until) -> None:
    fleet = await fleets(latency=0.05)
    fleet.write(30)
    topic = "gpt4api.fleet.batches#ephemeral"
    bodies = [
        b"?",
        b"{}",
        b"\x1f\x8bno",
        b'{"v":2,"is":"task"}',
        b'{"v":2,"is":"hello","batch":1}',
    ]
    worker = fleet.worker("a")
    await until(lambda: "is ready" in fleet.said("a"))
    async with Publisher([fleet.address], topic, Backlog()) as publisher:
        for body in bodies:
            publisher.publish(body)
        await publisher.settled()
    assert await fleet.end(fleet.coordinator()) == 0
    fleet.check(30)
    assert worker.poll() is None
    assert "none of ours" in fleet.said("a")


async def test_results_that_come_again_are_dropped(fleets: Any, until: Until) -> None:
    fleet = await fleets(latency=0.2)
    fleet.write(30)
    fleet.worker("a")
    coordinator = fleet.coordinator()
    await until((fleet.folder / "out.jsonl.fleet").exists)
    batch = orjson.loads((fleet.folder / "out.jsonl.fleet").read_bytes())["batch"]
    topic, address = f"gpt4api.fleet.results.{batch}", [fleet.address]
    copies = Consumer(address, topic, "copy", room=10)
    async with copies, Publisher(address, topic, Backlog()) as publisher:
        async for delivery in copies:
            delivery.finish()
            publisher.publish(delivery.body)
            if publisher.sent >= 10:
                break
        await publisher.settled()
    assert await fleet.end(coordinator) == 0
    fleet.check(30)
    assert fleet.summary()["fleet"]["paid_twice"] == 0


async def test_account_that_is_empty_stops_worker_and_run(fleets: Any) -> None:
    fleet = await fleets(quota=10, latency=0.05)
    fleet.write(30)
    worker = fleet.worker("a")
    coordinator = fleet.coordinator()
    assert await fleet.end(worker) == 3
    assert await fleet.end(coordinator) == 3
    assert "quota" in fleet.summary()["stopped"]
    done = sum("iErr" not in line for line in fleet.lines())
    assert 10 <= done == fleet.service.stats.chats_answered < 30


async def test_budget_is_kept_by_all_workers_together(fleets: Any) -> None:
    fleet = await fleets(latency=0.05)
    fleet.write(60)
    for name in ("a", "b", "c"):
        fleet.worker(name)
    assert await fleet.end(fleet.coordinator("--max-calls", "20")) == 3
    assert 15 <= fleet.service.stats.chats_answered <= 20
    assert "--max-calls 20" in fleet.summary()["stopped"]


async def test_pace_of_the_fleet_is_the_coordinators(fleets: Any) -> None:
    fleet = await fleets(latency=0.2)
    fleet.write(150)
    for name in ("a", "b", "c", "d"):
        fleet.worker(name, "-g", "8")
    assert await fleet.end(fleet.coordinator("-q", "20")) == 0
    stats = fleet.service.stats
    assert stats.worst_window <= 1.02 * 20 + 1
    assert stats.arrivals / (stats.last_arrival - stats.first_arrival) >= 0.95 * 20


async def test_interrupted_coordinator_leaves_what_is_not_begun(fleets: Any, until: Until) -> None:
    fleet = await fleets(latency=0.3)
    fleet.write(60)
    fleet.worker("a")
    coordinator = fleet.coordinator()
    await until(lambda: fleet.records() >= 8)
    coordinator.send_signal(signal.SIGINT)
    assert await fleet.end(coordinator, 30) == 130
    done = sum("iErr" not in line for line in fleet.lines())
    assert done < 60
    assert await fleet.end(fleet.coordinator("-f")) == 0
    fleet.check(60)
    # On a machine that is held up, lines begin while the word of it is still on its way.
    assert fleet.service.stats.chats_answered <= 60 + fleet.paid_again()


async def test_workers_are_found_by_nsqlookupd(fleets: Any) -> None:
    fleet = await fleets()
    tcp, http = free_port(), free_port()
    lookup = f"127.0.0.1:{http}"
    fleet.spawn(
        "lookup.log",
        binary("nsqlookupd"),
        f"--tcp-address=127.0.0.1:{tcp}",
        f"--http-address={lookup}",
    )
    second = Fleet(fleet.folder / "second", fleet.service)
    second.folder.mkdir()
    here = ("--broadcast-address=127.0.0.1", f"--lookupd-tcp-address=127.0.0.1:{tcp}")
    fleet.kill(fleet.nsqd)
    fleet.nsqd_flags = second.nsqd_flags = here
    await fleet.start_nsqd()
    await second.start_nsqd()
    try:
        fleet.write(20)
        # The worker publishes to the other nsqd than the coordinator.
        fleet.worker("a", "--nsqd-tcp-address", second.address, "--lookupd-http-address", lookup)
        assert await fleet.end(fleet.coordinator("--lookupd-http-address", lookup)) == 0
        fleet.check(20)
    finally:
        second.stop()


async def test_coordinator_without_nsqd_is_refused_and_a_worker_waits_for_it(
    fleets: Any, until: Until
) -> None:
    fleet = await fleets()
    fleet.kill(fleet.nsqd)
    fleet.write(1)
    worker = fleet.worker("a")
    await until(lambda: "waiting for it" in fleet.said("a"))
    assert await fleet.end(fleet.coordinator()) == 2
    for name in ("coordinator", "a"):
        assert "does not answer: Connection refused; start it" in fleet.said(name)
    await fleet.start_nsqd()
    assert await fleet.end(fleet.coordinator()) == 0
    fleet.check(1)
    worker.terminate()
    assert await fleet.end(worker) == 0


async def test_second_worker_of_a_name_is_refused(fleets: Any, until: Until) -> None:
    fleet = await fleets()
    fleet.worker("a")
    await until(lambda: "is ready" in fleet.said("a"))
    assert await fleet.end(fleet.worker("a")) == 2
    assert "choose a --name" in fleet.said("a")


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_five_thousand_lines_survive_everything(fleets: Any, until: Until) -> None:
    """Killed: nsqd 3 times, workers 10 times, the coordinator 5 times; strange messages come in."""
    fleet = await fleets("--mem-queue-size=100", "--sync-every=1", latency=0.4, jitter=0.8)
    count = int(os.environ.get("GPT4BATCH_CHAOS_LINES", "5000"))
    fleet.write(count)
    chance = random.Random(4)
    names = ["a", "b", "c", "d"]
    words = ("-g", "20")
    workers = {name: fleet.worker(name, *words) for name in names}
    faults = ["worker"] * 10 + ["coordinator"] * 5 + ["nsqd"] * 3 + ["foreign"] * 3
    chance.shuffle(faults)
    coordinator = fleet.coordinator("--lease", "8")
    for number, fault in enumerate(faults, 1):
        goal = count * number // (len(faults) + 1)
        with anyio.fail_after(DEADLINE):
            while len(done_ids(fleet.out)) < goal:
                assert coordinator.poll() is None, fleet.said("coordinator")[-2000:]
                await anyio.sleep(0.3)
        if fault == "worker":
            name = chance.choice(names)
            fleet.kill(workers[name])
            workers[name] = fleet.worker(name, *words)
        elif fault == "coordinator":
            fleet.kill(coordinator)
            coordinator = fleet.coordinator("--lease", "8", "-f")
        elif fault == "nsqd":
            fleet.kill(fleet.nsqd)
            await anyio.sleep(1)
            await fleet.start_nsqd()
        else:
            async with Publisher(
                [fleet.address], "gpt4api.fleet.batches#ephemeral", Backlog()
            ) as publisher:
                publisher.publish(b"not ours")
                await publisher.settled()
    assert await fleet.end(coordinator, 300) == 0
    fleet.check(count)
    totals = fleet.summary()["fleet"]
    twice = fleet.service.stats.answered_twice
    print(f"faults {len(faults)}, answered twice {twice}, told {totals}")
    assert twice <= totals["asked_again"]


def done_ids(path: Path) -> set[int]:
    if not path.exists():
        return set()
    ids = set()
    for text in path.read_bytes().split(b"\n"):
        if b'"answers":[' in text[:200]:
            ids.add(int(text[text.index(b'"id":') + 5 :].partition(b",")[0]))
    return ids
