"""The second dialect and batch files: killed inside conversations, and in bad weather."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from chaos.kills import in_flight_of, nothing_paid_twice
from chaos.lab import Bench, Lab, demand, kill, lines_of, read_lines, save_lines
from chaos.networks import MIXED

if TYPE_CHECKING:
    from chaos.lab import Service

MODEL = "mock-model"


def _bench(lab: Lab, service: Service, name: str, *flags: str) -> Bench:
    return lab.bench(name, service, f"-u={service.origin}/v1", f"-m={MODEL}", *flags)


def _killed(lab: Lab, service: Service, bench: Bench, kills: int) -> None:
    """Kill a batch again and again, let it end, and compare what was paid with what was told."""
    for _ in range(kills):
        size = bench.out.stat().st_size if bench.out.exists() else 0
        process = bench.start("-f")
        demand(bench.began(process, size), "the batch ended before it was killed often enough")
        time.sleep(lab.rand.uniform(0, 0.1))
        kill(process)
        demand(process.wait(60) == -9, "the batch ended before it was killed often enough")
        lab.counts.note(kills=1, in_flight=in_flight_of(bench))
    bench.run("-f").expect(0)
    nothing_paid_twice(lab, service, lab.counts["in_flight"])
    answered = service.stats()["chats_answered"]
    bench.run("-f").expect(0)
    demand(service.stats()["chats_answered"] == answered, "what was done was asked again")


def conversations(lab: Lab) -> None:
    """Kill conversations that are sent whole with each ask: they go on out of our own log."""
    service = lab.service("--latency=0.08", "--jitter=0.9")
    bench = _bench(lab, service, "threads", "-g=12")
    lines = lines_of(bench.folder, lab.size(600, 60), lab.rand, asks=4)
    save_lines(bench.input, lines)
    _killed(lab, service, bench, lab.size(30, 4))
    _verify(bench, lines)
    lab.counts.note(lines=len(lines))


def batch_file(lab: Lab) -> None:
    """Kill a batch file a hundred times."""
    service = lab.service("--latency=0.08", "--jitter=0.9")
    bench = _bench(lab, service, "requests", "-g=8")
    lines = [_request(lab, number) for number in range(lab.size(1600, 80))]
    save_lines(bench.input, lines)
    _killed(lab, service, bench, lab.size(100, 4))
    found = read_lines(bench.out)
    demand([row["custom_id"] for row in found] == [line["custom_id"] for line in lines], "order")
    for line, row in zip(lines, found, strict=True):
        demand(row["error"] is None and row["response"]["status_code"] == 200, "not done:", row)
        asked = line["body"]["messages"][-1]["content"]
        demand(asked in _text(row["response"]["body"]), "the answer to another request:", row)
    lab.counts.note(lines=len(lines))


def weather(lab: Lab) -> None:
    """Fail calls in six ways together, streams and whole replies."""
    for name, more in (("whole", ()), ("streams", ("--stream",))):
        service = lab.service(*MIXED, "--latency=0.02", "--jitter=0.9")
        bench = _bench(lab, service, name, "-g=32", "--timeout=2", "--retries=12", "-q=300", *more)
        lines = lines_of(bench.folder, lab.size(400, 25), lab.rand)
        save_lines(bench.input, lines)
        bench.run("-f", patience=400).expect(0)
        _verify(bench, lines)
        stats = service.stats()
        lab.counts.note(faults=sum(stats["faults"].values()), lines=len(lines))


def _request(lab: Lab, number: int) -> dict[str, Any]:
    text = f"{lab.rand.randrange(1 << 40):x} {number}"
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "seed": 1 << 70}
    return {
        "custom_id": f"r-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
    }


def _text(reply: dict[str, Any]) -> str:
    return str(reply["choices"][0]["message"]["content"])


def _verify(bench: Bench, lines: list[dict[str, Any]]) -> None:
    """Demand that every line is done once, in order, each answer being that to its ask."""
    found = read_lines(bench.out)
    demand([line["id"] for line in found] == [line["id"] for line in lines], "out of order")
    for line, result in zip(lines, found, strict=True):
        demand("iErr" not in result, "not done:", result)
        demand(len(result["answers"]) == len(line["asks"]), "answers missing:", result)
        for ask, answer in zip(line["asks"], result["answers"], strict=True):
            demand(ask["content"] in _text(answer), "the answer to another ask:", ask, answer)
