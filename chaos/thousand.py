"""A thousand kills over small batches: every moment of a short life is hit."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos import forks
from chaos.lab import PATIENCE, demand, lines_of, save_lines, verify
from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from chaos.lab import Bench, Lab, Service

SAID = re.compile(rb"earlier run was killed: (\d+)")
"""How a run tells of the chats that may be paid for twice."""


@dataclass
class Told:
    """What the runs of one batch said of chats that may be paid for twice."""

    in_flight: int = 0


def sigkill(lab: Lab) -> None:
    """Kill small batches again and again, until there were a thousand kills."""
    service = lab.service("--latency=0.02", "--jitter=0.9", "--asset-rate=0.1")
    wanted = lab.size(1000, 60)
    number = 0
    while lab.counts["kills"] < wanted:
        bench = lab.bench(f"small{number}", service)
        _one_batch(lab, service, bench)
        number += 1
    seen = service.stats()
    leaks = seen["files"]["with_authorization"]
    demand(leaks == 0, "the token was sent to the file host")
    demand(lab.counts["in_flight"], "no kill met a chat in flight: nothing was tried")
    demand(lab.counts["kills"] > lab.counts["early"], "every kill came before the first call")
    lab.counts.note(batches=number, answered=seen["chats_answered"])


def _one_batch(lab: Lab, service: Service, bench: Bench) -> None:
    """Kill the runs of one batch up to eight times, let the next one end, and count."""
    rand = lab.rand
    lines = lines_of(bench.folder, rand.randint(5, 20), rand, attach=0.05)
    save_lines(bench.input, lines)
    words = _words(bench, rand.choice(("-g=1", "-g=3", "-g=8")))
    before = service.stats()
    told = Told()
    for _ in range(rand.randint(1, 8)):
        if not _kill_one(lab, bench, words, told):
            break  # it ended first
    last = forks.start(bench.folder, *words, "--summary=summary.json").end(PATIENCE).expect(0)
    _listen(last.errors, told)
    summary: Any = rawjson.loads((bench.folder / "summary.json").read_bytes())
    verify(bench, lines, lab.counts)
    _judge(lab, before, service.stats(), lines, told, summary)


def _words(bench: Bench, *flags: str) -> list[str]:
    bench.used.update(flags, ["-f"])
    words = ["batchsvc", "-u", f"{bench.origin}/standard/all-tools", "-i", str(bench.input)]
    words += ["-o", str(bench.out), "-d", str(bench.downloads), "-q=0", *flags, "-f"]
    return [*words, "--progress-interval=3600"]


def _kill_one(lab: Lab, bench: Bench, words: list[str], told: Told) -> bool:
    """Start a run and kill it; False where it ended before."""
    size = bench.out.stat().st_size if bench.out.exists() else 0
    run = forks.start(bench.folder, *words)
    if lab.rand.random() < 0.75:
        late = time.monotonic() + PATIENCE
        while not run.wrote(bench.out, size) and time.monotonic() < late:
            time.sleep(0.001)
        time.sleep(lab.rand.uniform(0, 0.06))
    else:
        time.sleep(lab.rand.uniform(0, 0.15))
    run.process.kill()
    ended = run.end(PATIENCE)
    _listen(ended.errors, told)
    if ended.code != -9:
        ended.expect(0)
        lab.counts.note(ended_first=1)
        return False
    grown = bench.out.exists() and bench.out.stat().st_size > size
    lab.counts.note(kills=1, early=int(not grown))
    return True


def _listen(errors: bytes, told: Told) -> None:
    told.in_flight += sum(int(number) for number in SAID.findall(errors))


def _judge(
    lab: Lab,
    before: dict[str, Any],
    after: dict[str, Any],
    lines: list[dict[str, Any]],
    told: Told,
    summary: dict[str, Any],
) -> None:
    """Demand that what was paid for twice is no more than what the runs said it may be."""
    twice = after["answered_twice"]["count"] - before["answered_twice"]["count"]
    answered = after["chats_answered"] - before["chats_answered"]
    asks = sum(len(line["asks"]) for line in lines)
    extra = answered - asks
    demand(extra >= twice, f"{answered} answers to {asks} asks, {twice} of them twice")
    known = told.in_flight + summary["unanswered"]
    said = f"{extra} answers too many, {known} told"
    demand(extra <= known, said, after["answered_twice"]["examples"])
    demand(summary["done"] == len(lines), "the last summary:", summary)
    demand(summary["killed_in_flight"] <= told.in_flight, "summary and log differ:", summary)
    lab.counts.note(in_flight=told.in_flight, asked_twice=extra)
