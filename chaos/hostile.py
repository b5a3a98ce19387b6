"""Input, names, replies and outputs that nobody would write: 100,000 cases and a few giants."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Any

from chaos.lab import PATIENCE, Lab, demand, read_lines
from chaos.properties import PROPERTIES, check
from gpt4batch.lines import rawjson

RUNS = 300
"""Cases a share that the fuzzer makes."""

CASES = 1100
"""Cases a share of each property: the shares add up to about a hundred."""


def cases(lab: Lab) -> None:
    """Throw whatever can be drawn at every property."""
    for number, (property_, _, share, _) in enumerate(PROPERTIES):
        thrown = check(number, share * lab.size(CASES, 5), lab.seed)
        lab.counts.note(cases=thrown, properties=1)
        demand(thrown, property_.__name__)


def fuzzed(lab: Lab) -> None:
    """Let atheris look for a case that breaks a property, where it is installed."""
    if find_spec("atheris") is None:
        lab.counts.note(atheris_missing=1)
        return
    for number, (property_, _, share, _) in enumerate(PROPERTIES):
        runs = share * lab.size(RUNS, 5)
        words = [str(number), str(runs), str(lab.seed % (1 << 31) or 1), str(lab.folder)]
        done = subprocess.run(
            [sys.executable, "-m", "chaos.fuzz", *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE + runs / 10,
            check=False,
        )
        broken = f"{property_.__name__}: {(done.stdout or done.stderr)[-4000:]}"
        demand(done.returncode == 0, broken)
        lab.counts.note(cases=runs, properties=1)


def giants(lab: Lab) -> None:
    """Run lines of 50 MB and nesting of 10,000; the others are done all the same."""
    service = lab.service()
    bench = lab.bench("giants", service, "--skip-bad-lines", "-g=1")
    size = lab.size(50_000_000, 5_000_000)
    big = b'{"id":"big","asks":[{"content":"b"}],"extra":"%s","n":0.12345678901234567}' % (
        b"x" * size
    )
    deep = b'{"id":"deep","asks":[{"content":"d"}],"extra":%s%s}' % (b"[" * 10_000, b"]" * 10_000)
    number = b'{"id":"long","asks":[{"content":"n"}],"extra":%s}' % (b"9" * 400)
    bench.input.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([big, deep, number, b"\0", b"\xff"]))
    began = time.monotonic()
    bench.run("-f").expect(1)
    found: list[Any] = bench.out.read_bytes().split(b"\n")
    demand(len(found) == 6, f"{len(found) - 1} lines of 5")
    demand(found[0].endswith(b'"n":0.12345678901234567}'), "a float changed", found[0][-60:])
    demand(b"x" * size in found[0], "50 MB changed")
    demand(b'"extra":' + b"9" * 400 in found[2], "a number changed", found[2][:600])
    for text in found[:-1]:
        rawjson.loads(text)
    demand(len(read_lines(bench.out)) == 5, "lines")
    lab.counts.note(bytes=size, lines=5, seconds=int(time.monotonic() - began))
