"""A fleet with workers and coordinators that are of no use: the others go on, and it is told."""

from __future__ import annotations

import resource
import shutil
import signal
from typing import TYPE_CHECKING, Any

import orjson
from test_fleet import anyio_backend, fleets

from gpt4batch.nsq.consumer import Consumer
from gpt4batch.nsq.publisher import Publisher
from gpt4batch.nsq.spool import Backlog

if TYPE_CHECKING:
    from collections.abc import Callable

    Until = Callable[[Callable[[], Any]], Any]

__all__ = ["anyio_backend", "fleets"]


async def test_worker_stopped_for_longer_than_the_lease_makes_no_call_when_it_goes_on(
    fleets: Any, until: Until
) -> None:
    fleet = await fleets(latency=0.3)
    fleet.write(12, asks=4)
    first = fleet.worker("a")
    coordinator = fleet.coordinator()
    await until(lambda: fleet.service.stats.now == 4)
    first.send_signal(signal.SIGSTOP)
    fleet.worker("b")
    await until(lambda: "is gone" in fleet.said("coordinator"))
    first.send_signal(signal.SIGCONT)
    assert await fleet.end(coordinator) == 0
    fleet.check(12, asks=4)
    told = fleet.summary()["fleet"]["asked_again"]
    assert fleet.service.stats.answered_twice <= told <= 4


