"""Files changed between runs: the log cut at every byte, the input edited."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio

import gpt4batch
from chaos.kills import hook
from chaos.lab import (
    TOKEN,
    Bench,
    Counts,
    Lab,
    Service,
    demand,
    lines_of,
    read_lines,
    save_lines,
    verify,
    whole_lines,
)
from gpt4batch.lines import rawjson
from gpt4batch.settings import Settings

if TYPE_CHECKING:
    from gpt4batch.batch.summary import Summary


def cuts(lab: Lab) -> None:
    """Cut the log at every byte of its last three records and go on."""
    # The first write is the trial at the start.
    service = lab.service("--asset-rate=0.3", "--asset-size=2000")
    bench = lab.bench("cuts", service, "-g=2", "-r=false")
    lines = lines_of(bench.folder, 4, lab.rand, asks=2, attach=0.3)
    save_lines(bench.input, lines)
    killed = bench.run("-f", env=hook(bench, CHAOS_POINT="ordered:2:before"))
    demand(killed.code == -9, "not killed before the ordered output:", killed.errors)
    demand(all(len(_answers(bench.out.read_bytes())[_key(line)]) for line in lines), "no log")
    whole = bench.out.read_bytes()
    records = whole.splitlines(keepends=True)
    first = len(whole) - sum(len(record) for record in records[-3:])
    step = lab.size(1, 61)
    places = sorted({*range(first, len(whole) + 1, step), *range(len(whole) - 3, len(whole) + 1)})
    anyio.run(_cut_all, lab, bench, service, lines, whole, places)
    lab.counts.note(cuts=len(places), records=3)


async def _cut_all(
    lab: Lab,
    bench: Bench,
    service: Service,
    lines: list[dict[str, Any]],
    whole: bytes,
    places: list[int],
) -> None:
    before = _refusals(service)
    fetched = set(bench.downloads.iterdir())
    for place in places:
        for path in set(bench.downloads.iterdir()) - fetched:
            path.unlink()  # what the last cut fetched again: each cut starts from the same files
        bench.out.write_bytes(whole[:place])
        kept = _answers(whole[:place])
        summary = await _run(bench)
        demand(summary.exit_code == 0, f"cut at {place}:", summary.failures, summary.stopped)
        wanted = sum(len(line["asks"]) - len(kept[_key(line)]) for line in lines)
        # The service is ahead of a log that was cut, and may refuse to go on from there.
        refused = _refusals(service)
        most = wanted + refused - before
        before = refused
        demand(
            wanted <= summary.chats <= most, f"cut at {place}: {summary.chats} asks, not {wanted}"
        )
        for line in read_lines(bench.out):
            earlier = kept[_key(line)]
            same = [_bare(answer) for answer in line["answers"][: len(earlier)]] == earlier
            demand(same, f"cut at {place}: an answer is lost", line)
        verify(bench, lines, Counts())
    verify(bench, lines, lab.counts)


def _refusals(service: Service) -> int:
    calls = service.stats()["calls"].get("/standard/all-tools", {})
    return sum(number for status, number in calls.items() if status in ("400", "404", "409"))


async def _run(bench: Bench) -> Summary:
    return await gpt4batch.run(
        Settings(
            input=str(bench.input),
            out=str(bench.out),
            download_dir=str(bench.downloads),
            url=f"{bench.origin}/standard/all-tools",
            token=TOKEN,
            qps=0.0,
            fix=True,
            rdb=False,
        )
    )


def _answers(log: bytes) -> dict[bytes, list[Any]]:
    """Return the answers that whole records of a log hold, the last one of each line."""
    found = {}
    for line in whole_lines(log.split(b"\n")):
        found[_key(line)] = [_bare(answer) for answer in line["answers"] or ()]
    return _Missing(found)


class _Missing(dict[bytes, list[Any]]):
    def __missing__(self, key: bytes) -> list[Any]:
        return []


def _key(line: dict[str, Any]) -> bytes:
    return rawjson.dumps([line.get("id"), line["asks"]])


def _bare(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "spec_downloads"}


def edits(lab: Lab) -> None:
    """Move, add, remove and change lines between runs; write some of them twice."""
    service = lab.service("--asset-rate=0.2")
    for number in range(lab.size(20, 2)):
        bench = lab.bench(f"edit{number}", service)
        lines = lines_of(bench.folder, 30, lab.rand, asks=3)
        lines += lab.rand.sample(lines, 5)  # equal lines
        save_lines(bench.input, lines)
        bench.run("-f", f"--limit={lab.rand.randrange(8, 30)}").expect(0, 1)
        done = Counter(_key(line) for line in read_lines(bench.out) if "iErr" not in line)
        lines = _edited(lines, lab.rand, bench)
        save_lines(bench.input, lines)
        before = service.stats()["chats_answered"]
        run = bench.run("-f").expect(0)
        asked = service.stats()["chats_answered"] - before
        verify(bench, lines, lab.counts)
        wanted = 0
        for line in lines:
            if done[_key(line)]:
                done[_key(line)] -= 1
            else:
                wanted += len(line["asks"])
        demand(asked == wanted, f"{asked} asks after the edit, not {wanted}", run.errors)
        _set_aside(bench, +done)
        lab.counts.note(edits=1, asked=asked, set_aside=sum((+done).values()))


def _edited(lines: list[dict[str, Any]], rand: random.Random, bench: Bench) -> list[dict[str, Any]]:
    lines = [line for line in lines if rand.random() > 0.15]
    for place in rand.sample(range(len(lines)), 4):
        line = dict(lines[place])
        line["asks"] = [{**ask, "content": ask["content"] + " edited"} for ask in line["asks"]]
        lines[place] = line
    lines += lines_of(bench.folder, 5, rand, asks=2, attach=0.0)
    lines += rand.sample(lines, 3)
    rand.shuffle(lines)
    return lines


def _set_aside(bench: Bench, removed: Counter[bytes]) -> None:
    """Demand that answers to lines that are no longer asked are kept in a file aside."""
    found: Counter[bytes] = Counter()
    for path in bench.folder.glob("out.*.jsonl"):
        found.update(_key(line) for line in read_lines(path))
    demand(found == removed, "answers of removed lines:", found, removed)
