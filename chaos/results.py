"""Outputs that came to harm between two runs, and logs that must not outgrow their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chaos.kills import hook
from chaos.lab import demand, lines_of, read_lines, save_lines, verify
from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.lab import Bench, Lab, Service

MOST = 4.0
"""How many times as large as its answers a log may be: each once, its asks, and the notes."""


def damaged(lab: Lab) -> None:
    """Damage the last record of a finished output: it alone is run again."""
    service = lab.service("--asset-rate=0")
    harms: dict[str, Callable[[bytes], bytes]] = {
        "cut": lambda last: last[: len(last) * 2 // 3] + b"\n",
        "bytes": lambda last: last.replace(b'"contents"', b'"cont\xff\xfents"'),
        "quotes": lambda last: last.replace(b'"contents":', b'"con"tents":'),
        "number": lambda last: last.replace(b'"answers":[', b'"answers":[NaN,', 1),
    }
    bench, lines = _finished(lab, service, "damaged")
    for name, harm in harms.items():
        whole = bench.out.read_bytes()
        *kept, last = whole.splitlines(keepends=True)
        bench.out.write_bytes(b"".join(kept) + harm(last))
        before = service.stats()["chats_answered"]
        bench.run("-f").expect(0)
        asked = service.stats()["chats_answered"] - before
        demand(asked == len(lines[-1]["asks"]), f"{name}: {asked} asks for one damaged record")
        verify(bench, lines, lab.counts)
        lab.counts.note(damaged=1)


def unreadable(lab: Lab) -> None:
    """Save an output in a form that is no longer ours: it is refused, and nothing is called."""
    service = lab.service("--asset-rate=0")
    forms: dict[str, Callable[[bytes], bytes]] = {
        "utf16": lambda text: text.decode().encode("utf-16"),
        "array": lambda text: b"[" + text.strip().replace(b"\n", b",") + b"]\n",
        "pretty": lambda text: b"".join(
            rawjson.pretty(rawjson.loads(line)) + b"\n" for line in text.splitlines()
        ),
    }
    bench, _ = _finished(lab, service, "unreadable")
    whole = bench.out.read_bytes()
    for name, form in forms.items():
        changed = form(whole)
        bench.out.write_bytes(changed)
        before = service.stats()["arrivals"]
        run = bench.run("-f").expect(2)
        demand(service.stats()["arrivals"] == before, f"{name}: the service was called")
        demand(bench.out.read_bytes() == changed, f"{name}: the output was touched")
        demand(b"out.jsonl:" in run.errors, f"{name}: no place is told", run.errors)
        lab.counts.note(refused=1)


def growth(lab: Lab) -> None:
    """Answer long lines and answers with many links: the log grows with what is new."""
    flags = (("--answer-size=20000",), ("--asset-rate=1", "--asset-count=100", "--asset-size=10"))
    for number, words in enumerate(flags):
        service = lab.service(*words)
        bench = lab.bench(f"growth{number}", service, "-g=2", "-r=false")
        asks = (lab.size(60, 20), 2)[number]
        lines = [
            {"id": n, "asks": [{"content": f"{number} {n} {turn}"} for turn in range(asks)]}
            for n in range(2)
        ]
        save_lines(bench.input, lines)
        killed = bench.run("-f", env=hook(bench, CHAOS_POINT="ordered:2:before"))
        demand(killed.code == -9, "not killed before the ordered output:", killed.errors)
        log = bench.out.stat().st_size
        bench.run("-f", "-r=false").expect(0)
        output = bench.out.stat().st_size
        demand(log <= MOST * output, f"a log of {log:,} bytes for {output:,} of output")
        demand(service.stats()["answered_twice"]["count"] == 0, "asks paid twice")
        lab.counts.note(log_bytes=log, output_bytes=output, asked_twice=0)


def _finished(lab: Lab, service: Service, name: str) -> tuple[Bench, list[dict[str, Any]]]:
    bench = lab.bench(name, service, "-r=false")
    lines = lines_of(bench.folder, 6, lab.rand, asks=1, attach=0.0)
    save_lines(bench.input, lines)
    bench.run("-f").expect(0)
    demand(len(read_lines(bench.out)) == len(lines), "no output")
    return bench, lines