async def test_worker_without_the_files_is_left_out_and_fails_no_line(fleets: Any) -> None:
    fleet = await fleets(latency=0.1)
    asks = [{"id": 0, "content": "see", "files": ["there.txt"]}]
    lines = [{"id": n, "asks": asks} for n in range(40)]
    (fleet.folder / "in.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    for name in ("good", "well", "hole"):
        fleet.worker(name)
        (fleet.folder / name / "there.txt").write_text("here")
    (fleet.folder / "hole" / "there.txt").unlink()
    assert await fleet.end(fleet.coordinator()) == 0
    fleet.check(40)
    (name, reason), *more = fleet.summary()["fleet"]["left_out"].items()
    assert not more
    assert name.startswith("hole-")
    assert "there.txt" in reason
    assert f"worker {name} was left out" in fleet.said("coordinator")


async def test_worker_whose_spool_has_no_room_sends_what_it_has_and_ends(fleets: Any) -> None:
    fleet = await fleets(latency=0.2)
    lines = [
        {"id": line, "asks": [{"content": f"{line} {ask} {'x' * 5000}"} for ask in range(2)]}
        for line in range(12)
    ]
    (fleet.folder / "in.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    full = fleet.worker("full")
    resource.prlimit(full.pid, resource.RLIMIT_FSIZE, (4000, 4000))  # stands for a full disk
    fleet.worker("well")
    assert await fleet.end(fleet.coordinator()) == 0
    fleet.check(12, asks=2)
    assert fleet.service.stats.answered_twice == 0
    (name, reason), *more = fleet.summary()["fleet"]["left_out"].items()
    assert not more
    assert name.startswith("full-")
    assert "no room for answers" in reason
    assert await fleet.end(full) == 3


async def test_worker_with_a_wrong_address_is_left_out_and_fails_no_line(fleets: Any) -> None:
    fleet = await fleets(latency=0.1)
    fleet.write(40)
    fleet.worker("good")
    fleet.worker("hole", "-u", f"{fleet.service.origin}/nowhere/all-tools")
    assert await fleet.end(fleet.coordinator()) == 0
    fleet.check(40)
    assert [name[:4] for name in fleet.summary()["fleet"]["left_out"]] == ["hole"]


async def test_failure_that_all_workers_have_is_the_batchs_own(fleets: Any) -> None:
    fleet = await fleets()
    fleet.write(60)
    for name in ("a", "b"):
        fleet.worker(name, "-u", f"{fleet.service.origin}/nowhere/all-tools")
    assert await fleet.end(fleet.coordinator("--max-consecutive-failures", "5")) == 3
    assert "failed in a row" in fleet.summary()["stopped"]
    assert not fleet.summary()["fleet"]["left_out"]


async def test_worker_whose_token_is_refused_leaves_its_lines_to_the_others(
    fleets: Any, until: Until
) -> None:
    fleet = await fleets(latency=0.1)
    fleet.write(40)
    fleet.worker("good")
    await until(lambda: "is ready" in fleet.said("good"))
    bad = fleet.worker("bad", "--token", "no-such-token-at-all")
    assert await fleet.end(fleet.coordinator()) == 0
    fleet.check(40)
    code = await fleet.end(bad)
    assert code == 3, fleet.said("bad")
    assert fleet.service.stats.chats_answered == 40


async def test_dead_coordinator_holds_up_no_other_batch(fleets: Any, until: Until) -> None:
    fleet = await fleets(latency=0.1)
    fleet.write(40)
    fleet.worker("a")
    dead = fleet.coordinator("-o", "dead.jsonl", "--summary", "", "-q", "1")
    await until(lambda: fleet.service.stats.chats_answered >= 2)
    fleet.kill(dead)
    assert await fleet.end(fleet.coordinator(), 30) == 0
    fleet.check(40)


async def test_results_of_a_worker_of_another_name_are_delivered(fleets: Any, until: Until) -> None:
    fleet = await fleets(latency=0.3)
    fleet.write(4)
    spools = fleet.folder / "spools"
    worker = fleet.worker("one", "--spool-dir", str(spools))
    coordinator = fleet.coordinator()
    await until(lambda: fleet.service.stats.now == 4)
    fleet.kill(fleet.nsqd)
    await until(lambda: fleet.service.stats.chats_answered == 4)
    await until(lambda: any(one.stat().st_size > 1000 for one in spools.glob("*.nsq-spool")))
    fleet.kill(coordinator)
    fleet.kill(worker)
    await fleet.start_nsqd()
    fleet.worker("other", "--spool-dir", str(spools))
    assert await fleet.end(fleet.coordinator("-f")) == 0
    fleet.check(4)
    assert fleet.service.stats.chats_answered == 4
    assert fleet.summary()["killed_in_flight"] == 0


async def test_messages_that_come_twice_change_nothing(fleets: Any, until: Until) -> None:
    fleet = await fleets(latency=0.1)
    fleet.write(20, asks=2)
    fleet.worker("a")
    coordinator = fleet.coordinator()
    await until(lambda: fleet.records() >= 2)
    topics = orjson.loads(fleet.topics())["topics"]
    (topic,) = [one["topic_name"] for one in topics if ".fleet.to." in one["topic_name"]]
    async with (
        Consumer([fleet.address], topic, "copy", room=10) as copies,
        Publisher([fleet.address], topic, Backlog()) as publisher,
    ):
        async for delivery in copies:
            delivery.finish()
            publisher.publish(delivery.body)
            if publisher.sent >= 20:
                break
    assert await fleet.end(coordinator) == 0
    fleet.check(20, asks=2)
    assert fleet.service.stats.chats_answered == 40


async def test_copy_of_a_batch_that_is_resumed_stops_the_older_coordinator(
    fleets: Any, until: Until
) -> None:
    fleet = await fleets(latency=0.3)
    fleet.write(300)
    fleet.worker("a")
    older = fleet.coordinator()
    await until(lambda: fleet.records() >= 4)
    copy = fleet.folder / "copy"
    copy.mkdir()
    for path in fleet.folder.glob("*.jsonl*"):
        shutil.copy(path, copy)
    words = ["-i", str(copy / "in.jsonl"), "-o", str(copy / "out.jsonl"), "-f"]
    newer = fleet.coordinator(*words, "--summary", str(copy / "sum.json"))
    assert await fleet.end(older) == 3
    assert "another coordinator" in fleet.summary()["stopped"]
    assert await fleet.end(newer) == 0


async def test_run_without_a_worker_says_what_to_start(fleets: Any, until: Until) -> None:
    fleet = await fleets()
    fleet.write(1)
    coordinator = fleet.coordinator()
    await until(lambda: "worksvc --nsqd-tcp-address" in fleet.said("coordinator"))
    fleet.worker("a")
    assert await fleet.end(coordinator) == 0
